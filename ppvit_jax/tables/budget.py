"""Scaled-down runs of a table: as many images as a budget of minutes allows, the same for every row."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from ppvit_jax import checkpoint, data, models
from ppvit_jax import config as configuration
from ppvit_jax.config import Config
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError
from ppvit_jax.step import compile_steps

_BATCH = 32
_EPOCHS = 2
_SMALLEST = 64
# A training step in forward passes, and its compilation in theirs: what we saw of these models on a CPU, rounded up.
_STEP, _COMPILATION = 5.0, 5.0
# What a run takes besides: its start, the key, evaluation's last batch, checkpoints.
_OVERHEAD_SECONDS = 8.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every row of a table is scaled down to.

    minutes: the budget for all rows together.
    train_examples, test_examples, epochs, batch_size: the same for every row.
    replaces_vit: fine-tune the package's ViT-Micro/8 at 64x64 where a row's pre-trained checkpoint is absent.
    """

    minutes: float
    train_examples: int
    test_examples: int
    epochs: int
    batch_size: int
    replaces_vit: bool

    def overrides(self, config: Config) -> list[str]:
        """The arguments that scale a row's configuration down."""
        rate = config.optimizer.learning_rate * self.batch_size / config.batch_size
        arguments = {
            "data.train_examples": self.train_examples,
            "data.test_examples": self.test_examples,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "eval_batch_size": self.batch_size,
            "optimizer.learning_rate": f"{rate:.6g}",
        }
        if self.replaces_vit and config.checkpoint:
            arguments |= {
                "checkpoint": "embedded",
                "model": "ViT-Micro/8",
                "image_size": 64,
                "optimizer.learning_rate": 0.01,
                "optimizer.schedule": "cosine",
            }
        return [f"--config.{name}={value}" for name, value in arguments.items()]

    def described(self) -> str:
        """One sentence for the table."""
        replaced = (
            ", and in place of ViT-B/16, whose pre-trained weights were not at hand, the package's ViT-Micro/8 at "
            "64x64 (learning rate 0.01, cosine)"
            if self.replaces_vit
            else ""
        )
        return (
            f"A scaled-down run within {self.minutes:g} minutes: {self.epochs} epochs of {self.train_examples:,} "
            f"training images in batches of {self.batch_size} and {self.test_examples:,} test images for every row, "
            f"learning rates in proportion to the batch{replaced}. It shows that every row trains, and not how "
            "accurate the methods are: networks trained from scratch need hundreds of epochs."
        )


def make_plan(files: list[str], overrides: list[str], minutes: float) -> Plan:
    """Times a forward pass of every row, and chooses how many images the minutes are enough for.

    Args:
      files: the rows' configuration files.
      overrides: "--config.name=value" that win over the plan's.
      minutes: for all rows together.

    Raises:
      UserError: too few minutes for the least that makes sense.
    """
    if minutes <= 0:
        raise UserError(f"--budget is {minutes:g} minutes: give a positive number")
    began = time.monotonic()
    configs = [configuration.load(file, overrides) for file in files]
    replaces_vit = any(c.checkpoint and not checkpoint.resolve(c.checkpoint).is_file() for c in configs)
    least = Plan(minutes, _SMALLEST, _SMALLEST // 2, _EPOCHS, _BATCH, replaces_vit)
    progress = Progress("timing the rows", len(files), "rows")
    per_image, fixed = 0.0, 0.0
    available, available_for_testing = None, None
    for number, (file, config) in enumerate(zip(files, configs, strict=True), start=1):
        compilation, forward = _time_forward(configuration.load(file, least.overrides(config) + overrides))
        fixed += _COMPILATION * compilation + _OVERHEAD_SECONDS
        # Half as many test images as training images, tested after every epoch.
        per_image += _EPOCHS * (_STEP + 0.5) * forward
        if available is None:
            dataset = data.load(config.data, config.image_size, config.seed)
            available, available_for_testing = len(dataset.train), len(dataset.test)
        progress.update(number)
    progress.close()
    assert available is not None and available_for_testing is not None
    seconds = 60 * minutes - (time.monotonic() - began) - fixed
    count = int(min(seconds / per_image, available)) // _BATCH * _BATCH
    if count < _SMALLEST:
        needed = (60 * minutes - seconds + _SMALLEST * per_image) / 60
        raise UserError(
            f"--budget={minutes:g} is not enough for {len(files)} rows of {_SMALLEST} images on this machine: give "
            f"at least {int(needed) + 1} minutes, or fewer rows by --rows"
        )
    return dataclasses.replace(least, train_examples=count, test_examples=min(count // 2, available_for_testing))


def _time_forward(config: Config) -> tuple[float, float]:
    """Seconds to compile an evaluation step, and seconds an image of it takes."""
    model_config = configuration.make_model(config, num_classes=10)
    model = models.build(model_config)
    rng = jax.random.key(0)
    params, statistics = jax.jit(model.init)(rng), jax.jit(model.init_statistics)(rng)
    size = config.image_size
    batch: Any = {
        "image": np.zeros((_BATCH, size, size, 3), np.uint8),
        "label": np.zeros(_BATCH, np.int32),
        "number": np.arange(_BATCH, dtype=np.uint32),
        "mask": np.ones(_BATCH, np.float32),
    }
    eval_step = compile_steps(model_config, config, total_steps=1).eval_step
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(eval_step(params, statistics, batch, None))
        times.append(time.perf_counter() - start)
    return times[0] - min(times), min(times) / _BATCH
