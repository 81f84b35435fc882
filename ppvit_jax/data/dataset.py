"""Table of data sources, and loading of the data set that a configuration names."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from ppvit_jax.data import embedded, image_folder, tfds_source
from ppvit_jax.data.labeled import loading
from ppvit_jax.data.settings import DataSettings, check_choice
from ppvit_jax.data.source import Dataset

# A source is a module with a function `load`, which opens the data set that the settings describe.
SOURCES: dict[str, Callable[[DataSettings], Dataset]] = {
    "tfds": tfds_source.load,
    "image_folder": image_folder.load,
    "embedded": embedded.load,
    "csv": loading.loader("csv"),
}


def load(data: ConfigDict, image_size: int, seed: int = 0) -> Dataset:
    """Opens the data set that a configuration names.

    Args:
      data: the fields of `DataSettings`, and `source`, one of SOURCES: "tfds" (a folder prepared by
        tensorflow-datasets), "image_folder" (class folders of image files), "embedded" (in the package), "parquet"
        (Hugging Face's layout), "webdataset" (tar files) or "csv" (a list of paths and labels).
      image_size, seed: see `DataSettings`.

    Returns:
      The data set; its images are uint8 [height, width, 3].

    Raises:
      UserError: a field is wrong, or the data is missing or damaged.
    """
    source = str(data.source)
    check_choice("source", source, tuple(SOURCES))
    return SOURCES[source](DataSettings.from_config(data, image_size, seed))
