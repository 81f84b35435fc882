"""Speed, for `python -m benchmarks quick`: matrix products, encryption alone, training steps, and the training loop."""

import functools
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jax_step
from benchmarks.quick.rows import Limit, Part, compare, compare_steps, first_words, judge
from benchmarks.quick.session import Session
from benchmarks.timing import Work, jax_work, summarize, take_turns
from ppvit_jax.config import Config, default_config
from ppvit_jax.data import Dataset
from ppvit_jax.data.source import ArraySource
from ppvit_jax.encryption import Secret
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import print_note, print_warning
from ppvit_jax.training import experiment
from ppvit_jax.training.results import Result
from ppvit_jax.training.scaling import forward_flops

_CLASSES = 10
_IMAGE_SIDE = 32  # side of the loop's images in memory
# Largest time of the plain step in milliseconds on an H100 or H200, by batch size.
_STEP_TARGETS = {256: 62.0, 32: 11.0}
_FASTER = Limit("ratio", 1.0, "ratio at most 1")
_FREE = Limit("ratio", 1.005, "ratio at most 1.005")
_EPOCHS = 2
# Time of two short runs apart from their steps.
_START_AND_SAVE_SECONDS = 15


def products(session: Session) -> Part:
    """Returns the part that multiplies two large matrices."""
    size, dtype = session.workload.product_size, session.workload.dtype
    measure = f"matrix product, {size}, {dtype}"

    def run() -> Iterator[dict[str, Any]]:
        works = {"JAX": jax_step.matrix_product(size, dtype)}
        if session.settings.compare:
            from benchmarks import pytorch

            works["PyTorch"] = pytorch.matrix_product(size, dtype, session.settings.device)
        seconds = _take_turns(session, works, measure)
        rates = {name: 2 * size**3 / min(turns) / 1e12 for name, turns in seconds.items()}
        session.product_rate = max(rates.values())
        compared = compare("PyTorch", rates["JAX"], rates["PyTorch"], "TFLOP/s") if "PyTorch" in rates else {}
        yield {"measure": measure, "value": rates["JAX"], "unit": "TFLOP/s", **compared, "turns": seconds}

    return Part("matrix products", (measure,), run, lambda: session.estimate(session.workload.turn_seconds))


def encryption(session: Session) -> Part:
    """Returns the part that encrypts images on the device, next to a copy of the same bytes.

    Images stay whole, or are cut into patches, as they are in a compiled step.
    """
    counts = session.workload.image_counts
    kinds = ("encryption alone", "encryption alone, cut into patches")
    measures = tuple(f"{kind}, {count} images" for count in counts for kind in kinds)
    patch_size = session.model_config.patch_size

    def cut(images: jax.Array, secret: Secret) -> jax.Array:
        return split_blocks(session.program.encrypt(images, secret), patch_size)

    def run() -> Iterator[dict[str, Any]]:
        copy, encrypt, encrypt_and_cut = jax.jit(jnp.copy), jax.jit(session.method.encrypt), jax.jit(cut)
        for count in counts:
            images, secret, program_secret = jax.device_put(
                (session.images(count), session.secret, session.program_secret)
            )
            works = {
                "copy": jax_work(functools.partial(copy, images)),
                kinds[0]: jax_work(functools.partial(encrypt, images, secret)),
                kinds[1]: jax_work(functools.partial(encrypt_and_cut, images, program_secret)),
            }
            seconds = _take_turns(session, works, f"encryption of {count} images")
            for kind in kinds:
                summaries = summarize(seconds, kind)
                copied, ours = (images.nbytes / summaries[name]["seconds"] / 1e9 for name in ("copy", kind))
                yield {
                    "measure": f"{kind}, {count} images",
                    "value": ours,
                    "unit": "GB/s",
                    **compare("a copy", ours, copied, "GB/s"),
                    "ratio_quartiles": summaries["copy"]["ratio_quartiles"],
                    "turns": {name: seconds[name] for name in ("copy", kind)},
                }

    seconds = len(counts) * session.workload.turn_seconds
    return Part("encryption alone", measures, run, lambda: session.estimate(seconds))


def steps(session: Session, batch_size: int, *, encrypted: bool = True) -> Part:
    """Returns the part that takes training steps on plain and encrypted images, and PyTorch's, in turns.

    Args:
      session: the state of the benchmark.
      batch_size: images in a step.
      encrypted: False to leave the encrypted step out.
    """
    setting = f"{session.workload.model}, {session.workload.dtype}, batch {batch_size}"
    measures = [f"training step, {setting}", f"share of the product rate, {setting}"]
    measures += [f"encrypted step, {setting}"] if encrypted else []
    on_gpu, compares = session.settings.device == "gpu", session.settings.compare
    other = "compiled PyTorch" if on_gpu else "PyTorch"

    def run() -> Iterator[dict[str, Any]]:
        works: dict[str, Work] = {"plain": session.step(batch_size, encrypted=False).run}
        if encrypted:
            works["encrypted"] = session.step(batch_size, encrypted=True).run
        failure = {}
        if compares:
            # PyTorch's compiler needs more than the device, such as a C compiler; our step is measured without it.
            try:
                works[other] = session.pytorch_step(batch_size).run
            except Exception as error:
                failure = {"reference": f"{other} failed: {first_words(error)}"}
                print_warning(f"the step of {failure['reference']}")
        seconds = _take_turns(session, works, setting)
        works.clear()
        _free_memory(session)
        target = _STEP_TARGETS.get(batch_size) if session.is_hopper else None
        limits = [Limit("value", target, f"at most {target:g} ms")] if target else []
        limits += [_FASTER] if on_gpu else []
        row = {"measure": measures[0], **compare_steps(seconds, "plain", other), **failure, "turns": seconds}
        yield judge(row, *limits)
        yield {"measure": measures[1], **_compare_shares(session, batch_size, seconds, other)}
        if encrypted:
            session.encrypted_rates[batch_size] = batch_size / statistics.median(seconds["encrypted"])
            row = {"measure": measures[2], **compare_steps(seconds, "encrypted", "plain")}
            yield judge(row, *([_FREE] if session.settings.device != "cpu" else []))

    def estimate() -> float:
        kinds = {False, encrypted}
        programs = sum(not session.is_compiled(batch_size, encrypted=kind) for kind in kinds)
        return session.estimate(session.workload.turn_seconds, programs, int(compares))

    return Part(f"training steps, {setting}", tuple(measures), run, estimate)


def precision(session: Session) -> Part:
    """Returns the part that takes steps in float32 with each precision of the products, in turns."""
    batch_size = min(session.workload.batch_sizes)
    measure = f"training step, {session.workload.model}, float32, batch {batch_size}"

    def run() -> Iterator[dict[str, Any]]:
        other = "config.matmul_precision=default"
        works = {
            "ours": session.step(batch_size, encrypted=False, dtype="float32").run,
            other: session.step(batch_size, encrypted=False, dtype="float32", matmul_precision="default").run,
        }
        seconds = _take_turns(session, works, measure)
        yield {"measure": measure, **compare_steps(seconds, "ours", other), "turns": seconds}

    return Part(measure, (measure,), run, lambda: session.estimate(session.workload.turn_seconds, programs=2))


def loop(session: Session) -> Part:
    """Returns the part that runs a whole training with evaluation on random images in memory."""
    workload = session.workload
    batch_size = workload.batch_sizes[0]
    train_count = workload.loop_steps * batch_size
    test_count = max(train_count // 5, 1)
    setting = f"{workload.model}, {workload.dtype}, batch {batch_size}, encrypted"
    measures = (f"training loop, {setting}", f"whole run, {_EPOCHS} epochs of {train_count:,} images")

    def run() -> Iterator[dict[str, Any]]:
        config = _run_config(session, batch_size)
        print_note("random images teach nothing, so that a warning about the loss or the classes is to be expected")
        # Compiles the programs of the loop.
        _run(config, _random_dataset(session, batch_size, batch_size))
        config.epochs = _EPOCHS
        result, seconds = _run(config, _random_dataset(session, train_count, test_count))
        rate, reference = result["images_per_second"], session.encrypted_rates.get(batch_size)
        compared = compare("the step alone", rate, reference, "images/s") if rate and reference else {}
        yield {"measure": measures[0], "value": rate, "unit": "images/s", **compared}
        yield {
            "measure": measures[1],
            "value": seconds,
            "unit": "s",
            "reference": "with start, evaluation and saving, without compilation",
            "images_per_second": _EPOCHS * train_count / seconds,
            "test_images": test_count,
        }

    def estimate() -> float:
        seconds = session.training_seconds(_EPOCHS * workload.loop_steps, batch_size)
        return session.estimate(_START_AND_SAVE_SECONDS + seconds, programs=2)

    return Part("training loop", measures, run, estimate)


def cifar10(session: Session, dataset: Dataset | None, epochs: int, batch_size: int) -> Part:
    """Returns the part that trains on CIFAR-10 from random weights, with evaluation after every epoch.

    Args:
      session: the state of the benchmark.
      dataset: CIFAR-10, or None for random images of the same number and size.
      epochs: number of epochs.
      batch_size: images in a training step.
    """
    name = "CIFAR-10" if dataset else "random images like CIFAR-10"
    measure = f"{epochs} {'epochs' if epochs > 1 else 'epoch'} of {name}, {session.workload.model}, batch {batch_size}"

    def run() -> Iterator[dict[str, Any]]:
        config = _run_config(session, batch_size)
        config.epochs, config.eval_batch_size = epochs, 256
        result, seconds = _run(config, dataset or _random_dataset(session, 50_000, 10_000))
        rate = result["images_per_second"]
        yield {
            "measure": measure,
            "value": seconds / 60,
            "unit": "minutes",
            "reference": f"with compilation, evaluation and saving; {rate:,.0f} images/s while training; test accuracy "
            f"{result['test_accuracy']:.2%}",
            "result": result,
        }

    return Part(measure, (measure,), run, lambda: 0)


def _take_turns(session: Session, works: dict[str, Work], title: str) -> dict[str, list[float]]:
    return take_turns(works, session.settings.repeats, title, session.workload.turn_seconds)


def _compare_shares(session: Session, batch_size: int, seconds: dict[str, list[float]], other: str) -> dict[str, Any]:
    """Returns the fields of a step's share of the rate of matrix products."""
    if session.product_rate is None:
        return {"verdict": "not measured (no product rate)"}
    work = 100 * 3 * forward_flops(session.model_config) * batch_size / 1e12 / session.product_rate
    shares = {name: work / statistics.median(turns) for name, turns in seconds.items()}
    compared = compare(other, shares["plain"], shares[other], "%") if other in shares else {}
    return {"value": shares["plain"], "unit": "%", **compared}


def _run_config(session: Session, batch_size: int) -> Config:
    config = default_config()
    config.checkpoint, config.tensorboard = "", False
    config.model, config.dtype, config.image_size = (
        session.workload.model,
        session.workload.dtype,
        session.settings.image_size,
    )
    config.epochs, config.batch_size, config.eval_batch_size = 1, batch_size, batch_size
    return config


def _run(config: Config, dataset: Dataset) -> tuple[Result, float]:
    """Trains in a temporary folder; returns the result of the run, and the seconds."""
    with tempfile.TemporaryDirectory(prefix="ppvit_quick_") as folder:
        start = time.perf_counter()
        result = experiment.run(config, folder, dataset)
        return result, time.perf_counter() - start


def _random_dataset(session: Session, train_count: int, test_count: int) -> Dataset:
    random = np.random.default_rng(0)

    def source(count: int) -> ArraySource:
        side = min(_IMAGE_SIDE, session.settings.image_size)
        images = random.integers(0, 256, (count, side, side, 3), np.uint8)
        return ArraySource(images, random.integers(0, _CLASSES, count, np.int32))

    return Dataset("random images", source(train_count), source(test_count), tuple(map(str, range(_CLASSES))))


def _free_memory(session: Session) -> None:
    gc.collect()
    if session.settings.compare:
        from benchmarks import pytorch

        pytorch.free_memory()
