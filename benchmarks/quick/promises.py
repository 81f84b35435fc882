"""Promises of the documentation, for `python -m benchmarks quick`: equal bytes, equal logits, and equal runs."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import straightforward
from benchmarks.quick.rows import Limit, Part, compare, compare_steps, judge
from benchmarks.quick.session import Session
from benchmarks.timing import take_turns
from ppvit_jax import adaptation, models
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.encryption import Secret
from ppvit_jax.training.compiler import compiler_options, fix_precision

# The README states it for a CPU. The default precision of float32 products is there to keep it on every device.
_EXACT = Limit("value", 1e-5, "at most 1e-5", is_promise=True)
_EQUAL = Limit("different", 0, "equal bits", is_promise=True)


def encryption(session: Session) -> Part:
    """Returns the part that compares the encryption on the device with numpy and with a plain program, bit for bit."""
    count = session.workload.image_counts[0]
    measure = f"encryption on the device, {count} images"

    def run() -> Iterator[dict[str, Any]]:
        images = session.images(count)
        size, block_size = session.settings.image_size, session.method.block_size
        permutations = session.method.absorb(session.key, height=size, width=size)
        assert permutations.block is not None and permutations.pixel is not None
        expected = straightforward.encrypt(images, permutations.block, permutations.pixel, block_size)
        results = [np.asarray(session.method.encrypt(images, session.secret))]
        for method, secret in ((session.method, session.secret), (session.program, session.program_secret)):
            results.append(np.asarray(jax.jit(method.encrypt)(*jax.device_put((images, secret)))))
        different = sum(int(np.count_nonzero(array != expected)) for array in results)
        row = {"measure": measure, "value": "equal bits" if not different else f"{different:,} values differ"}
        yield judge({**row, "different": different, "reference": "numpy, and a straightforward program"}, _EQUAL)

    return Part("encryption", (measure,), run, lambda: 3)


def exactness(session: Session) -> Part:
    """Returns the part that compares an adapted model on encrypted images with the plain model on plain images."""
    dtypes = ("float32", "bfloat16")
    measures = tuple(f"adapted model on encrypted images, {dtype}: largest difference of logits" for dtype in dtypes)

    def run() -> Iterator[dict[str, Any]]:
        size = session.settings.image_size
        images = session.images(session.workload.checked_images)
        adapted = adaptation.adapt(session.params, session.method.absorb(session.key, height=size, width=size))
        for dtype, measure in zip(dtypes, measures, strict=True):
            compute_logits = _compile_logits(session, dtype)
            plain = np.asarray(compute_logits(session.params, images, None))
            difference = float(
                np.abs(np.asarray(compute_logits(adapted, images, session.program_secret)) - plain).max()
            )
            compared = compare("standard deviation of the logits", difference, float(plain.std()), "")
            row = {"measure": measure, "value": difference, **compared}
            yield judge(row, *([_EXACT] if dtype == "float32" else []))

    return Part("exactness", measures, run, lambda: session.estimate(5, programs=2))


def _compile_logits(session: Session, dtype: str) -> Callable[..., jax.Array]:
    """Compiles the function (params, uint8 images, secret or None) -> logits, which encrypts images with the secret."""
    config = session.settings.model_config(session.workload.model, dtype)
    model, training = models.build(config), session.training

    @functools.partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))
    @functools.partial(fix_precision, dtype=dtype, precision=training.matmul_precision)
    def compute_logits(params: models.Params, images: jax.Array, secret: Secret | None) -> jax.Array:
        if secret is not None:
            images = session.program.encrypt(images, secret)
        return model.apply(params, normalize_images(images, training.mean, training.std, dtype))

    return compute_logits


def determinism(session: Session, *, deterministic: bool) -> Part:
    """Returns the part that trains twice from one state, and compares the two results bit for bit.

    Args:
      session: the state of the benchmark.
      deterministic: True for `config.deterministic=True`, whose step is timed too.
    """
    workload = session.workload
    batch_size = min(workload.batch_sizes)
    fields = {"deterministic": True} if deterministic else {}
    kind = "config.deterministic=True" if deterministic else "by default"
    measures = [f"two runs of {workload.repeated_steps} steps, batch {batch_size}, {kind}"]
    measures += [f"encrypted step, batch {batch_size}, {kind}"] if deterministic else []

    def train() -> list[np.ndarray]:
        step = session.step(batch_size, encrypted=True, **fields)
        step.run(workload.repeated_steps)
        return jax.tree.leaves(jax.device_get(step.state["params"]))

    def run() -> Iterator[dict[str, Any]]:
        pairs = list(zip(train(), train(), strict=True))
        if not all(np.isfinite(array).all() for array, _ in pairs):
            raise FloatingPointError("the parameters are not finite after these steps")
        different = sum(int(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32))) for a, b in pairs)
        row: dict[str, Any] = {"measure": measures[0], "value": "equal bits", "different": different}
        if different:
            row["value"] = max(float(np.abs(a - b).max()) for a, b in pairs)
            total = sum(array.size for array, _ in pairs)
            row["reference"] = f"largest difference of a parameter; {different:,} of {total:,} values differ"
        yield judge(row, *([_EQUAL] if deterministic else []))
        if deterministic:
            works = {
                "ours": session.step(batch_size, encrypted=True, **fields).run,
                "by default": session.step(batch_size, encrypted=True).run,
            }
            seconds = take_turns(works, session.settings.repeats, measures[1], workload.turn_seconds)
            yield {"measure": measures[1], **compare_steps(seconds, "ours", "by default"), "turns": seconds}

    def estimate() -> float:
        programs = int(not session.is_compiled(batch_size, encrypted=True))
        programs += int(deterministic and not session.is_compiled(batch_size, encrypted=True, **fields))
        seconds = session.training_seconds(2 * workload.repeated_steps, batch_size)
        return session.estimate(seconds + deterministic * workload.turn_seconds, programs)

    return Part(f"determinism, {kind}", tuple(measures), run, estimate)
