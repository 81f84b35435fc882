"""The section `loading`: reading a checkpoint of real size, and starting a program up to its first training step."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.jax_step import random_params
from benchmarks.report import Table
from benchmarks.settings import Settings
from benchmarks.timing import Work, host_work, summarize, take_turns
from ppvit_jax import checkpoint, models
from ppvit_jax.errors import UserError
from ppvit_jax.models import vit

_CLASSES = 21_843
_STARTS = 2
_READING = {
    "what": "Work",
    "seconds": "Median",
    "quartiles": "quartiles",
    "range": "range",
    "gigabytes_per_second": "GB/s",
    "ratio": "Time / numpy's",
    "ratio_quartiles": "quartiles",
}
_STARTING = {
    "cache": "Compilation cache",
    "import": "Importing (s)",
    "data": "Data (s)",
    "checkpoint": "Checkpoint (s)",
    "compile": "Compiling (s)",
    "seconds": "To the first step",
}


def run(settings: Settings) -> Iterator[list[Table]]:
    """Yields the table of reading, and then both tables.

    Raises:
      UserError: the model is unknown, a size does not fit it, or a run does not start.
    """
    name = (settings.models or ("ViT-B/16",))[0]
    config = settings.model_config(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        write_pretrained(path, name, settings.image_size)
        seconds = take_turns(_reading(path, config), settings.repeats, f"reading {name}")
        size = path.stat().st_size
        rows = [
            {"what": name, **summary, "gigabytes_per_second": size / summary["seconds"] / 1e9}
            for name, summary in summarize(seconds, "numpy, every array").items()
        ]
        note = (
            f"{name} with pre_logits and a head of {_CLASSES:,} classes, float32 .npz of {size / 1e6:,.0f} MB in the "
            f"page cache; {settings.repeats} turns. A run reads it without head and pre_logits, checks it, and fits "
            "it to a model with a new head."
        )
        tables = [Table("Reading a checkpoint", note, _READING, rows)]
        yield tables
        batch_size = (settings.batch_sizes or ((8,) if settings.device == "cpu" else (32,)))[0]
        dtype = (settings.dtypes or ("float32",))[0]
        fields = {"checkpoint": str(path), "model": name, "image_size": settings.image_size, "dtype": dtype}
        rows = []
        for number in range(2 * _STARTS):
            # Every second start finds the programs that the one before it compiled.
            cache = Path(folder) / f"cache_{number // 2}"
            workdir = Path(folder) / f"run_{number}"
            parts = start({**fields, "batch_size": batch_size}, workdir, cache, settings.device)
            rows.append({"cache": "filled" if number % 2 else "empty", **parts})
        note = (
            f"python -m ppvit_jax.main on scikit-learn's digits with {name} at {settings.image_size}x"
            f"{settings.image_size}, {dtype}, batch {batch_size}, encrypted and adapted, from the start of its process "
            "to the end of its first training step, with the checkpoint above. Compiling includes reading from the "
            "cache. Parts may run at the same time; the total also includes tracing, the step itself and the rest."
        )
        yield [*tables, Table("Starting", note, _STARTING, rows)]


def write_pretrained(path: Path, name: str, image_size: int) -> None:
    """Writes a checkpoint of random float32 weights, with pre_logits and a head of ImageNet-21k's size."""
    hidden_size = vit.parse_name(name, image_size=image_size, num_classes=1).hidden_size
    config = vit.parse_name(name, image_size=image_size, num_classes=_CLASSES, representation_size=hidden_size)
    metadata = checkpoint.Metadata(name, image_size)
    checkpoint.write(path, random_params(config), metadata)


def start(fields: Mapping[str, object], workdir: Path, cache: Path, device: str) -> dict[str, float]:
    """Starts a training run in a process of its own, which ends after its first step.

    Args:
      fields: fields of the configuration, by name.
      workdir: the workdir of the run; the configuration file is written beside it.
      cache: the folder of JAX's compilation cache.
      device: "cpu", "gpu" or "tpu".

    Returns:
      The seconds of the parts and of all together; see `benchmarks.first_step`.

    Raises:
      UserError: the run does not reach its first step.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    if device == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    file = workdir.with_suffix(".py")
    file.write_text("from ppvit_jax.config import default_config as get_config\n")
    chosen = {"log_steps": 1, "data.source": "embedded", "data.name": "digits", "tensorboard": False, **fields}
    overrides = [f"--config.{name}={value}" for name, value in chosen.items()]
    command = [sys.executable, "-m", "benchmarks.first_step", str(time.time())]
    command += [f"--config={file}", f"--workdir={workdir}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"a training run does not start: {lines[-1][:300]}")
    return json.loads(done.stdout.splitlines()[-1])


def _reading(path: Path, config: models.ViTConfig) -> dict[str, Work]:
    def as_a_run() -> None:
        arrays, _ = checkpoint.open_checkpoint(path, skip=models.unused_layers(config, keep_head=False))
        checkpoint.to_params(arrays, config, keep_head=False)

    def by_numpy() -> None:
        with np.load(path) as file:
            for name in file.files:
                file[name]

    return {
        "numpy, every array": host_work(by_numpy),
        "ppvit_jax": host_work(as_a_run),
        "the file's bytes": host_work(path.read_bytes),
    }
