"""Runs the notebook from its first cell to its last."""

import base64
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from helpers.command import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "notebooks" / "ppvit_colab.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Runs the notebook in an empty folder with this Python; returns it with its outputs, and the folder."""
    folder = tmp_path_factory.mktemp("notebook")
    kernels = folder / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    # Use the kernel of this environment, even if the machine has others.
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "this Python", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(kernel))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (work := folder / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("PYTHONPATH", str(ROOT))
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    return notebook, work


@pytest.mark.slow
def test_the_whole_story_runs_and_its_numbers_are_right(executed):
    notebook, work = executed
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )
    difference = re.search(r"largest difference of 3,240 logits: (\S+)", printed)
    assert difference and 0 < float(difference[1]) < 1e-4
    assert re.search(r"error: .* \(key fingerprint \w{32}\).* \(key fingerprint \w{32}\)", printed)
    new_key = re.search(r"accuracy with the new key: ([\d.]+) %", printed)
    assert new_key and float(new_key[1]) > 80
    assert "$ python -c" in printed and "CpuDevice" in printed
    assert "python -m ppvit_jax.main --config=" in printed.splitlines()[-1]
    assert not list((work / "cloud").rglob("*.key"))


@pytest.mark.slow
def test_it_draws_three_pictures(executed, request):
    notebook, _ = executed
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [
        base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5000 for picture in pictures)
    assert not [output for output in outputs if output.output_type == "error"]


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert Path(NOTEBOOK).stat().st_size < 50_000
