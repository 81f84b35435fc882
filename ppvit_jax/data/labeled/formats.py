"""Table of the formats of labeled images."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of labeled images.

    Attributes:
      open: opens an input.
      help: description of the input, for the help of commands.
    """

    open: Open
    help: str


# A format is a module with a function that opens an input. Its name is that of the data source and of the option.
FORMATS: dict[str, Format] = {
    "parquet": Format(
        parquet.open_files, "Parquet files of Hugging Face's layout: their folder, one file, or a pattern in quotes"
    ),
    "webdataset": Format(
        webdataset.open_shards,
        "WebDataset's tar files: their folder, one file, or a pattern in quotes, '{000..009}.tar'",
    ),
    "csv": Format(
        csv_list.open_list, "CSV list of paths and labels, with a header; or a folder with a list for each split"
    ),
}
