"""Table of data sources, and loading of the data set that a configuration names."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from ppvit_jax.data import embedded, image_folder, tfds_source
from ppvit_jax.data.labeled import loading
from ppvit_jax.data.labeled.formats import FORMATS
from ppvit_jax.data.settings import DataSettings, check_choice
from ppvit_jax.data.source import Dataset
from ppvit_jax.data.validation import add_validation, check_split_names

# A source is a module with a function `load`, which opens the data set that the settings describe. It opens the
# validation images if `settings.validation_split` names a split, and gives `train_groups` if images have copies.
SOURCES: dict[str, Callable[[DataSettings], Dataset]] = {
    "tfds": tfds_source.load,
    "image_folder": image_folder.load,
    "embedded": embedded.load,
    **{name: loading.loader(name) for name in FORMATS},
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
    settings = DataSettings.from_config(data, image_size, seed)
    check_split_names(settings.validation_split, settings.train_split, settings.test_split)
    return add_validation(SOURCES[source](settings), settings.validation, seed)
