"""The training loop: batches of uint8 images in, a tuned checkpoint, metrics and a result out."""

import math
import sys
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax

import ppvit_jax
from ppvit_jax import checkpoint, models
from ppvit_jax.config import Config
from ppvit_jax.data import Dataset, test_batches, train_batches
from ppvit_jax.data.loader import steps_per_epoch
from ppvit_jax.data.manifest import Header
from ppvit_jax.encryption import Secret
from ppvit_jax.errors import UserError
from ppvit_jax.training.devices import feed, shardings, state_shardings, whole
from ppvit_jax.training.log import Report
from ppvit_jax.training.optimizer import make_schedule
from ppvit_jax.training.step import compile_steps, zero_metrics
from ppvit_jax.training.workdir import Workdir


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
    per_epoch = steps_per_epoch(len(dataset.train), config.batch_size)
    total_steps = per_epoch * config.epochs
    with Workdir(workdir, config, metadata, images) as files:
        if result := files.result():
            print(f"{files.path} is complete already: nothing to do", file=sys.stderr)
            return result
        state = _train(config, files, dataset, model_config, params, statistics, secret, total_steps)
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
        files.finish(result, checkpoint.join(*whole((state["params"], state["statistics"]))))
    return result


def _train(
    config: Config,
    files: Workdir,
    dataset: Dataset,
    model_config: models.ModelConfig,
    params: Any,
    statistics: Any,
    secret: Secret | None,
    total_steps: int,
) -> Any:
    """The state after the last step; for the arguments see `train`."""
    replicated, _ = shardings()
    init_state, train_step, eval_step = compile_steps(model_config, config, total_steps)
    state = init_state(params, statistics)
    state = files.restore(jax.device_put(state, state_shardings(state, config.sharding)))
    step = int(state["step"])
    secret = None if secret is None else jax.device_put(secret, replicated)
    per_epoch = total_steps // config.epochs
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    train_source, to_devices = feed(dataset.train, config.data.on_device)
    test_source, test_to_devices = feed(dataset.test, config.data.on_device)

    def evaluate(params: Any, statistics: Any) -> tuple[float, float, int]:
        batches = test_to_devices(test_batches(test_source, batch_size=config.eval_batch_size, **processes))
        sums = [eval_step(params, statistics, batch, secret) for batch in batches]
        loss, correct, count = (math.fsum(float(s[name]) for s in sums) for name in ("loss", "correct", "count"))
        return loss / count, correct / count, round(count)

    # Made on all devices at once: device_put does not send a random key to other processes.
    rng = jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated)(config.seed)
    batches = train_batches(
        train_source,
        seed=config.seed,
        batch_size=config.batch_size,
        start_step=step,
        stop_step=total_steps,
        **processes,
    )
    schedule = make_schedule(config.optimizer, total_steps)
    report = Report(files, schedule, batch_size=config.batch_size, epochs=config.epochs, total_steps=total_steps)
    # Nothing in this loop waits for the devices, but for the ends of epochs and what is saved.
    for batch in to_devices(batches):
        state = train_step(state, batch, rng, secret)
        step += 1
        report.begin(step, state)
        ends_epoch = step % per_epoch == 0
        if step % config.log_steps == 0 or ends_epoch:
            report.note(step, state["metrics"])
        if ends_epoch:
            report.pause(state)
            report.epoch(step, *evaluate(state["params"], state["statistics"]))
            state["metrics"] = jax.device_put(zero_metrics(), replicated)
            report.resume()
        if step % (config.checkpoint_steps or per_epoch) == 0 or step == total_steps:
            report.pause(state)
            files.save(step, state)
            report.resume()
    return state
