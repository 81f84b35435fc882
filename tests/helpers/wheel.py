"""The project's wheel, built and installed without a network, and a stand-in for a machine without the extras."""

import shutil
import subprocess
import sys
from pathlib import Path

from helpers.command import ROOT

# Modules of the libraries that the extras of pyproject.toml install, and of others that only the tests need.
BLOCKED = (
    "matplotlib",
    "sklearn",
    "skimage",
    "torch",
    "torchvision",
    "timm",
    "apache_beam",
    "huggingface_hub",
    "mlflow",
    "wandb",
    "onnx",
    "pyarrow",
)
_SOURCES = ("ppvit_jax", "checkpoints_convert", "configs", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")


def build_wheel(folder: Path) -> Path:
    """Builds the wheel from a copy of the sources, so that the repository gets no build files."""
    (source := folder / "source").mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder / "dist", source)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, target: Path) -> None:
    """Installs a wheel into a folder of its own, its programs into the folder's bin."""
    _pip("install", "--no-deps", "--no-index", "--target", target, wheel)


def block_optional_libraries(folder: Path) -> None:
    """Writes a folder for PYTHONPATH with which Python finds none of the optional libraries."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n")


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
