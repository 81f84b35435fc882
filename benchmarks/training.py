"""The section `steps`: a training step of each model, compared with PyTorch's on the same machine."""

import gc
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import jax_step, one_step
from benchmarks.report import Table
from benchmarks.settings import Settings
from benchmarks.timing import summarize, take_turns
from ppvit_jax.config import default_config
from ppvit_jax.data.progress import Progress
from ppvit_jax.training.scaling import forward_flops

_MODELS = ("ViT-Ti/16", "ViT-S/16", "ViT-B/16")
_DTYPES = ("float32", "bfloat16")
_NAMES = {"jax": "JAX", "pytorch": "PyTorch", "pytorch-compiled": "PyTorch, compiled"}
_COLUMNS = {
    "model": "Model",
    "dtype": "Precision",
    "batch_size": "Batch",
    "framework": "Framework",
    "seconds": "Step, median",
    "quartiles": "quartiles",
    "range": "range",
    "images_per_second": "images/s",
    "ratio": "Time / JAX's",
    "ratio_quartiles": "quartiles",
    "utilisation": "Utilization (%)",
    "compile_seconds": "Compiling (s)",
    "peak_mebibytes": "Peak memory (MiB)",
    "program_mebibytes": "XLA's estimate (MiB)",
    "failed": "Failed",
}


def run(settings: Settings) -> Iterator[list[Table]]:
    """Yields the section's tables after each model, precision and batch size.

    Raises:
      UserError: the model is unknown, or a size does not fit it.
    """
    configs = [(name, settings.model_config(name)) for name in settings.models or _MODELS]
    rates = [_product_rate(settings, dtype) for dtype in settings.dtypes or _DTYPES]
    product_table = Table(
        "Matrix products",
        "Products of two square matrices of random numbers, in the best turn. The utilization of a training step is "
        "relative to the highest rate of its precision.",
        {"dtype": "Precision", "framework": "Framework", "size": "Size", "seconds": "Best", "rate": "TFLOP/s"},
        [row for rows in rates for row in rows],
    )
    yield [product_table]
    rows: list[dict[str, Any]] = []
    where = "the process" if settings.device == "cpu" else "the device"
    note = (
        f"SGD with momentum and weight decay, {settings.image_size}x{settings.image_size}, plain random images on "
        f"the device; {settings.repeats} turns. The frameworks take turns; the quartiles beside a ratio are "
        "those of the ratios within each turn. Utilization is the rate of the model's matrix products, those of "
        "three forward passes a step, relative to the matrix products above. Compiling consists of tracing, lowering "
        "and compiling, without a cache; for compiled PyTorch it is the first step. Peak memory is that of "
        f"{where}, in a process that takes two steps and does nothing else. XLA's estimate "
        "consists of arguments, results and temporary memory of the compiled step."
    )
    table = Table("Training step", note, _COLUMNS, rows)
    batch_sizes = settings.batch_sizes or ((8,) if settings.device == "cpu" else (32, 128, 256))
    progress, done = Progress("training steps", len(rates) * len(configs) * len(batch_sizes), "settings"), 0
    for dtype_rates in rates:
        dtype, peak = dtype_rates[0]["dtype"], max(row["rate"] for row in dtype_rates)
        for name, _ in configs:
            for batch_size in batch_sizes:
                rows += _compare(settings, name, dtype, batch_size, peak)
                done += 1
                progress.update(done)
                yield [product_table, table]
    progress.close()


def _product_rate(settings: Settings, dtype: str) -> list[dict[str, Any]]:
    size = 2048 if settings.device == "cpu" else 8192
    works = {"JAX": jax_step.matrix_product(size, dtype)}
    if settings.compare:
        from benchmarks import pytorch

        works["PyTorch"] = pytorch.matrix_product(size, dtype, settings.device)
    seconds = take_turns(works, settings.repeats, f"matrix products in {dtype}")
    return [
        {
            "dtype": dtype,
            "framework": name,
            "size": size,
            "seconds": min(turns),
            "rate": 2 * size**3 / min(turns) / 1e12,
            "turns": turns,
        }
        for name, turns in seconds.items()
    ]


def _compare(settings: Settings, name: str, dtype: str, batch_size: int, peak_rate: float) -> list[dict[str, Any]]:
    config = settings.model_config(name, dtype)
    frameworks = ["jax"]
    if settings.compare:
        frameworks += ["pytorch"] if settings.device == "cpu" else ["pytorch", "pytorch-compiled"]
    setting = {"model": name, "dtype": dtype, "batch_size": batch_size}
    rows: dict[str, dict[str, Any]] = {
        framework: {**setting, "framework": _NAMES[framework]} for framework in frameworks
    }
    steps: dict[str, Any] = {}
    batch = jax_step.random_batch(batch_size, settings.image_size)
    training = default_config()
    training.dtype = dtype
    for framework, row in rows.items():
        # The step runs in a process of its own first, whose crash would not end this one.
        row |= one_step.measure(settings, framework, name, dtype, batch_size)
        if "failed" in row:
            continue
        row["peak_mebibytes"] = row["peak_bytes"] / 2**20
        try:
            if framework == "jax":
                # JAX could have compiled a step of the same shape before.
                jax.clear_caches()
                steps[framework] = jax_step.TrainingStep(config, training, batch)
                row["compile_seconds"] = steps[framework].compile_seconds
                row["program_mebibytes"] = steps[framework].program_bytes / 2**20
            else:
                from benchmarks import pytorch

                compiled = framework == "pytorch-compiled"
                steps[framework] = pytorch.TrainingStep(
                    config, training, batch, settings.device, compile_model=compiled
                )
                if compiled:
                    row["compile_seconds"] = steps[framework].first_seconds()
        # A compiler or a device may raise any exception, such as for too little memory; the others are still measured.
        except Exception as error:
            row["failed"] = " ".join(str(error).split())[:200] or type(error).__name__
            steps.pop(framework, None)
    if steps:
        works = {framework: step.run for framework, step in steps.items()}
        seconds = take_turns(works, settings.repeats, f"{name}, {dtype}, batch {batch_size}")
        flops = 3 * forward_flops(config) * batch_size
        for framework, summary in summarize(seconds, "jax" if "jax" in steps else next(iter(steps))).items():
            # Without JAX's step there is no reference for the ratios.
            left_out = () if "jax" in steps else ("ratio", "ratio_quartiles")
            rows[framework] |= {name: value for name, value in summary.items() if name not in left_out}
            rows[framework]["images_per_second"] = batch_size / summary["seconds"]
            rows[framework]["utilisation"] = 100 * flops / summary["seconds"] / peak_rate / 1e12
    steps.clear()
    gc.collect()
    return list(rows.values())
