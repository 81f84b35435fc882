import json
import math
import subprocess
import sys

import jax
import pytest

from benchmarks import growth, input_path, loading
from ppvit_jax import __main__ as commands
from ppvit_jax.command_line import run_command

SMALL = ["benchmark", "--model=ViT-Micro/8", "--image-size=16", "--batch-size=2", "--repeats=2", "--device=cpu"]


def measure(folder, *arguments):
    assert run_command(commands.main, [*SMALL, f"--output={folder}", *arguments]) == 0
    content = json.loads((folder / "benchmark.json").read_text())
    return content, {table["title"]: table["rows"] for tables in content["sections"].values() for table in tables}


@pytest.mark.slow
def test_compares_steps_and_encryptions(tmp_path, capsys):
    content, tables = measure(tmp_path, "--only=steps,encrypted,encryption", "--compare", "--dtype=float32")
    assert list(content["sections"]) == ["steps", "encrypted", "encryption"]
    assert content["machine"].keys() > {"device", "processor", "cores", "jax", "torch", "timm", "torch_threads"}
    in_jax, in_pytorch = tables["Training step"]
    assert (in_jax["framework"], in_pytorch["framework"]) == ("JAX", "PyTorch")
    assert in_jax["ratio"] == 1 and in_pytorch["ratio"] == pytest.approx(in_pytorch["seconds"] / in_jax["seconds"])
    for row in (in_jax, in_pytorch):
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"]) and len(row["turns"]) == 2
        assert 0 < row["utilisation"] < 100 and 50 < row["peak_mebibytes"] < 10_000 and "failed" not in row
    assert in_jax["compile_seconds"] > 0
    assert {row["framework"] for row in tables["Matrix products"]} == {"JAX", "PyTorch"}
    plain, encrypted = tables["Encrypted training step"]
    assert plain["images"] == "plain" and encrypted["images"] == "encrypted (bs+ps)" and len(plain["turns"]) == 10
    assert {row["what"] for row in tables["Encryption alone"]} == {
        *(f"copy by {name}" for name in ("JAX", "numpy", "PyTorch")),
        *(f"ppvit_jax, {name}" for name in ("JAX", "JAX, cut into blocks", "numpy")),
        *(f"straightforward, {name}" for name in ("numpy", "PyTorch")),
    }
    printed = capsys.readouterr().out
    text = (tmp_path / "benchmark.md").read_text()
    assert text.endswith(printed.rstrip("\n") + "\n") and printed.count("\n## ") + 1 == 4
    # A later command of this process may use the cache again.
    assert jax.config.values["jax_enable_compilation_cache"]


@pytest.mark.slow
def test_measures_input_loading_and_growth(tmp_path, monkeypatch):
    for module, name, fewer in ((loading, "_STARTS", 1), (input_path, "_PHOTOGRAPHS", 40), (growth, "_MOST_IMAGES", 8)):
        monkeypatch.setattr(module, name, fewer)
    _, tables = measure(tmp_path, "--only=input,loading,growth")
    step, *sources = tables["Input path"]
    assert step["times_step"] == 1
    assert [row["what"] for row in sources] == ["32x32 arrays in memory", "photographs, .jpg", "photographs, .png"]
    for row in sources:
        assert row["times_step"] == pytest.approx(row["images_per_second"] / step["images_per_second"])
    assert [row["what"] for row in tables["Reading a checkpoint"]] == [
        "numpy, every array",
        "ppvit_jax",
        "the file's bytes",
    ]
    starts = tables["Starting"]
    assert [row["cache"] for row in starts] == ["empty", "filled"]
    for row in starts:
        assert all(0 < row[part] < row["seconds"] for part in ("import", "data", "checkpoint", "compile"))
    assert {row["line"] for row in tables["Growth of a training step"]} == {"16x16", "24x24"}
    assert max(row["images"] for row in tables["Growth of encryption"]) == 8
    assert all(math.isfinite(row["exponent"]) for row in tables["Exponents"])
    assert (tmp_path / "growth.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size=0"], "--batch-size is 0: give at least 1"),
        (["--repeats=0"], "--repeats is 0: give at least 1"),
        (["--batch-size=many"], "--batch-size is many: give whole numbers"),
        (["--dtype=float64"], "--dtype is float64: use float32 or bfloat16"),
        (["--image-size=17"], "image size 17 is not a multiple"),
        (["--model=VGG"], "unknown model 'VGG'"),
        (["--model=ResNet-18"], "ResNet-18 is not a Vision Transformer"),
        (["--only=steps,speed"], "names an unknown section"),
        (["--device=tpu"], "JAX has no tpu here"),
        (["--only=input", "--tfds=nothing", "--data-dir=nowhere"], "no prepared data set 'nothing'"),
    ],
)
def test_what_cannot_be_measured_gives_one_line(tmp_path, capsys, arguments, message):
    assert run_command(commands.main, [*SMALL, f"--output={tmp_path}", *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("section ")]
    assert len(errors) == 1 and message in errors[0]


@pytest.mark.slow
def test_without_pytorch_a_comparison_says_what_to_install(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None; from ppvit_jax.__main__ import main; "
        "from ppvit_jax.command_line import run_command; sys.exit(run_command(main, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *SMALL, f"--output={tmp_path}", "--compare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: --compare needs PyTorch: run pip install 'ppvit-jax[benchmark]'\n"
