"""The training loop: trains on batches of uint8 images, and writes a tuned checkpoint, metrics and a result."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from ppvit_jax import checkpoint, models
from ppvit_jax.config import Config
from ppvit_jax.data import BatchOptions, Dataset, test_batches, train_batches
from ppvit_jax.data.balance import balanced_weights
from ppvit_jax.data.loader import steps_per_epoch
from ppvit_jax.data.manifest import Header
from ppvit_jax.encryption import Secret
from ppvit_jax.errors import COUNT, UserError, print_note, print_warning
from ppvit_jax.training import identity, report
from ppvit_jax.training.averaging import select_weights
from ppvit_jax.training.checks import check_state, find_doubts
from ppvit_jax.training.devices import gather_to_host, replicate_images, shard_batches, shardings, state_shardings
from ppvit_jax.training.evaluation.run_evaluation import RunEvaluation
from ppvit_jax.training.log import Evaluation, Log
from ppvit_jax.training.optimizer import make_schedule
from ppvit_jax.training.parts import count_parts
from ppvit_jax.training.results import MetricsLine, Result
from ppvit_jax.training.state import State, zero_metrics
from ppvit_jax.training.step import compile_steps
from ppvit_jax.training.tuning import frozen_part
from ppvit_jax.training.usage import Usage
from ppvit_jax.training.workdir import Workdir, agree
from ppvit_jax.training.writers import Writers, named


class Messages(NamedTuple):
    """Messages to the user about the start of a run, printed once nothing stands in its way.

    Attributes:
      warnings: contradictions that do not stop the run.
      notes: facts that were assumed.
    """

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_NO_MESSAGES = Messages()


# No generated repr: it would print the secret.
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """All inputs of a run; `ppvit_jax.training.experiment` builds them.

    Attributes:
      config: the configuration; see `ppvit_jax.config.default_config`.
      dataset: training and test images.
      model_config: the model's shape.
      params: initial parameters, numpy arrays.
      statistics: initial running statistics, numpy arrays.
      secret: arrays that `config.encryption` derives from the key, to encrypt each image on the device. None for plain
        images and for images that are already encrypted.
      metadata: metadata for `checkpoint.npz`.
      images: encryption and key fingerprint of the images that the model sees.
      messages: messages about the start of the run.
    """

    config: Config
    dataset: Dataset
    model_config: models.ModelConfig
    params: models.Params
    statistics: models.Statistics
    secret: Secret | None
    metadata: checkpoint.Metadata
    images: Header
    messages: Messages = _NO_MESSAGES

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches of training images."""
        return steps_per_epoch(len(self.dataset.train), self.config.batch_size)

    @property
    def total_steps(self) -> int:
        """Number of steps in all epochs."""
        return self.steps_per_epoch * self.config.epochs


def train(run: Run, workdir: str | Path) -> Result:
    """Trains a model, evaluates it after every epoch, and writes the workdir; resumes the run in an existing workdir.

    Args:
      run: the inputs of the run.
      workdir: folder for `config.json`, `metrics.jsonl`, `result.json`, `checkpoint.npz`, `checkpoints/`,
        `report.html` and the files of the writers.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: the sizes do not fit, the workdir holds a run with another configuration, or the loss is not finite.
    """
    _check_sizes(run)
    record = identity.describe_run(run.config, run.dataset, run.metadata, run.images)
    writers, usage = Writers(named(run.config)), Usage() if run.config.report else None
    with Workdir(workdir, record, run.metadata, writers=writers, usage=usage) as files:
        result = files.result
        if result:
            print(f"the run in {files.path} is already complete: nothing to do", file=sys.stderr)
        else:
            evaluation = RunEvaluation(run.model_config, run.config, run.dataset, run.secret)
            state = _train_all_steps(run, files, evaluation)
            # Process 0 has written its lines before the others read them.
            if not agree(bool(files.history("epoch"))):
                raise UserError(f"{files.path} has lost its metrics.jsonl: put it back, or use another workdir")
            weights, epochs, measures = evaluation.finish(files, state, files.history("epoch"), run.images)
            result = cast(Result, {**_summarize(run, epochs), **measures})
            if usage is not None:
                usage.add_to(result, files.history())
            weights = gather_to_host(weights)
            files.finish(result, checkpoint.join(weights["params"], weights["statistics"]))
            evaluation.clean_up(files)
        if files.writes and run.config.report:
            report.write_once(files.path)
        files.finish_writers(result)
    if files.writes:
        for warning in result.get("warnings", ()):
            print_warning(warning)
    return result


def _check_sizes(run: Run) -> None:
    """Raises UserError unless the images fill a batch and the devices can share it equally."""
    steps_per_epoch(len(run.dataset.train), run.config.batch_size)
    count = len(jax.devices())
    for name, parts in (("batch_size", run.config.accumulation or 1), ("eval_batch_size", 1)):
        if (run.config[name] // parts) % count:
            raise UserError(
                f"config.{name} {run.config[name]} cannot be shared by {count} devices: use a multiple of "
                f"{count} times config.accumulation"
            )
    COUNT.check("the number of training steps", run.total_steps)


def _print_messages(run: Run) -> None:
    for warning in run.messages.warnings:
        print_warning(warning)
    for note in run.messages.notes:
        print_note(note)
    config, device = run.config, jax.default_backend()
    parts = count_parts(config.accumulation, run.model_config, device, config.batch_size // jax.device_count())
    if parts > 1 and not config.accumulation:
        print_note(f"each batch is computed in {parts} parts for speed on a {device.upper()} (config.accumulation)")
    warmup_steps = run.config.optimizer.warmup_steps
    if warmup_steps >= run.total_steps:
        print_warning(
            f"config.optimizer.warmup_steps is {warmup_steps}, but the run has {run.total_steps} steps: the learning "
            "rate does not reach config.optimizer.learning_rate"
        )
    initial = run.config.ema_decay**run.total_steps
    if run.config.ema_decay and initial > 0.1:
        print_warning(
            f"config.ema_decay is {run.config.ema_decay}, but the run has {run.total_steps} steps: the average, which "
            f"is evaluated, keeps {initial:.0%} of the weights before training; use a lower one, such as "
            f"{max(1 - 10 / run.total_steps, 0):.3g}"
        )


def _train_all_steps(run: Run, files: Workdir, evaluation: RunEvaluation) -> State:
    """Trains to the last step, from the latest state in the workdir if there is one; returns the final state."""
    config, dataset = run.config, run.dataset
    replicated, _ = shardings()
    init_state, train_step, eval_step = compile_steps(run.model_config, config, run.total_steps)
    state = init_state(run.params, run.statistics)
    state = files.restore(jax.device_put(state, state_shardings(state, config.sharding)))
    step = int(state["step"])
    if int(state["total_steps"]) != run.total_steps:
        raise UserError(
            f"the run in {files.path} was begun with {int(state['total_steps']):,} steps, and these images make "
            f"{run.total_steps:,}: use another workdir, or the images that it was begun with"
        )
    if files.writes:
        _print_messages(run)
    secret = None if run.secret is None else jax.device_put(run.secret, replicated)
    # Created on all devices at once, because device_put does not send a random key to other processes.
    rng = jax.jit(jax.random.key, static_argnums=0, out_shardings=replicated)(config.seed)

    processes: dict[str, Any] = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    train_images = replicate_images(dataset.train, config.data.on_device)
    test_images = None if evaluation.measures_epochs else replicate_images(dataset.test, config.data.on_device)
    train_options = BatchOptions(
        config.batch_size,
        **processes,
        index_only=train_images is not None,
        sampling=config.data.sampling,
        class_weights=balanced_weights(dataset.train.labels) if config.class_weights == "balanced" else (),
    )
    test_options = BatchOptions(config.eval_batch_size, **processes, index_only=test_images is not None)

    def evaluate(state: State) -> Evaluation:
        if evaluation.measures_epochs:
            return evaluation.evaluate(files, step, state)
        batches = shard_batches(test_batches(dataset.test, test_options), test_images)
        weights, frozen = select_weights(state), frozen_part(state)
        sums = [eval_step(weights["params"], weights["statistics"], batch, secret, *frozen) for batch in batches]
        loss, correct, count = (math.fsum(float(s[name]) for s in sums) for name in ("loss", "correct", "count"))
        predicted_classes = np.count_nonzero(np.sum([np.asarray(s["predicted"]) for s in sums], axis=0))
        return Evaluation(loss / count, correct / count, round(count), int(predicted_classes))

    batches = train_batches(dataset.train, train_options, seed=config.seed, start_step=step, stop_step=run.total_steps)
    log = Log(
        files,
        make_schedule(config.optimizer, run.total_steps),
        batch_size=config.batch_size,
        epochs=config.epochs,
        total_steps=run.total_steps,
    )

    def end_epoch(state: State, *, is_saved: bool) -> None:
        try:
            evaluated = evaluate(state)
        except Exception:
            # Processes can only save together, and the others have not failed.
            if not is_saved and jax.process_count() == 1:
                files.save(step, state)
            raise
        log.epoch(step, evaluated)
        state["metrics"] = jax.device_put(zero_metrics(), replicated)

    if step and step % run.steps_per_epoch == 0 and float(state["metrics"]["count"]):
        # The state was saved before the evaluation.
        log.recall(state["metrics"])
        if files.is_evaluated(step):
            state["metrics"] = jax.device_put(zero_metrics(), replicated)
        else:
            end_epoch(state, is_saved=True)
    if evaluation.is_over(files):
        return state
    # This loop waits for the devices only at the end of an epoch and before saving.
    for batch in shard_batches(batches, train_images):
        state = train_step(state, batch, rng, secret)
        step += 1
        log.start(step, state)
        ends_epoch = step % run.steps_per_epoch == 0
        saves = step % (config.checkpoint_steps or run.steps_per_epoch) == 0 or step == run.total_steps
        if step % config.log_steps == 0 or ends_epoch:
            log.step(step, state["metrics"])
        if not (ends_epoch or saves):
            continue
        log.pause(state)
        check_state(state, step)
        if saves:
            # Before the evaluation, so that a test image that cannot be read does not cost an epoch.
            files.save(step, state)
        if ends_epoch:
            end_epoch(state, is_saved=saves)
            if evaluation.is_over(files):
                break
        log.resume()
    return state


def _summarize(run: Run, epochs: list[MetricsLine]) -> Result:
    """Returns the content of result.json, from the epoch lines of metrics.jsonl."""
    config, last, devices = run.config, epochs[-1], jax.devices()
    return {
        "dataset": run.dataset.name,
        "model": config.model,
        "checkpoint": config.checkpoint,
        "image_size": config.image_size,
        "encryption": run.images.encryption,
        "adapt": run.metadata.encryption != "none",
        "seed": config.seed,
        "steps": last["step"],
        "epochs": last["step"] // run.steps_per_epoch,
        "train_examples": len(run.dataset.train),
        "train_loss": last["train_loss"],
        "train_accuracy": last["train_accuracy"],
        "test_loss": last["test_loss"],
        "test_accuracy": last["test_accuracy"],
        "test_examples": last["test_examples"],
        "best_test_accuracy": max(epoch.get("test_accuracy", 0.0) for epoch in epochs),
        "images_per_second": last["images_per_second"],
        "key_fingerprint": run.images.key_fingerprint,
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "versions": identity.versions(),
        "warnings": find_doubts(config, run.dataset, run.model_config, epochs),
    }
