"""Description of a model family: its names, its functions, and the parameters that touch the image."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np

from ppvit_jax.errors import UserError
from ppvit_jax.models.model import Model, ModelConfig

Options = Mapping[str, str | int | float]
ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Checkpoint from which a model's shape is inferred.

    Attributes:
      arrays: the parameters by name, such as "Transformer/encoder_norm/bias".
      where: the checkpoint's name, for messages.
      dtype: compute dtype to set.
      image_size: side of an image in pixels, from the checkpoint's metadata; 0 if unknown.
      options: the model's options, from the checkpoint's metadata; see `Family.recorded`.
    """

    arrays: Mapping[str, np.ndarray]
    where: str
    dtype: str = "float32"
    image_size: int = 0
    options: Options = dataclasses.field(default_factory=dict)

    def shape(self, name: str, rank: int, title: str) -> tuple[int, ...]:
        """Returns the shape of an array.

        Args:
          name: the array's name.
          rank: the number of axes that it must have.
          title: the family's title, for the message.

        Raises:
          UserError: the array is missing or has another rank, so the checkpoint does not belong to the family.
        """
        shape = self.arrays[name].shape if name in self.arrays else None
        if shape is None or len(shape) != rank:
            problem = "lacks" if shape is None else f"has the wrong shape {shape} for"
            raise UserError(f"{self.where} is not a {title}: it {problem} {name}")
        return shape

    def count(self, pattern: str) -> int:
        """Returns 1 + the highest number that the pattern's group matches at the start of a name; 1 if none does."""
        numbers = [int(match[1]) for match in map(re.compile(pattern).match, self.arrays) if match]
        return 1 + max(numbers, default=0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Family(Generic[ConfigT]):
    """Family of models, declared as FAMILY in its own file.

    Names:
      title: the family's name, for messages.
      names: form of its models' names, such as "ConvMixer-WIDTH/DEPTH".
      pattern: regular expression of a name. Each named group is an integer field of `config`, at least 1.
      options: fields of `config` that a name does not fix, with their defaults; see `ppvit_jax.models.OPTIONS`.

    Functions:
      config: class of its models' shapes, a frozen dataclass that no other family uses.
      build: shape -> model.
      parse: (name, representation_size=, image_size=, num_classes=, dtype=, and the options) -> shape. Needed only if
        names contain more than numbers.
      name: shape -> the model's name; "" for a shape without a name.
      input_shape: shape of a model -> shape of one example.
      infer: checkpoint -> shape; None if the family's checkpoints do not determine it.
      describe: shape -> facts for `ppvit info`.
      resize: (positions, side of the new grid) -> positions of that grid, for a family that does not interpolate them;
        None for others.
      interpolation: shape -> the way in which its positions are interpolated to another grid, one of
        `ppvit_jax.models.position_embedding.INTERPOLATIONS`.
      recorded: options that a checkpoint's arrays do not show, so that its metadata must record them.
      limits: the reason that a family without `infer` cannot be adapted.

    Parameters that touch the image, by name; "" if the family has none:
      patch_kernel: [patch, patch, 3, hidden], with rows in the order of a patch's values.
      patch_bias: [hidden].
      positions: [1, prefix_tokens + blocks, hidden], with blocks in row-major order.
      prefix_tokens: number of rows of `positions` before those of the patches, such as a class token's; None if it
        differs between the family's models.
      mixing_matrix: [blocks, blocks], with columns in the order of the blocks.

    Other parameters:
      in_the_clear: the part of a key that an adapted model shows to everyone, also with a private base; "" for none.
      fixed: parameters that no optimizer changes, such as a table of angles.
      head: the layer that computes the logits.
      other_heads: layers that compute logits as well, such as that of a distillation token.
      optional: layers that a checkpoint may have although the model lacks them.
      block: beginning of the names of a numbered block's parameters, before its number; "" for a model without them.
      stem: parameters that come before the blocks, or layers of them.
      landmarks: parameters that identify the family; every model of the family has some of them.
      encoder: the subtree whose kernels adaptation leaves unchanged.
      encoder_outputs: endings of the names of kernels in `encoder` whose outputs are the hidden units.
    """

    title: str
    names: str
    pattern: str
    config: type[ConfigT]
    build: Callable[[ConfigT], Model]
    name: Callable[[ConfigT], str]
    landmarks: tuple[str, ...]
    options: Options = dataclasses.field(default_factory=dict)
    parse: Callable[..., ConfigT] | None = None
    input_shape: Callable[[ConfigT], tuple[int, ...]] = lambda config: (config.image_size, config.image_size, 3)
    infer: Callable[[Stored], ConfigT] | None = None
    describe: Callable[[ConfigT], dict[str, str]] = lambda config: {}
    interpolation: Callable[[ConfigT], str] = lambda config: "linear"
    resize: Callable[[np.ndarray, int], np.ndarray] | None = None
    recorded: tuple[str, ...] = ()
    limits: str = ""
    patch_kernel: str = ""
    patch_bias: str = ""
    positions: str = ""
    prefix_tokens: int | None = 0
    mixing_matrix: str = ""
    in_the_clear: str = ""
    fixed: tuple[str, ...] = ()
    head: str = "head"
    other_heads: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    block: str = ""
    stem: tuple[str, ...] = ()
    encoder: str = ""
    encoder_outputs: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Prefixes of the parameters that compute logits, such as "head/"."""
        return tuple(f"{layer}/" for layer in (self.head, *self.other_heads))

    def depth(self, name: str) -> int | None:
        """Returns the place of a parameter along the depth: 0 before the blocks, 1 + i in block i, None after them."""
        match = re.match(rf"{re.escape(self.block)}(\d+)/", name) if self.block else None
        if match:
            return 1 + int(match[1])
        return 0 if any(name == part or name.startswith(f"{part}/") for part in self.stem) else None

    def prefix_rows(self, rows: int) -> int:
        """Returns the number of rows of a position embedding before those of the patches, whose grid is square.

        Args:
          rows: all rows. The result is unambiguous, because a family has fewer prefix tokens than a grid that is one
            larger has patches more.
        """
        return rows - math.isqrt(rows) ** 2 if self.prefix_tokens is None else self.prefix_tokens
