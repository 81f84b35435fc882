"""A small data set prepared by tensorflow-datasets, without TensorFlow."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COUNTS = {"train": 300, "test": 5}  # more than the reader takes at once


def pixels(index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the values of example `index`, uint8 `shape`."""
    return np.random.default_rng(index).integers(0, 256, shape).astype(np.uint8)


def varying(index: int) -> tuple[int, int, int]:
    """Returns the shape of example `index` in a data set whose images have various sizes."""
    return (10 + index % 7, 12 + index % 5, 3)


def build(root: Path, *, fixed: bool, name: str = "toy", version: str = "1.0.0", gray: bool = False) -> Path:
    """Prepares a data set in which example i has pixels(i), label i % 3 and key i; returns its folder."""
    import tensorflow_datasets as tfds

    channels = 1 if gray else 3
    shape = (8, 9, channels) if fixed else (None, None, channels)

    def png(index: int) -> bytes:
        file = io.BytesIO()
        image = pixels(index, (8, 9, channels) if fixed else varying(index))
        Image.fromarray(image[..., 0] if gray else image).save(file, "PNG")
        return file.getvalue()

    def info(self: Any) -> Any:
        features = {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
            "number": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def examples(count: int) -> Any:
        for index in range(count):
            yield index, {"image": png(index), "label": index % 3, "number": index}

    namespace = {
        "name": name,
        "VERSION": tfds.core.Version(version),
        "_info": info,
        "_split_generators": lambda self, _: {split: examples(count) for split, count in COUNTS.items()},
        "_generate_examples": lambda self: iter(()),
        "__module__": __name__,
    }
    base: Any = tfds.core.GeneratorBasedBuilder
    builder = type(base)("Toy", (base,), namespace, skip_registration=True)(data_dir=root)
    builder.download_and_prepare(download_dir=root / "downloads", file_format="array_record")
    shutil.rmtree(root / "downloads")
    return Path(builder.data_path)
