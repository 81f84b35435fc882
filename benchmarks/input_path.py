"""The section `input`: images a second that a data set delivers to the device, and that a training step takes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from benchmarks.jax_step import TrainingStep, random_batch
from benchmarks.report import Table
from benchmarks.settings import Settings
from benchmarks.timing import Work, host_work, summarize, take_turns
from ppvit_jax import data
from ppvit_jax.config import default_config
from ppvit_jax.data.progress import Progress
from ppvit_jax.data.source import ArraySource, Source

_IN_MEMORY = 10_000
_PHOTOGRAPHS = 256
_LARGEST_SIDE = 500
_QUALITY = 90  # quality of JPEG files
_COLUMNS = {
    "what": "Work",
    "images": "Images per turn",
    "seconds": "Median",
    "quartiles": "quartiles",
    "range": "range",
    "images_per_second": "images/s",
    "times_step": "Times the step's",
}


def run(settings: Settings) -> Iterator[list[Table]]:
    """Yields the section's table, once.

    Raises:
      UserError: the model is unknown, a size does not fit it, or a data set cannot be read.
    """
    name, size = (settings.models or ("ViT-Ti/16",))[0], settings.image_size
    batch_size = (settings.batch_sizes or (32,))[0]
    training = default_config()
    training.dtype = (settings.dtypes or ("float32",))[0]
    step_name = f"training step, {name}, {training.dtype}, batch {batch_size}"
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(settings, Path(folder))
        step = TrainingStep(settings.model_config(name, training.dtype), training, random_batch(batch_size, size))
        works: dict[str, Work] = {step_name: step.run}
        images = {step_name: batch_size}
        for kind, source in sources.items():
            batches = max(1, min(len(source), 8 * _PHOTOGRAPHS) // batch_size)
            works[kind], images[kind] = _draining(source, batch_size, batches), batches * batch_size
        seconds = take_turns(works, settings.repeats, "input path")
    rows = []
    for kind, summary in summarize(seconds, step_name).items():
        rate = images[kind] / summary["seconds"]
        rows.append({"what": kind, "images": images[kind], **summary, "images_per_second": rate})
        rows[-1]["times_step"] = rate / rows[0]["images_per_second"]
    note = (
        f"Batches of {batch_size} are read, decoded, resized to {size}x{size} if their sizes vary, and put on the "
        f"device; {settings.repeats} turns, each from the first image on. The files are in the page cache, and nothing "
        f"else runs meanwhile. Photographs have sides of {size} to {max(size, _LARGEST_SIDE)} pixels."
    )
    yield [Table("Input path", note, _COLUMNS, rows)]


def write_photographs(folder: Path, count: int, ending: str, smallest: int) -> None:
    """Writes crops of scikit-learn's two photographs, in two classes and various sizes.

    Args:
      folder: the folder to write train/CLASS/* and test/CLASS/* to, with a tenth of the images for testing.
      count: the number of images.
      ending: ".jpg" or ".png".
      smallest: the shortest side in pixels; the longest is 500, or this if it is larger.
    """
    random = np.random.default_rng(0)
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    progress = Progress(f"writing {ending} photographs", count)
    for number in range(count):
        width, height = (int(side) for side in random.integers(smallest, max(smallest, _LARGEST_SIDE) + 1, 2))
        left, top = (int(side) for side in random.integers(0, [200, 100]))
        box = (left, top, left + 427, top + 320)
        image = photographs[number % 2].resize((width, height), Image.Resampling.BICUBIC, box)
        split = "test" if number % 20 in (0, 1) else "train"
        path = folder / split / f"class_{number % 2}" / f"{number}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=_QUALITY)
        progress.update(number + 1)
    progress.close()


def _sources(settings: Settings, folder: Path) -> dict[str, Source]:
    fields = default_config().data
    sources: dict[str, Source] = {}
    if settings.data:
        fields.source, fields.name, fields.dir = "tfds", settings.data, settings.data_dir
        sources[settings.data] = data.load(fields, settings.image_size).train
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_IN_MEMORY, 32, 32, 3), np.uint8)
    sources["32x32 arrays in memory"] = ArraySource(images, random.integers(0, 10, _IN_MEMORY, np.int32))
    for ending in (".jpg", ".png"):
        write_photographs(folder / ending[1:], _PHOTOGRAPHS, ending, settings.image_size)
        fields.source, fields.dir = "image_folder", str(folder / ending[1:])
        sources[f"photographs, {ending}"] = data.load(fields, settings.image_size).train
    return sources


def _draining(source: Source, batch_size: int, batches: int) -> Work:
    def drain() -> None:
        placed = None
        options = data.BatchOptions(batch_size)
        for batch in data.train_batches(source, options, seed=0, start_step=0, stop_step=batches):
            placed = jax.device_put(batch)
        jax.block_until_ready(placed)

    return host_work(drain)
