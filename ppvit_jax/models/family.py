"""The description of a model family: its names, its functions, and where a model of it meets the image."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np

from ppvit_jax.errors import UserError
from ppvit_jax.models.model import Model, ModelConfig

Options = Mapping[str, str | int]
ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A checkpoint from which the shape of its model is to be read.

    arrays: the parameters by their names, such as "Transformer/encoder_norm/bias".
    where: the checkpoint's name, for messages.
    dtype: the compute dtype to set.
    image_size: side of an image in pixels as the checkpoint's metadata has it; 0 if it is unknown.
    options: the metadata's options of the model, see `Family.recorded`.
    """

    arrays: Mapping[str, np.ndarray]
    where: str
    dtype: str = "float32"
    image_size: int = 0
    options: Options = dataclasses.field(default_factory=dict)

    def shape(self, name: str, rank: int, title: str) -> tuple[int, ...]:
        """Returns the shape of an array.

        Raises:
          UserError: it is missing or of another rank, so that the checkpoint is of no `title`.
        """
        shape = self.arrays[name].shape if name in self.arrays else None
        if shape is None or len(shape) != rank:
            problem = "lacks" if shape is None else f"has another shape, {shape}, of"
            raise UserError(f"{self.where} is not a {title}: it {problem} {name}")
        return shape

    def count(self, pattern: str) -> int:
        """Returns one more than the highest number that the pattern's group finds at the beginning of a name."""
        numbers = [int(match[1]) for match in map(re.compile(pattern).match, self.arrays) if match]
        return 1 + max(numbers, default=0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Family(Generic[ConfigT]):
    """A family of models, declared as FAMILY in its own file.

    Names:
      title: of the family, for messages.
      names: form of its models' names, such as "ConvMixer-WIDTH/DEPTH".
      pattern: regular expression of a name. Each named group is an integer field of `config`, from 1 on.
      options: what a name leaves open, with the defaults: fields of `config`, by names that no other family uses.

    Functions:
      config: the class of its models' shapes, a frozen dataclass that no other family uses.
      build: shape -> model.
      parse: (name, representation_size=, image_size=, num_classes=, dtype=, and the options) -> shape, for names that
        hold more than numbers.
      name: shape -> the model's name; "" for a shape that has none.
      input_shape: shape -> that of one example.
      infer: checkpoint -> shape; None for a family whose checkpoints do not tell it.
      describe: shape -> facts for `ppvit info`.
      recorded: those options that a checkpoint's arrays do not tell, and its metadata must.
      limits: for a family without `infer`, the reason why it cannot be adapted.

    Where a model meets the image, as names of parameters, "" for none:
      patch_kernel: [patch, patch, 3, hidden], its rows in the order of a patch's values.
      patch_bias: [hidden].
      positions: [1, prefix_tokens + blocks, hidden], blocks in row-major order.
      prefix_tokens: the number of tokens before the patches, such as a class token.
      mixing_matrix: [blocks, blocks], its columns in the order of the blocks.

    Other parts:
      head: the layer that gives the logits.
      optional: layers that a checkpoint may have and the model lack.
      landmarks: parameters that every model of the family has, by which it is recognized.
      encoder: the subtree whose kernels no key moves.
      encoder_outputs: how the names of those kernels end that have the hidden units at their output.
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
    recorded: tuple[str, ...] = ()
    limits: str = ""
    patch_kernel: str = ""
    patch_bias: str = ""
    positions: str = ""
    prefix_tokens: int = 0
    mixing_matrix: str = ""
    head: str = "head"
    optional: tuple[str, ...] = ()
    encoder: str = ""
    encoder_outputs: tuple[str, ...] = ()
