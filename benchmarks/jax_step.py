"""One training step in JAX, as a run computes it, on a batch that stays on the device."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from benchmarks.timing import Work, jax_work
from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.encryption import Secret
from ppvit_jax.training.compiler import fix_precision
from ppvit_jax.training.step import compile_steps


def random_batch(batch_size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, uint8 [batch, size, size, 3], and labels of ten classes, int32 [batch]."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    return images, random.integers(0, 10, batch_size, np.int32)


def random_params(config: models.ModelConfig) -> models.Params:
    """Returns random parameters of a model, float32 numpy arrays with a standard deviation of 0.02."""
    random = np.random.default_rng(0)
    params = {}
    for name, shape in models.parameter_shapes(config).items():
        params[name] = np.float32(0.02) * random.standard_normal(shape, np.float32)
        if name.endswith("scale"):
            params[name] += 1
    return unflatten_dict(params, sep="/")


class TrainingStep:
    """The training step of `ppvit_jax.training.step.compile_steps`, and its state.

    Attributes:
      state: the training state.
      compile_seconds: time to trace, lower and compile the step; near 0 if this process has compiled it before.
      program_bytes: XLA's estimate of the memory of the compiled program: arguments, results and temporary memory.
    """

    def __init__(
        self,
        config: models.ViTConfig,
        training: Config,
        batch: tuple[np.ndarray, np.ndarray],
        secret: Secret | None = None,
        params: models.Params | None = None,
    ):
        """Compiles the step.

        Args:
          config: the model's shape.
          training: the run's configuration; see `compile_steps`.
          batch: images, uint8 [batch, height, width, 3], and labels, int32 [batch].
          secret: the secret of the run's encryption, or None for plain images.
          params: the parameters to start from; None for random ones.
        """
        steps = compile_steps(config, training, total_steps=1)
        self._step: Any = steps.train_step
        params = random_params(config) if params is None else params
        self.state = jax.block_until_ready(jax.device_put(steps.init_state(params, {})))
        images, labels = batch
        numbers = np.arange(len(images), dtype=np.uint32)
        on_device = jax.device_put({"image": images, "label": labels, "number": numbers})
        self._arguments = (on_device, jax.random.key(0), None if secret is None else jax.device_put(secret))
        start = time.perf_counter()
        compiled = self._step.lower(self.state, *self._arguments).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        self.program_bytes = (
            memory.temp_size_in_bytes
            + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        )

    def run(self, count: int) -> None:
        """Takes `count` steps, and waits for the last."""
        for _ in range(count):
            self.state = self._step(self.state, *self._arguments)
        jax.block_until_ready(self.state)


def matrix_product(size: int, dtype: str) -> Work:
    """Returns work that multiplies two square matrices of this size, and accumulates in float32."""
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
    product = jax.jit(fix_precision(functools.partial(jnp.matmul, preferred_element_type=jnp.float32), dtype))
    return jax_work(lambda: product(left, right))
