"""Settings of the benchmarks, and selection of the device."""

import dataclasses
import os
import platform
from pathlib import Path

import flax
import jax
import numpy as np

import ppvit_jax
from ppvit_jax.errors import COUNT, UserError
from ppvit_jax.models import ViTConfig, parse_name

DEVICES = ("cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of all sections.

    Attributes:
      models: names such as "ViT-B/16".
      batch_sizes: numbers of images in a training step.
      dtypes: compute dtypes of a training step, "float32" or "bfloat16".
      image_size: side of an image in pixels.
      repeats: number of turns in which everything is timed, after a warm-up.
      compare: True to measure PyTorch too.
      device: "cpu", "gpu" or "tpu".
      data: a data set that tensorflow-datasets has prepared, for the input path; "" for none.
      data_dir: the folder of such data sets; "" for the usual one.
      output: the folder for results.
    """

    models: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    image_size: int
    repeats: int
    compare: bool
    device: str
    data: str
    data_dir: str
    output: Path

    def model_config(self, name: str, dtype: str = "float32", image_size: int | None = None) -> ViTConfig:
        """Returns the shape of a model with ten classes.

        Raises:
          UserError: the name is unknown or of another family, or the image size does not fit.
        """
        size = image_size or self.image_size
        config = parse_name(name, image_size=size, num_classes=10, dtype=dtype)
        if not isinstance(config, ViTConfig):
            raise UserError(f"{name} is not a Vision Transformer: choose one, such as ViT-B/16")
        return config


def split_names(text: str) -> tuple[str, ...]:
    """Returns the parts of a text that commas separate, without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """Reads the value of --batch-size.

    Raises:
      UserError: it has something else than whole numbers from 1.
    """
    try:
        batch_sizes = tuple(int(number) for number in split_names(text))
    except ValueError:
        raise UserError(f"--batch-size is {text}: give whole numbers, such as 32,256") from None
    for batch_size in batch_sizes:
        COUNT.check("--batch-size", batch_size)
    return batch_sizes


def select_device(name: str) -> str:
    """Selects the kind of device on which JAX computes, before it has computed anything.

    Args:
      name: one of DEVICES, or "" for the best that JAX finds.

    Returns:
      One of DEVICES.

    Raises:
      UserError: there is no such device.
    """
    if name == "cpu":
        jax.config.update("jax_platforms", "cpu")
    # PyTorch needs memory on the same device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        backend = jax.default_backend()
    except RuntimeError as error:
        raise UserError(f"JAX has no device: {' '.join(str(error).split())[:200]}") from None
    if name not in ("", backend):
        raise UserError(f"JAX has no {name} here, but a {backend}: choose another --device, or install JAX for it")
    return backend


def describe_machine() -> dict[str, str | int | None]:
    """Returns the device, cores and versions of this machine, to which results belong."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ppvit_jax": ppvit_jax.__version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    """Returns the name of the processor from Linux, or elsewhere the name of the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
