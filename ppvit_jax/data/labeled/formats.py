"""Table of the formats of labeled images, and the opening of an input by its format."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ppvit_jax.data.labeled import csv_list, parquet, webdataset
from ppvit_jax.data.labeled.examples import Collection, Columns


class Open(Protocol):
    """Function that opens an input of one format."""

    def __call__(self, path: Path, columns: Columns, *, labeled: bool) -> Collection:
        """Opens the input; `labeled` is True if every image needs a label.

        Raises:
          UserError: it is missing, damaged or wrong.
        """
        ...


# A format is a module with such a function. Its name is that of the data source and of the commands' option.
FORMATS: dict[str, Open] = {
    "parquet": parquet.open_files,
    "webdataset": webdataset.open_shards,
    "csv": csv_list.open_list,
}
