"""The compiled functions of a run: the initial state, one training step, one evaluation step."""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.data.preprocess import normalise, preprocess
from ppvit_jax.encryption import apply_index
from ppvit_jax.optimizer import make_optimizer

State = dict[str, Any]


class Steps(NamedTuple):
    """Pure functions; a batch is {"image": uint8 [batch, height, width, 3], "label": int [batch]}.

    init_state(params) -> state: a dict of params, opt_state, step and the sums of the epoch's metrics.
    train_step(state, batch, rng, index) -> state; the given state is donated.
    eval_step(params, batch, index) -> sums of loss, correct and count over the batch's float "mask" [batch].
    `index` is the gather that encrypts each image (`ppvit_jax.encryption.gather_index`), or None.
    """

    init_state: Callable[[Any], State]
    train_step: Callable[[State, Any, jax.Array, jax.Array | np.ndarray | None], State]
    eval_step: Callable[[Any, Any, jax.Array | np.ndarray | None], dict[str, jax.Array]]


def compile_steps(model_config: models.ViTConfig, config: Config, total_steps: int) -> Steps:
    """Builds the functions of a run; runs that differ in data, key and parameters alone share one compilation.

    Args:
      model_config: the model's shape.
      config: see `ppvit_jax.config.default_config`; of its fields those of the optimiser, `freeze`,
        `augmentation`, `mean`, `std`, `label_smoothing`, `accumulation` and `dtype` matter here.
      total_steps: steps of the run, the end of a cosine schedule.

    Raises:
      UserError: an expression of `config.freeze` that is invalid or matches nothing.
    """
    names = ("optimizer", "freeze", "augmentation", "mean", "std", "label_smoothing", "accumulation", "dtype")
    return _compiled(model_config, ConfigDict({name: config[name] for name in names}).to_json(), total_steps)


def zero_metrics() -> dict[str, np.ndarray]:
    """The sums of an epoch's metrics at its start."""
    return {name: np.zeros((), np.float32) for name in ("loss", "correct", "count")}


@functools.lru_cache(maxsize=8)
def _compiled(model_config: models.ViTConfig, settings: str, total_steps: int) -> Steps:
    config: Config = ConfigDict(json.loads(settings))
    model = models.build(model_config)
    optimizer = make_optimizer(
        config.optimizer,
        total_steps,
        jax.eval_shape(model.init, jax.random.key(0)),
        tuple(config.freeze),
    )
    dtype = jnp.dtype(config.dtype)

    def init_state(params: Any) -> State:
        return {
            "params": params,
            "opt_state": optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
            "metrics": zero_metrics(),
        }

    def prepare(images: jax.Array, rng: jax.Array | None, index: jax.Array | np.ndarray | None) -> jax.Array:
        augmentation = config.augmentation if rng is not None else "none"
        images = preprocess(images, model_config.image_size, augmentation, rng)
        # The index is an argument, not a constant: a compiled program or its cache never holds the key.
        return images if index is None else apply_index(images, index)

    def loss_and_correct(params: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model.apply(params, normalise(images, config.mean, config.std, dtype))
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), config.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets)
        return loss.mean(), (jnp.argmax(logits, -1) == labels).sum()

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: State, batch: Any, rng: jax.Array, index: jax.Array | np.ndarray | None) -> State:
        images = prepare(batch["image"], jax.random.fold_in(rng, state["step"]), index)
        gradient = jax.value_and_grad(loss_and_correct, has_aux=True)
        parts = config.accumulation
        if parts == 1:
            (loss, correct), grads = gradient(state["params"], images, batch["label"])
        else:

            def add(total: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, gradient(state["params"], *part)), None

            # Each part takes every parts-th example, so that every device keeps its own examples.
            pieces = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), (images, batch["label"]))
            first = jax.tree.map(lambda a: a[0], pieces)
            rest = jax.tree.map(lambda a: a[1:], pieces)
            total, _ = jax.lax.scan(add, gradient(state["params"], *first), rest)
            (loss, correct), grads = total
            loss, grads = jax.tree.map(lambda a: a / parts, (loss, grads))
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        count = len(batch["label"])
        metrics = state["metrics"]
        return {
            "params": optax.apply_updates(state["params"], updates),
            "opt_state": opt_state,
            "step": state["step"] + 1,
            "metrics": {
                "loss": metrics["loss"] + (loss * count).astype(jnp.float32),
                "correct": metrics["correct"] + correct,
                "count": metrics["count"] + count,
            },
        }

    @jax.jit
    def eval_step(params: Any, batch: Any, index: jax.Array | np.ndarray | None) -> dict[str, jax.Array]:
        logits = model.apply(params, normalise(prepare(batch["image"], None, index), config.mean, config.std, dtype))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, -1) == batch["label"]
        mask = batch["mask"]
        return {"loss": (loss * mask).sum(), "correct": (correct * mask).sum(), "count": mask.sum()}

    return Steps(init_state, train_step, eval_step)
