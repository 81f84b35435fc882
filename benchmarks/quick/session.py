"""Sizes of the work of `python -m benchmarks quick` on each kind of device, and the state that its parts share."""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.jax_step import TrainingStep, random_batch, random_params
from benchmarks.settings import Settings
from ppvit_jax import keys, models
from ppvit_jax.config import default_config, make_encryption
from ppvit_jax.encryption import Encryption, Secret


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes of the work, and first estimates of its time.

    Attributes:
      model: name of the model.
      dtype: compute dtype of training steps.
      batch_sizes: batch sizes of training steps, the most important first.
      product_size: side of the matrices that are multiplied.
      image_counts: numbers of images that are encrypted at a time.
      checked_images: number of images whose logits are compared.
      repeated_steps: number of steps in each of two equal runs.
      loop_steps: number of steps in an epoch of the training loop.
      turn_seconds: time for the turns of one comparison.
      compile_seconds: first estimate of the time in which JAX compiles a training step.
      pytorch_seconds: the same for PyTorch's compiler, with the creation of the model.
    """

    model: str
    dtype: str
    batch_sizes: tuple[int, ...]
    product_size: int
    image_counts: tuple[int, ...]
    checked_images: int
    repeated_steps: int
    loop_steps: int
    turn_seconds: float
    compile_seconds: float
    pytorch_seconds: float


_ACCELERATOR = Workload("ViT-B/16", "bfloat16", (256, 32, 128), 8192, (32, 256), 32, 20, 100, 8, 20, 30)
# ViT-Ti/16 in float32: many processors compute bfloat16 slowly.
_PROCESSOR = Workload("ViT-Ti/16", "float32", (8,), 2048, (32,), 8, 5, 10, 12, 8, 2)


def choose_workload(device: str) -> Workload:
    """Returns the sizes for a kind of device, "cpu", "gpu" or "tpu"."""
    return _PROCESSOR if device == "cpu" else _ACCELERATOR


class _Program(NamedTuple):
    """A compiled training step, by the arguments of `Session.step`."""

    batch_size: int
    encrypted: bool
    fields: tuple[tuple[str, str | bool], ...]


class Session:
    """State that the parts share: the settings, the key, and results on which later parts build.

    Attributes:
      settings: device, image size, number of turns, and True in `compare` to measure PyTorch.
      workload: the sizes.
      model_config: the shape of the model in the workload's dtype.
      training: the configuration of the training steps.
      method: the encryption.
      key: a new random key.
      secret: the secret that the encryption derives from the key.
      program, program_secret: the same encryption as compiled steps compute it, and its secret.
      product_rate: the highest rate of matrix products in TFLOP/s; None before it is measured.
      encrypted_rates: images per second of the encrypted training step by batch size, once measured.
    """

    def __init__(self, settings: Settings, workload: Workload):
        self.settings = settings
        self.workload = workload
        self.training = default_config()
        self.training.dtype = workload.dtype
        self.model_config: models.ViTConfig = settings.model_config(workload.model, workload.dtype)
        method = make_encryption(self.training, self.model_config)
        assert method is not None
        self.method: Encryption = method
        self.key = keys.generate()
        self.secret: Secret = method.derive(self.key, height=settings.image_size, width=settings.image_size)
        self.program: Encryption = method.program_in_blocks(self.model_config.patch_size, jax.default_backend())
        self.program_secret: Secret = self.program.sort(
            self.secret, height=settings.image_size, width=settings.image_size
        )
        self.product_rate: float | None = None
        self.encrypted_rates: dict[int, float] = {}
        self._compiled: set[_Program] = set()
        self._compile_seconds = workload.compile_seconds
        self._pytorch_seconds = workload.pytorch_seconds

    @functools.cached_property
    def params(self) -> models.Params:
        """Random parameters of the model, numpy arrays."""
        return random_params(self.model_config)

    @property
    def is_hopper(self) -> bool:
        """True on an H100 or H200, for which the targets of the step's time are set."""
        return any(name in jax.devices()[0].device_kind for name in ("H100", "H200"))

    def images(self, count: int) -> np.ndarray:
        """Returns random images, uint8 [count, size, size, 3]."""
        return random_batch(count, self.settings.image_size)[0]

    def step(self, batch_size: int, *, encrypted: bool, **fields: str | bool) -> TrainingStep:
        """Compiles a training step, unless this process has compiled the same.

        Args:
          batch_size: images in the step.
          encrypted: True to encrypt the images.
          **fields: fields of the configuration that differ from those of the benchmark.
        """
        start = time.perf_counter()
        training: Any = self.training.copy_and_resolve_references()
        training.update(fields)
        config = self.settings.model_config(self.workload.model, training.dtype)
        batch = random_batch(batch_size, self.settings.image_size)
        step = TrainingStep(config, training, batch, self.program_secret if encrypted else None, self.params)
        program = _Program(batch_size, encrypted, tuple(sorted(fields.items())))
        if program not in self._compiled:
            self._compile_seconds = time.perf_counter() - start
            self._compiled.add(program)
        return step

    def pytorch_step(self, batch_size: int) -> Any:
        """Returns the step of PyTorch, compiled on a GPU."""
        from benchmarks import pytorch

        start = time.perf_counter()
        batch = random_batch(batch_size, self.settings.image_size)
        compiled = self.settings.device != "cpu"
        step = pytorch.TrainingStep(
            self.model_config, self.training, batch, self.settings.device, compile_model=compiled
        )
        step.run(1)
        self._pytorch_seconds = time.perf_counter() - start
        return step

    def is_compiled(self, batch_size: int, *, encrypted: bool, **fields: str | bool) -> bool:
        """Returns True if `step` takes no time to compile this step again."""
        return _Program(batch_size, encrypted, tuple(sorted(fields.items()))) in self._compiled

    def training_seconds(self, steps: int, batch_size: int) -> float:
        """Returns the time of encrypted steps, or that of one comparison as long as no step has been measured."""
        rate = self.encrypted_rates.get(batch_size)
        return steps * batch_size / rate if rate else self.workload.turn_seconds

    def estimate(self, seconds: float, programs: int = 0, pytorch_programs: int = 0) -> float:
        """Returns the time of measuring and compiling; the latest compilation stands for the next ones.

        Args:
          seconds: time to measure.
          programs: number of programs that JAX compiles.
          pytorch_programs: number of programs that PyTorch compiles.
        """
        return seconds + programs * self._compile_seconds + pytorch_programs * self._pytorch_seconds
