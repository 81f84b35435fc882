"""Scaled-down runs of a table: the largest number of images that fits a time budget, the same for every row."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from ppvit_jax import checkpoint, data, keys, models
from ppvit_jax import config as configuration
from ppvit_jax.config import Config
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError
from ppvit_jax.training.devices import shard_batch, shardings
from ppvit_jax.training.step import compile_steps
from ppvit_jax.training.tuning import frozen_part

_BATCH = 32
_EPOCHS = 2
_SMALLEST = 64
# Time of a run outside its steps: initial parameters, the key, checkpoints, pictures.
_OVERHEAD_SECONDS = 6.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """The scale of a scaled-down run, the same for every row.

    minutes: time budget for all rows together.
    train_examples, test_examples, epochs, batch_size: size of every row.
    replaces_vit: True to replace models that start from a checkpoint by the package's ViT-Micro/8 at 64x64.
    """

    minutes: float
    train_examples: int
    test_examples: int
    epochs: int
    batch_size: int
    replaces_vit: bool

    def overrides(self, config: Config) -> list[str]:
        """Returns the command-line arguments that scale down a row's configuration."""
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
        """Returns a description of the plan for the table."""
        replaced = (
            " The pre-trained weights of ViT-B/16 were not here, so the package's ViT-Micro/8 at 64x64 replaces it "
            "(learning rate 0.01, cosine schedule)."
            if self.replaces_vit
            else ""
        )
        return (
            f"A scaled-down run within {self.minutes:g} minutes: {self.epochs} epochs of {self.train_examples:,} "
            f"training images in batches of {self.batch_size} and {self.test_examples:,} test images for every row. "
            f"Learning rates are proportional to the batch size.{replaced} The run shows that every row trains, not "
            "how accurate the methods are: networks that are trained from scratch need hundreds of epochs."
        )


def make_plan(sources: list[str], overrides: list[str], minutes: float) -> Plan:
    """Times training and evaluation steps of every row, and chooses the number of images that fits the budget.

    The rows later reuse the programs that are compiled here.

    Args:
      sources: configurations of the rows, such as configs/table2.py:etc_vit.
      overrides: arguments such as "--config.name=value", which take precedence over the plan.
      minutes: time budget for all rows together.

    Returns:
      The plan for all rows.

    Raises:
      UserError: the budget is too small for the smallest plan.
    """
    if minutes <= 0:
        raise UserError(f"--budget is {minutes:g} minutes: give a positive number")
    began = time.monotonic()
    configs = [configuration.load(source, overrides) for source in sources]
    replaces_vit = any(c.checkpoint and _is_missing(c.checkpoint, overrides) for c in configs)
    least = Plan(minutes, _SMALLEST, _SMALLEST // 2, _EPOCHS, _BATCH, replaces_vit)
    dataset = data.load(configs[0].data, configs[0].image_size, configs[0].seed)
    progress = Progress("timing the rows", len(sources), "rows")
    per_image, fixed = 0.0, 0.0
    for number, (source, config) in enumerate(zip(sources, configs, strict=True), start=1):
        scaled = configuration.load(source, least.overrides(config) + overrides)
        training, evaluation = _time(scaled, dataset)
        # Every epoch ends with a test on half as many images.
        per_image += _EPOCHS * (training + 0.5 * evaluation) / _BATCH
        fixed += _OVERHEAD_SECONDS
        progress.update(number)
    progress.close()
    spent = time.monotonic() - began + fixed
    count = int(min((60 * minutes - spent) / per_image, len(dataset.train))) // _BATCH * _BATCH
    if count < _SMALLEST:
        needed = (spent + _SMALLEST * per_image) / 60
        raise UserError(
            f"--budget={minutes:g} is not enough for {len(sources)} rows of {_SMALLEST} images on this machine: give "
            f"at least {int(needed) + 1} minutes, or choose fewer rows with --rows"
        )
    return dataclasses.replace(least, train_examples=count, test_examples=min(count // 2, len(dataset.test)))


def _is_missing(name: str, overrides: list[str]) -> bool:
    """Returns True for a path without a file, and for a checkpoint to download that the user has not named."""
    if checkpoint.is_remote(name):
        return not any(override.startswith("--config.checkpoint=") for override in overrides)
    return not checkpoint.resolve(name).exists()


def _time(config: Config, dataset: data.Dataset) -> tuple[float, float]:
    """Returns the duration of a training step and of an evaluation step in seconds, without compilation."""
    model_config = configuration.make_model(config, len(dataset.class_names))
    model, method = models.build(model_config), configuration.make_encryption(config, model_config)
    replicated, batch_sharded = shardings()
    init_state, train_step, eval_step = compile_steps(model_config, config, total_steps=1)
    shapes = [jax.eval_shape(init, jax.random.key(0)) for init in (model.init, model.init_statistics)]
    # Like a run's state, these are placed NumPy arrays: then the run reuses the compiled program.
    params, statistics = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = jax.device_put(init_state(params, statistics), replicated)
    secret = None
    if method is not None:
        size = config.image_size
        derived = method.derive_in_blocks(keys.generate(), height=size, width=size, block_size=model_config.patch_size)
        secret = jax.device_put(derived, replicated)
    rng = jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated)(config.seed)
    batch: dict[str, Any] = {
        "image": np.zeros((config.batch_size, *dataset.train.image_shape), np.uint8),
        "label": np.zeros(config.batch_size, np.int32),
        "number": np.arange(config.batch_size, dtype=np.uint32),
    }
    mask = {"mask": np.ones(config.batch_size, np.float32)}
    training, evaluation = [], []
    # The first pass compiles.
    for _ in range(2):
        start = time.perf_counter()
        state = jax.block_until_ready(train_step(state, shard_batch(batch, batch_sharded), rng, secret))
        middle = time.perf_counter()
        examples = shard_batch(batch | mask, batch_sharded)
        sums = eval_step(state["params"], state["statistics"], examples, secret, *frozen_part(state))
        jax.block_until_ready(sums)
        training.append(middle - start)
        evaluation.append(time.perf_counter() - middle)
    return min(training), min(evaluation)
