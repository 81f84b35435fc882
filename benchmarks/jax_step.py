"""One step of training in JAX, as a run takes it, on a batch that stays on the device."""

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
from ppvit_jax.training.step import compile_steps


def random_batch(batch_size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 [batch, size, size, 3], and their labels, int32 [batch], of ten classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    return images, random.integers(0, 10, batch_size, np.int32)


def random_params(config: models.ModelConfig) -> models.Params:
    """Returns a model\x27s parameters, float32 numpy arrays: random kernels and embeddings, of deviation 0.02."""
    random = np.random.default_rng(0)
    params = {}
    for name, shape in models.parameter_shapes(config).items():
        params[name] = np.float32(0.02) * random.standard_normal(shape, np.float32)
        if name.endswith("scale"):
            params[name] += 1
    return unflatten_dict(params, sep="/")


class TrainingStep:
    """`ppvit_jax.training.step.compile_steps`' training step and its state.

    compile_seconds: of tracing, lowering and compiling it; near 0 for a step that this process has compiled before.
    program_bytes: the memory that the compiled program takes by XLA's own account: arguments, results and what it
      needs in between.
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
          secret: of the run's encryption, or None for plain images.
          params: the parameters to begin with; random ones if there are none.
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
        """Takes so many steps, and waits for the last."""
        for _ in range(count):
            self.state = self._step(self.state, *self._arguments)
        jax.block_until_ready(self.state)


def matrix_product(size: int, dtype: str) -> Work:
    """Returns work that multiplies two square matrices of this size, with sums in float32."""
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    return jax_work(lambda: product(left, right))
