"""Models in checkpoints, plain and adapted, as the commands of owner and cloud read and write them."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax import checkpoint, models
from ppvit_jax.commands.shared.arguments import add_encryption, open_encryption
from ppvit_jax.commands.shared.encryption_choices import adaptable_encryptions
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError

if TYPE_CHECKING:
    from ppvit_jax.keys import SecretKey


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """The content of a checkpoint: parameters, statistics (not permuted by any key), metadata and shape."""

    params: models.Params
    statistics: models.Statistics
    metadata: checkpoint.Metadata
    shape: models.ModelConfig

    def permutations(self, key: "SecretKey") -> Permutations:
        """Returns a key's permutations of the blocks and values of the model's images, by its encryption."""
        method = open_encryption(self.metadata.encryption, self.shape.patch_size)
        return method.absorb(key, height=self.shape.image_size, width=self.shape.image_size)

    def with_params(self, params: models.Params) -> "SavedModel":
        """Returns the model with other parameters."""
        return dataclasses.replace(self, params=params)

    def with_encryption(self, encryption: str) -> "SavedModel":
        """Returns the model with other metadata: it is adapted to this encryption."""
        return dataclasses.replace(self, metadata=dataclasses.replace(self.metadata, encryption=encryption))


def add_files(parser: argparse.ArgumentParser, kind: str) -> None:
    """Adds --checkpoint and --output; `kind` is the kind of model to read, "plain" or "adapted"."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="IN",
        help=f"checkpoint of the {kind} model: a .npz in Google's layout, or of a ConvMixer",
    )
    parser.add_argument("--output", required=True, metavar="OUT", help="checkpoint to write, a .npz that is new")


def add_lost_encryption(parser: argparse.ArgumentParser) -> None:
    """Adds --encryption, for a checkpoint whose metadata is lost."""
    note = "default: the checkpoint's; needed only if another program has dropped its metadata"
    add_encryption(parser, adaptable_encryptions(), "encryption that the model is adapted to", note)


def open_model(path: Path, image_size: int | None = None, dtype: str = "") -> SavedModel:
    """Reads any checkpoint whose family can be adapted, with its head if it has one.

    Args:
      path: the file.
      image_size: resize the position embedding to this size of images; None keeps the file's.
      dtype: the compute dtype; "" for float64 if the file has that, and float32 otherwise.

    Raises:
      UserError: a file that cannot be read, a model of another family, or a size that is impossible.
    """
    arrays, metadata = checkpoint.read(path)
    arrays, statistics = checkpoint.split(arrays)
    shape = models.infer_config(
        arrays,
        where=str(path),
        dtype=dtype or ("float64" if any(array.dtype == "float64" for array in arrays.values()) else "float32"),
        image_size=image_size or metadata.image_size,
        options=metadata.model_options,
    )
    if image_size is not None:
        if image_size <= 0 or image_size % shape.patch_size:
            raise UserError(f"--image-size {image_size} is not a multiple of the model's patch size {shape.patch_size}")
        if image_size != shape.image_size and models.family_of(shape).mixing_matrix in arrays:
            raise UserError(
                f"{path} mixes the blocks of images of {shape.image_size}x{shape.image_size} by a matrix, which cannot "
                f"be resized: give --image-size {shape.image_size}"
            )
        shape = dataclasses.replace(shape, image_size=image_size)
    params = checkpoint.to_params(arrays, shape, keep_head=shape.num_classes > 0, where=str(path))
    checkpoint.check_statistics(statistics, models.abstract_statistics(shape), str(path))
    if not shape.num_classes:
        del params[models.family_of(shape).head]
    return SavedModel(params, statistics, metadata, shape)


def open_adapted(arguments: argparse.Namespace, key: "SecretKey") -> SavedModel:
    """Reads the adapted model of --checkpoint, and makes sure of its key.

    Returns:
      The model, its metadata with the encryption that --encryption says where the file does not.

    Raises:
      UserError: as `open_model`; or the model is plain, or adapted with another key.
    """
    path = checkpoint.resolve(arguments.checkpoint)
    model = open_model(path)
    given, said = arguments.encryption, model.metadata.encryption
    if given is not None:
        given = open_encryption(given, model.shape.patch_size).spec
    if said == "none" and given is None:
        raise UserError(
            f"{path} does not say that it is adapted: if it is, and lost its metadata in another program, say to "
            "what by --encryption"
        )
    if said != "none" and given not in (None, said):
        raise UserError(f"{path} says that it is adapted to {said!r}, and --encryption is {given}")
    if said != "none" and model.metadata.key_fingerprint != key.fingerprint:
        raise UserError(
            f"{path} is adapted with the key of fingerprint {model.metadata.key_fingerprint}, and the key given has "
            f"fingerprint {key.fingerprint}: use the model's key"
        )
    return model.with_encryption(given or said)


def write_model(arguments: argparse.Namespace, model: SavedModel, key: "SecretKey | None") -> None:
    """Writes --output and says what it is.

    Args:
      arguments: with --output.
      model: its metadata has the encryption that it is adapted to.
      key: the key that it is adapted with; None for a plain model.

    Raises:
      UserError: the file exists, or its folder does not.
    """
    path, shape = new_path(arguments.output, "the checkpoint"), model.shape
    metadata = dataclasses.replace(
        model.metadata,
        model=model.metadata.model or models.model_name(shape),
        image_size=shape.image_size,
        encryption=model.metadata.encryption if key else "none",
        key_fingerprint=key.fingerprint if key else None,
    )
    checkpoint.write(path, checkpoint.join(model.params, model.statistics), metadata)
    name = metadata.model or models.family_of(shape).title
    adapted = f"adapted to {metadata.encryption} with the key of fingerprint {metadata.key_fingerprint}"
    print(f"{path}: {name}, {shape.image_size}x{shape.image_size}, {adapted if key else 'a plain model'}")
