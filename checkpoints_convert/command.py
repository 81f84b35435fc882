"""Functions that the scripts share: arguments, and the reading and writing of files."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from checkpoints_convert import record
from checkpoints_convert.tensors import WEIGHTS
from ppvit_jax import checkpoint
from ppvit_jax.command_line import run_program
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.models import ViTConfig, family_of, model_name, parameter_shapes, recognize, recorded_options
from ppvit_jax.models.family import Stored
from ppvit_jax.models.vit import SIZES, infer_config
from ppvit_jax.models.vit_config import Size

_PRE_LOGITS = "pre_logits/"


@dataclasses.dataclass(frozen=True)
class Converter:
    """A conversion of SOURCE to TARGET: a script of this package, and a subcommand of `ppvit convert`.

    Attributes:
      name: the script's name, such as "timm_to_npz".
      description: the conversion, in a sentence that starts with a verb.
      source: help of the argument SOURCE.
      target: help of the argument TARGET.
      example: SOURCE and TARGET of the example.
      convert: reads `arguments.source` and writes `arguments.target`, both paths.
      add_options: adds the script's own options.
    """

    name: str
    description: str
    source: str
    target: str
    example: str
    convert: Callable[[argparse.Namespace], None]
    add_options: Callable[[argparse.ArgumentParser], Any] = lambda parser: None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds SOURCE, TARGET and the options, and describes the program of the parser."""
        describe(parser, self.description, f"{parser.prog} {self.example}")
        parser.add_argument("source", metavar="SOURCE", type=Path, help=self.source)
        parser.add_argument("target", metavar="TARGET", type=Path, help=self.target)
        self.add_options(parser)

    def run(self, arguments: argparse.Namespace) -> None:
        """Converts, and prints the path that it wrote.

        Raises:
          UserError: TARGET exists or its folder does not, or SOURCE cannot be converted.
        """
        arguments.source, arguments.target = arguments.source.expanduser(), arguments.target.expanduser()
        if arguments.target.exists() or arguments.target.is_symlink():
            raise UserError(f"{arguments.target} exists: choose another name")
        if not arguments.target.parent.is_dir():
            raise UserError(f"there is no folder {arguments.target.parent}: make it first")
        self.convert(arguments)
        print(f"{arguments.target} is written")


def main(converter: Converter) -> NoReturn:
    """Runs a conversion as this process's program, and ends the process with its exit status."""

    def command(arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(prog=f"python -m checkpoints_convert.{converter.name}", allow_abbrev=False)
        converter.add_arguments(parser)
        converter.run(parser.parse_args(arguments))

    sys.exit(run_program(command))


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], checkpoint.Metadata, ViTConfig]:
    """Reads the arrays, metadata and shape of a checkpoint in our layout, which may lack its head alone.

    Raises:
      UserError: the file cannot be read, or holds no complete Vision Transformer.
    """
    arrays, metadata = checkpoint.read(path)
    shape = infer(arrays, str(path), metadata.model_options)
    check = checkpoint.to_params(arrays, shape, keep_head=shape.num_classes > 0, where=str(path))
    names = flatten_dict(check, sep="/")
    metadata = fit(metadata, shape, str(path))
    return {name: array for name, array in arrays.items() if name in names}, metadata, shape


def write_npz(path: Path, arrays: dict[str, np.ndarray], metadata: checkpoint.Metadata, *, where: str) -> None:
    """Writes a checkpoint in our layout, after a check that the model is complete.

    The record gets the model's name and image size that the arrays tell.

    Raises:
      UserError: an array is missing, unknown or of another shape.
    """
    shape = check_complete(arrays, where, metadata)
    checkpoint.write(path, unflatten_dict(arrays, sep="/"), fit(metadata, shape, where))


def infer(arrays: dict[str, np.ndarray], where: str, options: Mapping[str, Any]) -> ViTConfig:
    """Returns the shape that arrays in our layout tell.

    Raises:
      UserError: they are not those of a Vision Transformer.
    """
    family = recognize(arrays)
    if family is None or not issubclass(family.config, ViTConfig):
        return infer_config(Stored(arrays, where, options=options))
    return family.infer(Stored(arrays, where, options=options)) if family.infer else infer_config(Stored(arrays, where))


def check_complete(
    arrays: dict[str, np.ndarray],
    where: str,
    metadata: checkpoint.Metadata | None = None,
    skip: tuple[str, ...] = (),
) -> ViTConfig:
    """Returns the shape that arrays in our layout tell, after a check that the model is complete.

    Args:
      arrays: the arrays by name.
      where: the file's name, for messages.
      metadata: the record, for the options that the arrays do not show.
      skip: prefixes of names that may be missing.

    Raises:
      UserError: an array is missing, unknown or of another shape.
    """
    shape = infer(arrays, where, metadata.model_options if metadata else {})
    absent = {
        name: np.broadcast_to(np.float32(0), size)
        for name, size in parameter_shapes(shape).items()
        if skip and name.startswith(skip) and name not in arrays
    }
    checkpoint.to_params(arrays | absent, shape, keep_head=shape.num_classes > 0, where=where)
    return shape


def add_usual_normalization(
    own: dict[str, Any], usual: tuple[tuple[float, ...], tuple[float, ...]] | None, title: str, where: str
) -> dict[str, Any]:
    """Returns fields of a record, with the normalization of the family's published models if they have none."""
    if usual is None or own.get("mean"):
        return own
    print_note(
        f"{where} does not record its normalization: {checkpoint.describe_normalization(*usual)} is assumed, as the "
        f"published models of {title} have it"
    )
    return own | {"mean": usual[0], "std": usual[1]}


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds --weights."""
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="weights to take from a training state that has both: their average over the training (ema), or the "
        "weights themselves (default: ema if there is one, as timm loads it)",
    )


def add_without_head(parser: argparse.ArgumentParser) -> None:
    """Adds --without-head."""
    parser.add_argument(
        "--without-head",
        action="store_true",
        help="leave out the head and the pre_logits layer (default: convert the head too)",
    )


def drop_pre_logits(
    arrays: dict[str, np.ndarray], shape: ViTConfig, arguments: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Returns the arrays for a program without a pre_logits layer; with --without-head, also without the head.

    Raises:
      UserError: the model has such a layer, and the head that follows it is kept.
    """
    if arguments.without_head:
        left_out = (_PRE_LOGITS, *family_of(shape).heads)
        return {name: array for name, array in arrays.items() if not name.startswith(left_out)}
    if any(name.startswith(_PRE_LOGITS) for name in arrays):
        raise UserError(
            f"{arguments.source} has a pre_logits layer, which the other program does not have: give "
            "--without-head, or fine-tune it first, which leaves the layer out"
        )
    return arrays


def heads_of(hidden_size: int, given: int | None, where: str, sizes: Mapping[str, Size] = SIZES) -> int:
    """Returns the number of attention heads: as given, or as usual for the hidden size.

    Raises:
      UserError: no number is usual, or it does not divide the hidden size.
    """
    if not isinstance(hidden_size, int):
        raise UserError(f"{where} has hidden_size={hidden_size!r}, but it must be a number")
    usual = {hidden: heads for hidden, _, heads, _ in sizes.values()}
    heads = usual.get(hidden_size, 0) if given is None else given
    if not heads and given is None:
        raise UserError(f"{where} has a hidden size of {hidden_size}: give its number of attention heads by --heads")
    if heads < 1 or hidden_size % heads:
        raise UserError(f"{where} has a hidden size of {hidden_size}, which {heads} attention heads do not divide")
    return heads


def fit(metadata: checkpoint.Metadata, shape: ViTConfig, where: str) -> checkpoint.Metadata:
    """Returns the record with the model's name, image size and options, which its arrays and shape decide."""
    metadata = dataclasses.replace(metadata, model_options=recorded_options(shape))
    return record.fit(
        metadata,
        model=model_name(shape),
        image_size=shape.image_size,
        num_classes=shape.num_classes,
        where=where,
    )
