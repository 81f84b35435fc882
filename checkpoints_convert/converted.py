"""Model that a file of another program holds, in our arrays, and choices that the file may not record."""

import dataclasses

import numpy as np

from ppvit_jax.checkpoint import Metadata
from ppvit_jax.models import ViTConfig


@dataclasses.dataclass(frozen=True)
class Choices:
    """Choices for a file of another program.

    Attributes:
      weights: one of `checkpoints_convert.tensors.WEIGHTS`; None prefers the average.
      heads: number of attention heads; None as the file records it, or the usual one.
      activation: one of ACTIVATIONS; None as the file records it, or the usual one.
      command: the command that has the options --heads and --activation, for messages; "" for the one that runs.
      skip: prefixes of the names of our arrays that are not read, such as "head/".
    """

    weights: str | None = None
    heads: int | None = None
    activation: str | None = None
    command: str = ""
    skip: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Converted:
    """Model of another program.

    Attributes:
      arrays: our arrays by name, of the file's dtypes.
      metadata: the record, as far as the program's files tell it.
      shape: the model's shape.
    """

    arrays: dict[str, np.ndarray]
    metadata: Metadata
    shape: ViTConfig
