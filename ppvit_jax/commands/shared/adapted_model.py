"""Models in checkpoints, plain and adapted, as the commands of owner and cloud read and write them."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ppvit_jax import adaptation, checkpoint, models
from ppvit_jax.commands.shared.arguments import add_encryption, open_encryption
from ppvit_jax.commands.shared.encryption_choices import adaptable_encryptions
from ppvit_jax.commands.shared.output import new_path
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError, print_note, print_warning

if TYPE_CHECKING:
    from ppvit_jax.keys import SecretKey


# Families whose checkpoints the commands read, for help texts.
READABLE = "a Vision Transformer (ViT, DeiT, DINO, MAE, DINOv2, DINOv3, SigLIP or CLIP) or a ConvMixer"


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """Content of a checkpoint.

    Attributes:
      path: the file.
      params: the parameters.
      statistics: the statistics, which no key permutes.
      metadata: the file's record.
      shape: the model's shape.
      notes: notes for the user on what was changed when the file was read.
    """

    path: Path
    params: models.Params
    statistics: models.Statistics
    metadata: checkpoint.Metadata
    shape: models.ModelConfig
    notes: tuple[str, ...] = ()

    def permutations(self, key: "SecretKey") -> Permutations:
        """Returns the permutations of blocks and values that the model's encryption derives from a key."""
        method = open_encryption(self.metadata.encryption, self.shape.patch_size)
        return method.absorb(key, height=self.shape.image_size, width=self.shape.image_size)

    def with_params(self, params: models.Params) -> "SavedModel":
        """Returns the model with other parameters."""
        return dataclasses.replace(self, params=params)

    def with_encryption(self, encryption: str) -> "SavedModel":
        """Returns the model with another encryption in its metadata."""
        return dataclasses.replace(self, metadata=dataclasses.replace(self.metadata, encryption=encryption))

    def with_standard_normalization(self, reason: str) -> "SavedModel":
        """Returns the model rewritten for images that are normalized by 0.5, with a note if that changes it.

        Args:
          reason: the reason, for the note, such as "because encrypted images are normalized so".

        Raises:
          UserError: the model records another normalization and has no patch embedding.
        """
        recorded, standard = self.metadata.normalization, checkpoint.Metadata().normalization
        if recorded == standard:
            return self
        note = (
            f"the patch embedding of {self.path} is rewritten from {checkpoint.describe_normalization(*recorded)} to "
            f"{checkpoint.describe_normalization(*standard)}, {reason}"
        )
        return dataclasses.replace(
            self,
            params=adaptation.fold_normalization(self.params, recorded, standard),
            # An adapted model was published with the normalization that its record keeps, if it keeps any.
            metadata=self.metadata.with_normalization(*standard)
            if self.metadata.encryption == "none"
            else dataclasses.replace(self.metadata, mean=standard[0], std=standard[1]),
            notes=(*self.notes, note),
        )

    def with_own_normalization(self) -> "SavedModel":
        """Returns the model rewritten for the normalization that it was published with, with a note if it changes."""
        metadata = self.metadata
        if not metadata.own_mean or not metadata.own_std:
            return self
        own = (metadata.own_mean, metadata.own_std)
        note = (
            f"the patch embedding is rewritten to {checkpoint.describe_normalization(*own)}, with which the model was "
            "published"
        )
        return dataclasses.replace(
            self,
            params=adaptation.fold_normalization(self.params, metadata.normalization, own),
            metadata=metadata.with_normalization(*own),
            notes=(*self.notes, note),
        )

    def check_trained_images(self) -> None:
        """Checks that the model was trained on the images that it is adapted to.

        Raises:
          UserError: it was trained on others; the message names both.
        """
        metadata = self.metadata
        if metadata.images_encryption:
            adapted = (metadata.encryption, metadata.key_fingerprint)
            state = f"adapted to {checkpoint.describe_images(*adapted)}" if adapted[0] != "none" else "not adapted"
            raise UserError(
                f"{self.path} is {state}, but was trained on {checkpoint.describe_images(*metadata.images)}: use it on "
                "these images as it is, or adapt a model before it is trained"
            )


def warn_of_resize(model: SavedModel, requested: str | None) -> None:
    """Warns if --resize, as `requested`, is not the way of resizing that the model records; neither may be known."""
    recorded = model.metadata.resize
    if requested and recorded and requested != recorded:
        print_warning(
            f"--resize is {checkpoint.describe_resize(requested)}, but {model.path} was trained on images that were "
            f"resized by {checkpoint.describe_resize(recorded)}"
        )


def add_files(parser: argparse.ArgumentParser, kind: str, *, or_folder: bool = False) -> None:
    """Adds --checkpoint and --output.

    Args:
      parser: the command's parser.
      kind: the kind of model to read, "plain" or "adapted".
      or_folder: True if --output may name a folder for the program that the model came from.
    """
    text = f"checkpoint of the {kind} model: {READABLE}"
    if kind == "plain":
        text += "; embedded names the small one in the package, and hf:OWNER/NAME one on the Hugging Face hub"
    parser.add_argument("--checkpoint", required=True, metavar="IN", help=text)
    written = "checkpoint to write, a .npz that is new"
    if or_folder:
        written += ", or a new folder, such as tuned/, that timm or Hugging Face loads if the model came from there"
    parser.add_argument("--output", required=True, metavar="OUT", help=written)


def add_lost_encryption(parser: argparse.ArgumentParser) -> None:
    """Adds --encryption, for a checkpoint whose metadata is lost."""
    note = "default: the checkpoint's; needed only if another program has dropped its metadata"
    add_encryption(parser, adaptable_encryptions(), "encryption that the model is adapted to", note)


def open_model(path: Path, image_size: int | None = None, dtype: str = "") -> SavedModel:
    """Reads any checkpoint whose family can be adapted, with its head if it has one.

    Args:
      path: the file.
      image_size: side of the images in pixels, to which the position embedding is resized; None keeps the file's.
      dtype: the compute dtype; "" for float64 if the file has that, and float32 otherwise.

    Raises:
      UserError: the file cannot be read, the model is of another family, or the size is impossible.
    """
    arrays, metadata = checkpoint.open_checkpoint(path)
    metadata = checkpoint.complete_record(path, metadata)
    arrays, statistics = checkpoint.split(arrays)
    checkpoint.check_record(path, metadata, arrays)
    shape = models.infer_config(
        arrays,
        where=str(path),
        dtype=dtype or ("float64" if any(array.dtype == "float64" for array in arrays.values()) else "float32"),
        image_size=image_size or metadata.image_size,
        options=metadata.model_options,
    )
    notes = ()
    if image_size is not None:
        if image_size <= 0 or image_size % shape.patch_size:
            raise UserError(
                f"--image-size {image_size} is not a multiple of the model's patch size "
                f"{shape.patch_size}: give a multiple"
            )
        if image_size != shape.image_size and models.family_of(shape).mixing_matrix in arrays:
            raise UserError(
                f"{path} mixes the blocks of {shape.image_size}x{shape.image_size} images by a matrix, which cannot "
                f"be resized: give --image-size {shape.image_size}"
            )
        if image_size != shape.image_size and models.family_of(shape).positions in arrays:
            notes = (
                f"the position embedding of {path} is resized from {shape.image_size} to {image_size} pixels a side",
            )
        shape = dataclasses.replace(shape, image_size=image_size)
    params = checkpoint.to_params(arrays, shape, keep_head=shape.num_classes > 0, where=str(path))
    checkpoint.check_statistics(statistics, models.abstract_statistics(shape), str(path))
    if not shape.num_classes:
        family = models.family_of(shape)
        params = {name: layer for name, layer in params.items() if f"{name}/" not in family.heads}
    return SavedModel(path, params, statistics, metadata, shape, notes)


def open_adapted(arguments: argparse.Namespace, key: "SecretKey") -> SavedModel:
    """Reads the adapted model of --checkpoint, and checks that the key is the model's.

    Returns:
      The model; its metadata has the encryption, from the file or from --encryption.

    Raises:
      UserError: see `open_model`; or the model is plain, or adapted with another key.
    """
    path = checkpoint.resolve(arguments.checkpoint)
    model = open_model(path)
    model.check_trained_images()
    requested, recorded = arguments.encryption, model.metadata.encryption
    if requested is not None:
        requested = open_encryption(requested, model.shape.patch_size).spec
    if recorded == "none" and requested is None:
        raise UserError(
            f"{path} has no metadata of an adaptation: if another program has dropped it, name the encryption by "
            "--encryption"
        )
    if recorded != "none" and requested not in (None, recorded):
        raise UserError(f"{path} is adapted to {recorded!r}, but --encryption is {requested}: leave --encryption out")
    if recorded != "none":
        check_key(path, model.metadata, key)
    model = model.with_encryption(requested or recorded)
    mean, std = model.metadata.normalization
    inverts = model.permutations(key).negative is not None
    if len(set(mean)) > 1 or len(set(std)) > 1 or (inverts and set(mean) != {0.5}):
        # A permutation of values commutes with a normalization that all channels share, and an inversion with 0.5.
        return model.with_standard_normalization("because the key moves values between channels or inverts them")
    return model


def check_key(path: Path, metadata: checkpoint.Metadata, key: "SecretKey") -> None:
    """Checks that a key is that of an adapted model.

    Raises:
      UserError: the model is adapted with another key; the message shows both fingerprints.
    """
    if metadata.key_fingerprint != key.fingerprint:
        raise UserError(
            f"{path} is adapted with the key of fingerprint {metadata.key_fingerprint}, but --key has "
            f"fingerprint {key.fingerprint}: use the model's key"
        )


def write_model(arguments: argparse.Namespace, model: SavedModel, key: "SecretKey | None") -> None:
    """Writes the model to --output, and prints a line that describes it, and notes on what was assumed and changed.

    Args:
      arguments: those with --output.
      model: the model, whose metadata has the encryption that it is adapted to.
      key: the key that the model is adapted with; None for a plain model.

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
    loading = None
    if key is None and is_folder(arguments.output, model):
        loading = checkpoint.write_folder(path, model.params, metadata)
    else:
        checkpoint.write(path, checkpoint.join(model.params, model.statistics), metadata)
    name = metadata.model or models.family_of(shape).title
    adapted = f"adapted to {metadata.encryption} with the key of fingerprint {metadata.key_fingerprint}"
    print(f"{path}: {name}, {shape.image_size}x{shape.image_size}, {adapted if key else 'a plain model'}")
    standard = checkpoint.describe_normalization(*checkpoint.Metadata().normalization)
    for note in (*checkpoint.list_assumptions(model.path, model.metadata, normalization=standard), *model.notes):
        print_note(note)
    if loading:
        print_note(loading)


def is_folder(output: str, model: SavedModel) -> bool:
    """Returns True if --output names a folder for the program that the model came from, and not a `.npz`.

    Raises:
      UserError: it ends with "/", and the model does not record such a program.
    """
    comes_from_elsewhere = checkpoint.is_from_elsewhere(model.metadata)
    if output.endswith("/") and not comes_from_elsewhere:
        raise UserError(
            f"--output {output} is a folder, but {model.path} does not record that it came from timm or Hugging Face: "
            "give a name that ends with .npz, and convert it by ppvit convert npz-to-timm or npz-to-hf"
        )
    return comes_from_elsewhere and not output.endswith(".npz")
