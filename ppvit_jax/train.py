"""The training loop: batches of uint8 images in, a tuned checkpoint, metrics and a result out."""

import functools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

import ppvit_jax
from ppvit_jax import checkpoint, models
from ppvit_jax.data import Dataset, test_batches, train_batches
from ppvit_jax.data.loader import steps_per_epoch
from ppvit_jax.data.preprocess import normalise, preprocess
from ppvit_jax.encryption import apply_index
from ppvit_jax.errors import UserError
from ppvit_jax.optimizer import make_optimizer, make_schedule
from ppvit_jax.workdir import Workdir

State = dict[str, Any]


def train(
    config: ConfigDict,
    workdir: str | Path,
    dataset: Dataset,
    model_config: models.ViTConfig,
    params: Any,
    encryption_index: np.ndarray | None,
    metadata: checkpoint.Metadata,
    key_fingerprint: str | None,
) -> dict[str, Any]:
    """Trains, evaluates every epoch, and writes the workdir; continues what the workdir has begun.

    Args:
      config: see `ppvit_jax.config.default_config`.
      workdir: folder for `config.json`, `metrics.jsonl`, `result.json`, `checkpoint.npz`, `checkpoints/` and
        TensorBoard events.
      dataset: training and test images.
      model_config: the model's shape.
      params: the parameters to begin with, numpy arrays.
      encryption_index: the gather of `ppvit_jax.encryption.gather_index` that encrypts each image on the
        device, or None for plain images (or images that are encrypted already).
      metadata: what `checkpoint.npz` says of itself.
      key_fingerprint: of the key that encrypts the images, or None.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: sizes that do not fit, a workdir of another configuration, a loss that is not finite.
    """
    devices = jax.devices()
    for name in ("batch_size", "eval_batch_size"):
        if (config[name] // (config.accumulation if name == "batch_size" else 1)) % len(devices):
            raise UserError(
                f"config.{name} {config[name]} cannot be shared by {len(devices)} devices: use a multiple of "
                f"{len(devices)} times config.accumulation"
            )
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    replicated, by_example = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    per_epoch = steps_per_epoch(len(dataset.train), config.batch_size)
    total_steps = per_epoch * config.epochs

    files = Workdir(workdir, config, key_fingerprint)
    if result := files.result():
        print(f"{files.path} is complete already: nothing to do", file=sys.stderr)
        return result
    init_state, train_step, eval_step = _compiled(model_config, _step_settings(config), total_steps)
    state = jax.device_put(init_state(params), replicated)
    state = files.restore(state)
    step = int(state["step"])
    index = None if encryption_index is None else jax.device_put(encryption_index, replicated)
    schedule = make_schedule(config.optimizer, total_steps)
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}

    def place(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return {name: jax.make_array_from_process_local_data(by_example, a) for name, a in batch.items()}

    def evaluate(params: Any) -> tuple[float, float, int]:
        batches = test_batches(dataset.test, batch_size=config.eval_batch_size, **processes)
        sums = [eval_step(params, place(batch), index) for batch in batches]
        loss, correct, count = (math.fsum(float(s[name]) for s in sums) for name in ("loss", "correct", "count"))
        return loss / count, correct / count, round(count)

    rng = jax.device_put(jax.random.key(config.seed), replicated)
    batches = train_batches(
        dataset.train,
        seed=config.seed,
        batch_size=config.batch_size,
        start_step=step,
        stop_step=total_steps,
        **processes,
    )
    clock = _Clock(config.batch_size)
    while step < total_steps:
        state = train_step(state, place(next(batches)), rng, index)
        step += 1
        if clock.images == 0:
            jax.block_until_ready(state)
        clock.count()
        epoch, in_epoch = divmod(step - 1, per_epoch)
        if step % config.log_steps == 0 or in_epoch + 1 == per_epoch:
            sums = {name: float(value) for name, value in state["metrics"].items()}
            loss, accuracy = sums["loss"] / sums["count"], sums["correct"] / sums["count"]
            if not math.isfinite(loss):
                raise UserError(
                    f"the training loss is {loss} at step {step}: lower config.optimizer.learning_rate or clip "
                    "with config.optimizer.clip_norm"
                )
            files.log(
                "step",
                step,
                epoch=step / per_epoch,
                train_loss=loss,
                train_accuracy=accuracy,
                learning_rate=float(schedule(step - 1)),
                images_per_second=clock.rate,
            )
            clock.report(
                f"epoch {epoch + 1}/{config.epochs} step {step}/{total_steps} "
                f"loss {loss:.4f} accuracy {accuracy:.2%}",
                remaining_steps=total_steps - step,
            )
        if in_epoch + 1 == per_epoch:
            clock.pause()
            test_loss, test_accuracy, test_examples = evaluate(state["params"])
            files.log(
                "epoch",
                step,
                epoch=epoch + 1,
                train_loss=loss,
                train_accuracy=accuracy,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
                test_examples=test_examples,
                images_per_second=clock.rate,
            )
            clock.report(
                f"epoch {epoch + 1}/{config.epochs} test loss {test_loss:.4f} "
                f"test accuracy {test_accuracy:.2%} ({test_examples} images)",
                remaining_steps=total_steps - step,
                now=True,
            )
            state["metrics"] = jax.device_put(_zero_metrics(), replicated)
            clock.resume()
        every = config.checkpoint_steps or per_epoch
        if step % every == 0 or step == total_steps:
            clock.pause()
            files.save(step, state)
            clock.resume()

    last = files.history("epoch")[-1]
    result = {
        "dataset": dataset.name,
        "model": config.model,
        "checkpoint": config.checkpoint,
        "image_size": config.image_size,
        "encryption": config.encryption,
        "adapt": bool(config.adapt and config.encryption != "none"),
        "seed": config.seed,
        "steps": total_steps,
        "epochs": config.epochs,
        "train_examples": len(dataset.train),
        **{name: last[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        "test_examples": last["test_examples"],
        "images_per_second": last["images_per_second"],
        "key_fingerprint": key_fingerprint,
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "versions": {
            "ppvit_jax": ppvit_jax.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
            "numpy": np.__version__,
            "python": sys.version.split()[0],
        },
    }
    files.finish(result, state["params"], metadata)
    return result


class _Clock:
    """Images a second of training alone: evaluation, saving and the first step's compilation are left out."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.images = 0
        self.seconds = 0.0
        self.started: float | None = None
        self.reported = 0.0

    @property
    def rate(self) -> float | None:
        seconds = self.seconds + (time.perf_counter() - self.started if self.started else 0.0)
        timed = self.images - self.batch_size
        return timed / seconds if timed > 0 and seconds > 0 else None

    def count(self) -> None:
        if self.images == 0:
            self.started = time.perf_counter()
        self.images += self.batch_size

    def pause(self) -> None:
        if self.started is not None:
            self.seconds += time.perf_counter() - self.started
        self.started = None

    def resume(self) -> None:
        self.started = time.perf_counter()

    def report(self, text: str, *, remaining_steps: int, now: bool = False) -> None:
        if jax.process_index() or not (now or time.perf_counter() - self.reported >= 2):
            return
        self.reported = time.perf_counter()
        rate = self.rate
        if rate and remaining_steps:
            minutes, seconds = divmod(round(remaining_steps * self.batch_size / rate), 60)
            text += f" | {rate:.1f} images/s, {minutes}:{seconds:02d} left"
        print(text, file=sys.stderr, flush=True)


def _step_settings(config: ConfigDict) -> str:
    names = ("optimizer", "freeze", "augmentation", "mean", "std", "label_smoothing", "accumulation", "dtype")
    return ConfigDict({name: config[name] for name in names}).to_json()


def _zero_metrics() -> dict[str, np.ndarray]:
    return {name: np.zeros((), np.float32) for name in ("loss", "correct", "count")}


@functools.lru_cache(maxsize=8)
def _compiled(model_config: models.ViTConfig, settings: str, total_steps: int) -> tuple[Any, Any, Any]:
    """The jitted functions of a run. Cached, so that runs of one shape in one process compile once."""
    config = ConfigDict(json.loads(settings))
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
            "metrics": _zero_metrics(),
        }

    def prepare(images: jax.Array, rng: jax.Array | None, index: jax.Array | None) -> jax.Array:
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
    def train_step(state: State, batch: Any, rng: jax.Array, index: jax.Array | None) -> State:
        images = prepare(batch["image"], jax.random.fold_in(rng, state["step"]), index)
        gradient = jax.value_and_grad(loss_and_correct, has_aux=True)
        parts = config.accumulation
        if parts == 1:
            (loss, correct), grads = gradient(state["params"], images, batch["label"])
        else:

            def add(total: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, gradient(state["params"], *part)), None

            # Each part takes every parts-th example, so that every device keeps its own examples.
            pieces = jax.tree.map(
                lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), (images, batch["label"])
            )
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
    def eval_step(params: Any, batch: Any, index: jax.Array | None) -> dict[str, jax.Array]:
        logits = model.apply(params, normalise(prepare(batch["image"], None, index), config.mean, config.std, dtype))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, -1) == batch["label"]
        mask = batch["mask"]
        return {"loss": (loss * mask).sum(), "correct": (correct * mask).sum(), "count": mask.sum()}

    return init_state, train_step, eval_step
