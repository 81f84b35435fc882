"""Content of a folder for another program."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Files:
    """Content of a folder for another program.

    Attributes:
      state: tensors of model.safetensors.
      texts: JSON objects by the names of their files.
      note: the way in which the program loads the folder, which is named FOLDER in it.
    """

    state: dict[str, np.ndarray]
    texts: dict[str, dict[str, Any]]
    note: str
