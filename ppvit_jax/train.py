"""The training loop: batches of uint8 images in, a tuned checkpoint, metrics and a result out."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ppvit_jax
from ppvit_jax import checkpoint, models
from ppvit_jax.config import Config
from ppvit_jax.data import Dataset, test_batches, train_batches
from ppvit_jax.data.loader import steps_per_epoch
from ppvit_jax.data.manifest import Header
from ppvit_jax.encryption import Secret
from ppvit_jax.errors import UserError
from ppvit_jax.optimizer import make_schedule
from ppvit_jax.step import compile_steps, zero_metrics
from ppvit_jax.workdir import Workdir


def train(
    config: Config,
    workdir: str | Path,
    dataset: Dataset,
    model_config: models.ModelConfig,
    params: Any,
    statistics: Any,
    secret: Secret | None,
    metadata: checkpoint.Metadata,
    images: Header,
) -> dict[str, Any]:
    """Trains, evaluates every epoch, and writes the workdir; continues what the workdir has begun.

    Args:
      config: see `ppvit_jax.config.default_config`.
      workdir: folder for `config.json`, `metrics.jsonl`, `result.json`, `checkpoint.npz`, `checkpoints/` and
        TensorBoard events.
      dataset: training and test images.
      model_config: the model's shape.
      params, statistics: those to begin with, numpy arrays.
      secret: what `config.encryption` derived from the key, to encrypt each image on the device, or None for plain
        images (or images that are encrypted already).
      metadata: what `checkpoint.npz` says of itself.
      images: what the model is trained on: the encryption and the key's fingerprint, whoever encrypts.

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
    replicated, by_example = shardings()
    per_epoch = steps_per_epoch(len(dataset.train), config.batch_size)
    total_steps = per_epoch * config.epochs

    files = Workdir(workdir, config, metadata, images)
    if result := files.result():
        print(f"{files.path} is complete already: nothing to do", file=sys.stderr)
        return result
    init_state, train_step, eval_step = compile_steps(model_config, config, total_steps)
    state = jax.device_put(init_state(params, statistics), replicated)
    state = files.restore(state)
    step = int(state["step"])
    secret = None if secret is None else jax.device_put(secret, replicated)
    schedule = make_schedule(config.optimizer, total_steps)
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}

    def evaluate(params: Any, statistics: Any) -> tuple[float, float, int]:
        batches = test_batches(dataset.test, batch_size=config.eval_batch_size, **processes)
        sums = [eval_step(params, statistics, place(batch, by_example), secret) for batch in batches]
        loss, correct, count = (math.fsum(float(s[name]) for s in sums) for name in ("loss", "correct", "count"))
        return loss / count, correct / count, round(count)

    # Made on all devices at once: device_put does not send a random key to other processes.
    rng = jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated)(config.seed)
    batches = train_batches(
        dataset.train,
        seed=config.seed,
        batch_size=config.batch_size,
        start_step=step,
        stop_step=total_steps,
        **processes,
    )
    clock = _Clock(config.batch_size)
    loss = accuracy = math.nan
    while step < total_steps:
        state = train_step(state, place(next(batches), by_example), rng, secret)
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
                learning_rate=float(np.asarray(schedule(step - 1))),
                images_per_second=clock.rate,
            )
            clock.report(
                f"epoch {epoch + 1}/{config.epochs} step {step}/{total_steps} loss {loss:.4f} accuracy {accuracy:.2%}",
                remaining_steps=total_steps - step,
            )
        if in_epoch + 1 == per_epoch:
            clock.pause()
            test_loss, test_accuracy, test_examples = evaluate(state["params"], state["statistics"])
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
            state["metrics"] = jax.device_put(zero_metrics(), replicated)
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
        "encryption": images.encryption,
        "adapt": metadata.encryption != "none",
        "seed": config.seed,
        "steps": total_steps,
        "epochs": config.epochs,
        "train_examples": len(dataset.train),
        **{name: last[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        "test_examples": last["test_examples"],
        "best_test_accuracy": max(epoch["test_accuracy"] for epoch in files.history("epoch")),
        "images_per_second": last["images_per_second"],
        "key_fingerprint": images.key_fingerprint,
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
    files.finish(result, checkpoint.join(state["params"], state["statistics"]))
    return result


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """How a run's arrays lie on all devices: whole on each, and by example."""
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))
    whole, by_example = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    return whole, by_example


def place(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """A batch on the devices, from this process' part of it."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


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
