"""Optimizer and learning-rate schedule of a run, as optax objects built from `config.optimizer`."""

import re
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.errors import UserError
from ppvit_jax.models.low_rank import FACTORS

# Kernels, and the factors of kernels.
_DECAYED = ("kernel", *FACTORS)


def make_schedule(optimizer: Config, total_steps: jax.typing.ArrayLike) -> optax.Schedule:
    """Returns the learning rate as a function of the step: linear warm-up from 0 over `warmup_steps`, then a schedule.

    `optimizer.schedule` is one of:
      "constant": stays at the rate.
      "cosine": decays to 0.
      "step": is multiplied by `decay` at each of `milestones`, which are fractions of the run.
      "triangular": rises from 0 to the rate at the first milestone, and falls to 0 at the end.

    Args:
      optimizer: `config.optimizer`.
      total_steps: number of steps in the run; inside a compiled program it may be an array.
    """
    rate, warmup = optimizer.learning_rate, optimizer.warmup_steps
    # With int32 everywhere, milestones are rounded alike in the compiled step and in the log.
    total_steps = jnp.asarray(total_steps, jnp.int32)
    rest = jnp.maximum(total_steps - warmup, 1)
    milestones = [jnp.round(fraction * total_steps) - warmup for fraction in optimizer.milestones]

    def after_warmup(step: jax.Array) -> jax.Array:
        if optimizer.schedule == "cosine":
            return rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step, rest) / rest))
        if optimizer.schedule == "step":
            return rate * optimizer.decay ** sum((step >= milestone).astype(jnp.float32) for milestone in milestones)
        if optimizer.schedule == "triangular":
            peak = jnp.clip(milestones[0], 1, rest)
            falling = (rest - step) / jnp.maximum(rest - peak, 1)
            return rate * jnp.clip(jnp.minimum(step / peak, falling), 0, 1)
        return jnp.full_like(step, rate, jnp.float32)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.int32)
        return jnp.where(step < warmup, rate * step / max(warmup, 1), after_warmup(step - warmup))

    return schedule


def make_optimizer(
    optimizer: Config, total_steps: jax.typing.ArrayLike, params: models.Params, freeze: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """Builds the optimizer of a run.

    Weight decay depends on `optimizer.name`:
      "sgd": adds weight_decay/2 * |w|^2 over all parameters to the loss, so that its gradient enters the momentum, as
        in PyTorch's SGD and in the paper.
      "adam": adds the same term, so that its gradient enters Adam's moments, as in PyTorch's Adam.
      "adamw": decouples weight decay from the gradient (arXiv 1711.05101) and applies it to kernels and
        their low-rank factors only, as in big_vision.
    All updates are elementwise, apart from the global norm used for clipping, so adaptation commutes with training.

    Args:
      optimizer: `config.optimizer`.
      total_steps: number of steps in the run; see `make_schedule`.
      params: the parameter tree; only its names are used.
      freeze: regular expressions. A parameter is frozen if one of them matches its whole name.

    Returns:
      A gradient transformation.

    Raises:
      UserError: an expression in `freeze` is invalid or matches nothing.
    """
    schedule = make_schedule(optimizer, total_steps)
    steps = []
    if optimizer.clip_norm:
        steps.append(optax.clip_by_global_norm(optimizer.clip_norm))
    if optimizer.name != "adamw" and optimizer.weight_decay:
        steps.append(optax.add_decayed_weights(optimizer.weight_decay))
    if optimizer.name == "sgd":
        steps.append(optax.sgd(schedule, momentum=optimizer.momentum or None, nesterov=optimizer.nesterov))
    elif optimizer.name == "adam":
        steps.append(optax.adam(schedule, b1=optimizer.b1, b2=optimizer.b2))
    else:
        # Select kernels by name: the biases of an attention layer have two axes as well, heads and values.
        kernels = unflatten_dict({name: name[-1] in _DECAYED for name in flatten_dict(params)})
        steps.append(
            optax.adamw(
                schedule,
                b1=optimizer.b1,
                b2=optimizer.b2,
                weight_decay=optimizer.weight_decay,
                mask=kernels,
            )
        )
    chain = optax.chain(*steps)
    frozen = find_frozen(flatten_dict(params, sep="/"), freeze)
    if not frozen:
        return chain
    labels = {name: "freeze" if name in frozen else "train" for name in flatten_dict(params, sep="/")}
    return optax.multi_transform({"train": chain, "freeze": optax.set_to_zero()}, unflatten_dict(labels, sep="/"))


def find_frozen(names: Iterable[str], freeze: Sequence[str]) -> set[str]:
    """Returns the names that a regular expression in `freeze` matches as a whole.

    Raises:
      UserError: an expression is invalid or matches nothing.
    """
    names, frozen = list(names), set()
    for pattern in freeze:
        try:
            matched = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise UserError(f"config.freeze has an invalid regular expression {pattern!r}: {error}") from None
        if not matched:
            raise UserError(f"config.freeze: {pattern!r} matches no parameter's name as a whole; correct or remove it")
        frozen |= set(matched)
    return frozen
