"""Checks of single fields of a configuration: types, ranges of numbers, and paths."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ppvit_jax.data.images import MAX_PIXELS_LIMIT
from ppvit_jax.errors import COUNT, COUNT_OR_NONE, SEED, SIDE, Range, UserError
from ppvit_jax.files import refuse_scheme

_FRACTION = Range(0, below=1)
# Ranges of the numbers; other numbers need only be finite.
RANGES = {
    "model_options.patch_size": SIDE,
    "model_options.kernel_size": SIDE,
    "representation_size": Range(0, 2**16, whole=True),
    "image_size": SIDE,
    "block_size": dataclasses.replace(SIDE, least=0),
    "seed": SEED,
    "data.test_fraction": Range(0, 1),
    "data.max_pixels": Range(1, MAX_PIXELS_LIMIT, whole=True),
    "data.train_examples": COUNT_OR_NONE,
    "data.test_examples": COUNT_OR_NONE,
    "optimizer.learning_rate": Range(above=0),
    "optimizer.momentum": _FRACTION,
    "optimizer.weight_decay": Range(0),
    "optimizer.b1": _FRACTION,
    "optimizer.b2": _FRACTION,
    "optimizer.warmup_steps": COUNT_OR_NONE,
    "optimizer.decay": Range(0),
    "optimizer.clip_norm": Range(0),
    "optimizer.layer_decay": Range(most=1, above=0),
    "label_smoothing": _FRACTION,
    "patience": COUNT_OR_NONE,
    "ema_decay": _FRACTION,
    "drop_path": _FRACTION,
    "tuning.rank": Range(1, 2**16, whole=True),
    "tuning.alpha": Range(above=0, most=2**16),
    "epochs": COUNT,
    "batch_size": COUNT,
    "eval_batch_size": COUNT,
    "accumulation": COUNT_OR_NONE,
    "checkpoint_steps": COUNT_OR_NONE,
    "log_steps": COUNT,
}
# Fields whose value is a list of numbers, or of text.
_NUMBERS = ("mean", "std", "optimizer.milestones")
_TEXTS = ("freeze", "loggers", "tuning.layers")
# Fields that are "auto", True or False, as a bool or as text.
_CHOICES = ("data.in_memory", "data.on_device")


def check_fields(config: Any, defaults: Any) -> None:
    """Checks every field by itself.

    Args:
      config: the ConfigDict with the fields, where those of `data` and others are nested.
      defaults: the default configuration, which tells each field's type.

    Raises:
      UserError: a value has another type than its default or is outside its range, or a path is a URL.
    """
    values = dict(_flatten(config))
    for name, default in _flatten(defaults):
        if name in _CHOICES:
            continue
        title = f"config.{name}"
        if name not in values:
            raise UserError(f"{title} is missing: begin the configuration with default_config()")
        value = values[name]
        if isinstance(default, int | float) and not isinstance(default, bool):
            RANGES.get(name, Range()).check(title, value)
        elif name in _NUMBERS or name in _TEXTS:
            _check_items(title, value, numbers=name in _NUMBERS)
        elif not isinstance(value, type(default)):
            raise UserError(f"{title} is {value!r}: give {'True or False' if isinstance(default, bool) else 'text'}")
        elif isinstance(value, str):
            refuse_scheme(value)


def _check_items(title: str, value: object, *, numbers: bool) -> None:
    if not isinstance(value, list | tuple):
        raise UserError(f"{title} is {value!r}: give a list, such as {(0.5, 0.5) if numbers else ('head/.*',)}")
    for item in value:
        if numbers:
            Range().check(f"{title} has a value that", item)
        elif not isinstance(item, str):
            raise UserError(f"{title} has the value {item!r}: give text")


def _flatten(fields: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if hasattr(value, "items"):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
