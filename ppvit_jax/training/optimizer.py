"""The optimizer of a run, as an optax transformation built from `config.optimizer`."""

import re

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.errors import UserError


def make_schedule(optimizer: Config, total_steps: jax.typing.ArrayLike) -> optax.Schedule:
    """Returns the learning rate by step: linear warm-up from 0 over `warmup_steps`, then as `schedule` says.

    "constant"; "cosine" to 0; "step", multiplied by `decay` at each of `milestones`, parts of the run; "triangular",
    from 0 to the rate at the first milestone and back to 0 at the end. `total_steps`, the steps of the run, may be an
    array inside a compiled program.
    """
    rate, warmup = optimizer.learning_rate, optimizer.warmup_steps
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
        step = jnp.asarray(step)
        return jnp.where(step < warmup, rate * step / max(warmup, 1), after_warmup(step - warmup))

    return schedule


def make_optimizer(
    optimizer: Config, total_steps: jax.typing.ArrayLike, params: models.Params, freeze: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """Builds the optimizer.

    "sgd": the weight decay is a term of the loss, weight_decay/2 * |w|^2 over all parameters, so it is added to
    the gradient before the momentum (as in PyTorch's SGD, and as the paper means it). "adam": the same term, before
    Adam's moments (as in PyTorch's Adam). "adamw": decoupled weight decay (arXiv 1711.05101), on kernels only, as
    big_vision does it. Every step is elementwise, up to the norm used for clipping, so adaptation commutes with
    training.

    Args:
      optimizer: `config.optimizer`.
      total_steps: steps of the run, the end of its schedule; see `make_schedule`.
      params: the parameter tree, for the names.
      freeze: regular expressions; parameters whose whole name one matches stay as they are.

    Raises:
      UserError: an expression of `freeze` that is invalid or matches nothing.
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
        # By name: the biases of an attention layer have two axes as well, heads and values.
        kernels = unflatten_dict({name: name[-1] == "kernel" for name in flatten_dict(params)})
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
    if not freeze:
        return chain
    names = flatten_dict(params, sep="/")
    labels = dict.fromkeys(names, "train")
    for pattern in freeze:
        try:
            matched = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise UserError(f"config.freeze has an invalid regular expression {pattern!r}: {error}") from None
        if not matched:
            raise UserError(f"config.freeze: no parameter's name is matched by {pattern!r} as a whole")
        labels |= dict.fromkeys(matched, "freeze")
    return optax.multi_transform({"train": chain, "freeze": optax.set_to_zero()}, unflatten_dict(labels, sep="/"))
