"""Compiled functions of a run: initial state, training step and evaluation step."""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ppvit_jax import cloud_augmentation, models
from ppvit_jax.config import Config, make_encryption
from ppvit_jax.data.preprocess import normalize_images, preprocess
from ppvit_jax.encryption import Encryption, Secret
from ppvit_jax.training.averaging import start_average, update_average
from ppvit_jax.training.compiler import compiler_options, fix_precision
from ppvit_jax.training.devices import Tree, make_mesh, shardings, state_shardings
from ppvit_jax.training.examples import Examples
from ppvit_jax.training.layer_decay import scale_by_layer
from ppvit_jax.training.optimizer import make_optimizer
from ppvit_jax.training.parts import count_parts
from ppvit_jax.training.state import Batch, Metrics, State, zero_metrics
from ppvit_jax.training.task import count_correct
from ppvit_jax.training.tuning import FROZEN, Tuning


class Steps(NamedTuple):
    """Pure functions of a run.

    `secret` holds arrays that the configured encryption derives from a key, sorted or not; None leaves images as they
    are.

    Attributes:
      init_state: (params, statistics) -> state.
      train_step: (state, batch, rng, secret) -> state; donates its input state.
      eval_step: (params, statistics, batch, secret, frozen) -> sums over the examples of the batch, and "predicted":
        float [classes], the number of examples that are predicted as each class. `frozen` is the state's, if it has
        any.
    """

    init_state: Callable[[models.Params, models.Statistics], State]
    train_step: Callable[[State, Batch, jax.Array, Secret | None], State]
    eval_step: Callable[..., Metrics]


def compile_steps(
    model_config: models.ModelConfig, config: Config, total_steps: int, mesh: Mesh | None = None
) -> Steps:
    """Builds the compiled functions of a run.

    Runs that differ only in data, key, parameters and length share one compilation, and so do all block-wise
    encryptions.

    Args:
      model_config: the model's shape.
      config: the configuration; see `ppvit_jax.config.default_config`. Only `optimizer`, `freeze`, `tuning`, `seed`,
        `encryption`, `block_size`, `augmentation`, `cloud_augmentation`, `mean`, `std`, `label_smoothing`,
        `accumulation`, `sharding`, `reduce_dtype`, `dtype`, `matmul_precision`, `deterministic`, `ema_decay`,
        `drop_path`, `remat` and `task` are used.
      total_steps: number of steps in the run, where its schedule ends.
      mesh: the devices for which the functions will be compiled; they may be those of another machine. None for all
        devices of this run.

    Returns:
      The functions.

    Raises:
      UserError: the encryption is unknown, or an expression in `config.freeze` is invalid or matches nothing.
    """
    init_state, train_step, eval_step, _ = _compile(model_config, config, mesh)
    init_state = functools.partial(init_state, total_steps=total_steps, seed=config.seed)
    return Steps(init_state, train_step, eval_step)


def compile_logits(
    model_config: models.ModelConfig, config: Config, mesh: Mesh | None = None
) -> Callable[..., jax.Array]:
    """Builds the compiled function (params, statistics, batch, secret, frozen) -> logits [batch, classes] of a run.

    Every device and process gets the logits of the whole batch. For the arguments, see `compile_steps`.
    """
    return _compile(model_config, config, mesh)[3]


def _compile(model_config: models.ModelConfig, config: Config, mesh: Mesh | None) -> tuple[Callable[..., Any], ...]:
    names = (
        "task",
        "optimizer",
        "freeze",
        "tuning",
        "augmentation",
        "cloud_augmentation",
        "mean",
        "std",
        "label_smoothing",
        "accumulation",
        "dtype",
        "matmul_precision",
        "deterministic",
        "sharding",
        "reduce_dtype",
        "ema_decay",
        "drop_path",
        "remat",
    )
    settings = ConfigDict({name: config[name] for name in names}).to_json()
    method = make_encryption(config, model_config)
    mesh = mesh or make_mesh()
    program = method and method.program_in_blocks(model_config.patch_size, mesh.devices.flat[0].platform)
    return _compiled(model_config, program, settings, mesh)


@functools.lru_cache(maxsize=32)
def _compiled(
    model_config: models.ModelConfig, method: Encryption | None, settings: str, mesh: Mesh
) -> tuple[Callable[..., State], Callable[..., State], Callable[..., Metrics], Callable[..., jax.Array]]:
    config: Any = ConfigDict(json.loads(settings))
    divided = mesh if config.sharding == "fully_sharded" and mesh.size > 1 else None
    target = models.Target(mesh.devices.flat[0].platform, mesh.size, divided, config.reduce_dtype)
    training_config = models.set_training_mode(model_config, drop_path=config.drop_path, remat=config.remat)
    model = models.build(models.retarget(training_config, target))
    tuning = Tuning(config, model_config)

    def optimizer(total_steps: jax.typing.ArrayLike) -> optax.GradientTransformation:
        chain = make_optimizer(config.optimizer, total_steps, tuning.names, tuning.freeze)
        decay = config.optimizer.layer_decay
        return chain if decay == 1 else optax.chain(chain, scale_by_layer(model_config, decay))

    augmentations = cloud_augmentation.parse(config.cloud_augmentation)
    dtype = jnp.dtype(config.dtype)
    precisely = functools.partial(fix_precision, dtype=config.dtype, precision=config.matmul_precision)
    keeps_order = config.remat != "none" and mesh.size > 1
    options = compiler_options(
        mesh.devices.flat[0].platform, deterministic=config.deterministic, keeps_order=keeps_order
    )

    def constrain_sharding(tree: Tree) -> Tree:
        if config.sharding == "data_parallel":
            return tree
        # Without this constraint, XLA may choose a different sharding than the input state has.
        return jax.lax.with_sharding_constraint(tree, state_shardings(tree, config.sharding, mesh))

    def init_state(params: models.Params, statistics: models.Statistics, total_steps: int, seed: int) -> State:
        params, rest = tuning.init(params, seed)
        state: State = {
            "params": params,
            "statistics": statistics,
            "opt_state": optimizer(total_steps).init(params),
            "step": jnp.zeros((), jnp.int32),
            "total_steps": jnp.full((), total_steps, jnp.int32),
            "metrics": zero_metrics(),
        }
        if config.ema_decay:
            state["average"] = start_average(params, statistics)
        if rest:
            state[FROZEN] = rest
        return state

    def augment_and_encrypt(batch: dict[str, jax.Array], rng: jax.Array | None, secret: Secret | None) -> jax.Array:
        chex.assert_rank(batch["image"], 4)
        chex.assert_type(batch["image"], jnp.uint8)
        chex.assert_type(batch["label"], int)
        chex.assert_rank(batch["label"], 2 if config.task == "multi_label" else 1)
        chex.assert_equal_shape_prefix([batch["label"], batch["image"]], 1)
        augmentation = config.augmentation if rng is not None else "none"
        images = preprocess(batch["image"], model_config.image_size, augmentation, rng)
        if method is None or secret is None:
            return images
        # The secret is an argument, not a constant, so neither a compiled program nor its cache holds the key.
        return method.encrypt(images, secret, batch.get("number"))

    def to_model_input(images: jax.Array) -> jax.Array:
        if images.dtype != jnp.uint8:
            return images.astype(dtype)
        return normalize_images(images, config.mean, config.std, dtype)

    def augment_encrypted(examples: Examples, rng: jax.Array) -> Examples:
        augmented = augmentations.apply(examples.images, rng, model_config.patch_size, dtype)
        images, was_uint8 = augmented.images, examples.images.dtype == jnp.uint8
        if was_uint8 and images.dtype != jnp.uint8:
            images = normalize_images(images, config.mean, config.std, dtype)
        examples = examples._replace(images=images, kept=augmented.kept)
        return examples.mix_labels(augmented.shares, model_config.num_classes, config.label_smoothing)

    def loss_and_sums(
        params: models.Params, statistics: models.Statistics, examples: Examples, rng: jax.Array
    ) -> tuple[jax.Array, tuple[models.Statistics, jax.Array, jax.Array]]:
        images = to_model_input(examples.images)
        logits, statistics, penalty = model.train(params, statistics, images, rng, examples.kept)
        loss = examples.losses(logits, config.label_smoothing, config.task).mean()
        return loss + penalty, (statistics, loss, count_correct(logits, examples.labels, config.task))

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
    @precisely
    def train_step(state: State, batch: dict[str, jax.Array], rng: jax.Array, secret: Secret | None) -> State:
        rng = jax.random.fold_in(rng, state["step"])
        examples = Examples(augment_and_encrypt(batch, rng, secret), batch["label"], batch.get("weight"))
        # All draws are made before the batch is split, and none depends on the secret.
        if augmentations.methods:
            examples = augment_encrypted(examples, jax.random.fold_in(rng, 2))
        trained, constant = tuning.divide(state["params"])

        def loss_of_trained(trained: models.Params, *others: Any) -> tuple[jax.Array, tuple]:
            return loss_and_sums(tuning.complete(trained, constant, state.get(FROZEN, {})), *others)

        gradient = jax.grad(loss_of_trained, has_aux=True)
        parts = count_parts(config.accumulation, model_config, target.platform, len(batch["label"]) // mesh.size)
        model_rngs = jax.random.split(jax.random.fold_in(rng, 1), parts)
        if parts == 1:
            grads, (statistics, loss, correct) = gradient(trained, state["statistics"], examples, model_rngs[0])
        else:

            def add(carry: tuple, part: tuple) -> tuple[tuple, None]:
                total, statistics = carry
                grads, (statistics, *sums) = gradient(trained, statistics, *part)
                return (jax.tree.map(jnp.add, total, (grads, sums)), statistics), None

            # Each part takes every `parts`-th example, so that no example moves to another device.
            split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), examples)
            first, rest = (jax.tree.map(lambda a, c=cut: a[c], (split, model_rngs)) for cut in (0, slice(1, None)))
            grads, (statistics, *sums) = gradient(trained, state["statistics"], *first)
            ((grads, (loss, correct)), statistics), _ = jax.lax.scan(add, ((grads, sums), statistics), rest)
            loss, grads = jax.tree.map(lambda a: a / parts, (loss, grads))
        grads = constrain_sharding(tuning.fill(grads, state["params"]))
        updates, opt_state = optimizer(state["total_steps"]).update(grads, state["opt_state"], state["params"])
        params: Any = optax.apply_updates(state["params"], updates)
        count = len(batch["label"])
        metrics = state["metrics"]
        new: State = {
            "params": constrain_sharding(params),
            "statistics": statistics,
            "opt_state": constrain_sharding(opt_state),
            "step": state["step"] + 1,
            "total_steps": state["total_steps"],
            "metrics": {
                "loss": metrics["loss"] + (loss * count).astype(jnp.float32),
                "correct": metrics["correct"] + correct,
                "count": metrics["count"] + count,
            },
        }
        if "average" in state:
            new["average"] = constrain_sharding(update_average(state["average"], params, statistics, config.ema_decay))
        if FROZEN in state:
            new[FROZEN] = constrain_sharding(state[FROZEN])
        return new

    def logits_step(
        params: models.Params,
        statistics: models.Statistics,
        batch: dict[str, jax.Array],
        secret: Secret | None,
        frozen: models.Params | None = None,
    ) -> jax.Array:
        params = tuning.complete(params, frozen or {})
        return model.apply(params, to_model_input(augment_and_encrypt(batch, None, secret)), statistics)

    @functools.partial(jax.jit, compiler_options=options)
    @precisely
    def eval_step(
        params: models.Params,
        statistics: models.Statistics,
        batch: dict[str, jax.Array],
        secret: Secret | None,
        frozen: models.Params | None = None,
    ) -> Metrics:
        chex.assert_type(batch["mask"], float)
        chex.assert_equal_shape([batch["mask"], batch["label"]])
        logits = logits_step(params, statistics, batch, secret, frozen)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        predicted, mask = jnp.argmax(logits, -1), batch["mask"]
        return {
            "loss": (loss * mask).sum(),
            "correct": ((predicted == batch["label"]) * mask).sum(),
            "count": mask.sum(),
            "predicted": (jax.nn.one_hot(predicted, logits.shape[-1], dtype=mask.dtype) * mask[:, None]).sum(0),
        }

    compiled_logits = jax.jit(precisely(logits_step), compiler_options=options, out_shardings=shardings(mesh)[0])
    return init_state, train_step, eval_step, compiled_logits
