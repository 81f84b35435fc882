"""The wheel, installed by itself: a folder without the repository, and without the libraries of the extras."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command import ROOT
from helpers.wheel import BLOCKED, block_optional_libraries, build_wheel, install
from PIL import Image

pytestmark = pytest.mark.slow

TINY = (
    "--config.data.source=image_folder --config.data.dir=images --config.epochs=1 --config.batch_size=8 "
    "--config.eval_batch_size=8 --config.tensorboard=False"
)
SMALL_MODEL = "--config.checkpoint=embedded --config.model=ViT-Micro/8 --config.image_size=64"


class Machine:
    """A folder in which the installed wheel is used, and nothing else of the project."""

    def __init__(self, folder: Path, site: Path, blocked: Path):
        self.folder, self._site, self._blocked = folder, site, blocked

    def run(self, command: str, expected: int = 0, *, complete: bool = False) -> subprocess.CompletedProcess[str]:
        """Runs a command line, such as "ppvit --help", on a machine with the core alone or with all libraries."""
        paths = [str(self._site)] if complete else [str(self._blocked), str(self._site)]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PATH": f"{self._site / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONSAFEPATH": "1",
        }
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == expected, done.stderr
        return done


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    root = tmp_path_factory.mktemp("wheel")
    install(build_wheel(root), root / "site")
    block_optional_libraries(root / "blocked")
    (folder := root / "empty").mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 32), ("test", 16)):
        for name, level in (("dark", 40), ("light", 200)):
            (images := folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(level - 40, level + 40, (64, 64, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(images / f"{number}.png")
    return Machine(folder, root / "site", root / "blocked")


def test_the_wheel_has_every_file_of_the_package_and_no_other(machine):
    code = "import ppvit_jax, checkpoints_convert; print(ppvit_jax.__file__, checkpoints_convert.__file__)"
    site = machine.folder.parent / "site"
    files = [Path(text) for text in machine.run(f'{sys.executable} -c "{code}"').stdout.split()]
    assert files == [site / "ppvit_jax" / "__init__.py", site / "checkpoints_convert" / "__init__.py"]

    def listed(folder: Path) -> set[str]:
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    packaged = {name for name in listed(site / "ppvit_jax") if not name.startswith("configs/")}
    assert packaged == listed(ROOT / "ppvit_jax") and "py.typed" in packaged
    assert listed(site / "ppvit_jax" / "configs") == listed(ROOT / "configs")
    assert listed(site / "checkpoints_convert") == listed(ROOT / "checkpoints_convert")
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {
        "bin",
        "checkpoints_convert",
        "ppvit_jax",
    }


def test_every_module_can_be_imported_without_the_extras(machine):
    code = (
        "import importlib, pkgutil, checkpoints_convert, ppvit_jax\n"
        "for package in (ppvit_jax, checkpoints_convert):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name.startswith('ppvit_jax.configs'):\n"
        "            continue\n"
        "        try:\n"
        "            importlib.import_module(module.name)\n"
        "        except ImportError as error:\n"
        "            print(module.name, error.name)\n"
    )
    (machine.folder / "import_all.py").write_text(code)
    assert machine.run(f"{sys.executable} import_all.py").stdout == "ppvit_jax.offline.beam apache_beam\n"


def test_owner_and_cloud_need_the_core_alone(machine):
    for command in (
        "ppvit keygen --output secret.key",
        "ppvit encrypt --key secret.key --input images --output encrypted --image-size 64 --block-size 8",
        "ppvit adapt --key secret.key --checkpoint embedded --output adapted.npz --image-size 64",
        "ppvit train --config=configs/cloud.py --workdir=cloud --config.checkpoint=adapted.npz --config.epochs=1 "
        "--config.data.dir=encrypted --config.model=ViT-Micro/8 --config.image_size=64 --config.batch_size=8",
        "ppvit predict --checkpoint cloud/checkpoint.npz --input encrypted/test --output answers.npz",
        "ppvit restore --key secret.key --checkpoint cloud/checkpoint.npz --output tuned.npz",
        "ppvit predict --checkpoint tuned.npz --input images/test --output plain.npz",
        "ppvit info cloud",
    ):
        machine.run(command)
    with np.load(machine.folder / "answers.npz") as encrypted, np.load(machine.folder / "plain.npz") as plain:
        differences = np.sort(encrypted["logits"], axis=0) - np.sort(plain["logits"], axis=0)
    assert np.abs(differences).max() < 1e-4
    assert list((machine.folder / "cloud").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("name", "encryption"), [("configs/demo.py", "bs+ps"), ("configs/table2.py:etc_vit", "etc")])
def test_the_packages_configurations_train_in_an_empty_folder(machine, name, encryption):
    workdir = name.partition("/")[2]
    done = machine.run(f"ppvit train --config={name} --workdir='{workdir}' {TINY} {SMALL_MODEL}")
    assert f'"encryption": "{encryption}"' in done.stdout and "test accuracy" in done.stderr


@pytest.mark.parametrize(
    "table",
    [
        # This is the program that the test above trains with, so that it is compiled once.
        f"table1 --config=configs/demo.py --arms=bs+ps-adapted --output=t1 {TINY} {SMALL_MODEL}",
        "table2 --budget=6 --rows=plain_convmixer --output=t2 --config.data.source=image_folder "
        "--config.data.dir=images --config.model=ConvMixer-8/1 --config.image_size=16",
    ],
)
def test_tables_are_reproduced_without_pictures_and_the_same_command_draws_them_later(machine, table):
    command = f"ppvit reproduce {table}"
    output = machine.folder / f"t{table[5]}"
    first = machine.run(command)
    assert first.stderr.splitlines()[0] == (
        "matplotlib is not installed, so no pictures are drawn: to have them, run pip install 'ppvit-jax[tables]' and "
        "then this command again"
    )
    assert {"table.md", "table.json"} <= {path.name for path in output.iterdir()}
    assert not list(output.glob("*.png")) and ".png" not in first.stdout
    second = machine.run(command, complete=True)
    assert (output / "curves.png").read_bytes()[1:4] == b"PNG" and "curves.png" in second.stdout
    assert "is already complete" in second.stderr and "matplotlib" not in second.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "ppvit audit weights --base embedded --model embedded",
            "ppvit audit needs matplotlib, scikit-image, scikit-learn: run pip install 'ppvit-jax[audit]'",
        ),
        (
            f"ppvit train --config=configs/demo.py {SMALL_MODEL} --config.data.source=embedded "
            "--config.data.name=digits --workdir=new",
            "the data set of digits needs scikit-learn: run pip install 'ppvit-jax[tables]'",
        ),
        (
            "ppvit encrypt --key secret.key --input images --output new --runner DirectRunner",
            "--runner needs Apache Beam: run pip install 'ppvit-jax[beam]'",
        ),
        (
            "ppvit convert timm-to-npz model.pth new",
            "reading model.pth needs PyTorch: run pip install 'ppvit-jax[convert]', or use a .safetensors file",
        ),
        (
            "ppvit convert npz-to-timm none.npz new.pth",
            "writing new.pth needs PyTorch: run pip install 'ppvit-jax[convert]', or write a .safetensors file",
        ),
        (
            "ppvit export --checkpoint embedded --output new.onnx",
            "an .onnx file needs onnx: run pip install 'ppvit-jax[onnx]', or give --output a name that ends with "
            ".stablehlo",
        ),
        (
            "ppvit benchmark",
            "the benchmarks are not part of the installed package: clone the project's repository, run pip install "
            "--editable . there, and repeat the command",
        ),
    ],
)
def test_a_command_that_needs_an_extra_says_so_before_it_starts(machine, command, message):
    # The first bytes of a file of PyTorch, which recognizes files by their content.
    (machine.folder / "model.pth").write_bytes(bytes.fromhex("80028a0a6cfc9c46f9206aa850192e"))
    assert machine.run(command, expected=1).stderr == f"error: {message}\n"
    assert not list(machine.folder.glob("new*"))


def test_the_gallery_needs_an_extra(machine):
    done = machine.run("ppvit reproduce gallery --output=gallery", expected=1)
    assert done.stderr.splitlines()[-1] == (
        "error: ppvit reproduce gallery needs matplotlib, scikit-image, scikit-learn: run pip install "
        "'ppvit-jax[tables]'"
    )
    assert not (machine.folder / "gallery").exists()


def test_the_libraries_of_the_extras_are_the_blocked_ones(machine):
    for module in BLOCKED:
        machine.run(f'{sys.executable} -c "import {module}"', expected=1)
