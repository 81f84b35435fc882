"""The section `encrypted`: the cost of encryption inside a training step."""

from collections.abc import Iterator

import jax

from benchmarks.jax_step import TrainingStep, random_batch
from benchmarks.report import Table
from benchmarks.settings import Settings
from benchmarks.timing import summarize, take_turns
from ppvit_jax import keys
from ppvit_jax.config import default_config, make_encryption

_FEWEST_TURNS = 10
_COLUMNS = {
    "model": "Model",
    "dtype": "Precision",
    "batch_size": "Batch",
    "images": "Images",
    "seconds": "Step, median",
    "quartiles": "quartiles",
    "range": "range",
    "images_per_second": "images/s",
    "ratio": "Time / plain",
    "ratio_quartiles": "quartiles",
}


def run(settings: Settings) -> Iterator[list[Table]]:
    """Yields the section's table after each model, precision and batch size.

    Raises:
      UserError: the model is unknown, or a size does not fit it.
    """
    repeats = max(settings.repeats, _FEWEST_TURNS)
    size = settings.image_size
    note = (
        f"SGD with momentum and weight decay, {size}x{size}, random images on the device; {repeats} turns. "
        "The compiled step scrambles the blocks and shuffles the pixels of every image; the same step without "
        "encryption is the reference."
    )
    table = Table("Encrypted training step", note, _COLUMNS, [])
    training = default_config()
    for name in settings.models or ("ViT-Ti/16",):
        for training.dtype in settings.dtypes or ("float32",):
            config = settings.model_config(name, training.dtype)
            method = make_encryption(training, config)
            assert method is not None
            key, patch_size = keys.generate(), config.patch_size
            secret = method.derive_in_blocks(key, height=size, width=size, block_size=patch_size)
            for batch_size in settings.batch_sizes or (32,):
                batch = random_batch(batch_size, size)
                works = {
                    "plain": TrainingStep(config, training, batch).run,
                    f"encrypted ({method.spec})": TrainingStep(config, training, batch, secret).run,
                }
                seconds = take_turns(works, repeats, f"{name}, plain and encrypted, batch {batch_size}")
                for kind, summary in summarize(seconds, "plain").items():
                    setting = {"model": name, "dtype": training.dtype, "batch_size": batch_size, "images": kind}
                    table.rows.append({**setting, **summary, "images_per_second": batch_size / summary["seconds"]})
                del works
                jax.clear_caches()
                yield [table]
