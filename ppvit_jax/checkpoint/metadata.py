"""Metadata of a checkpoint: the one record of what a model is and which images it takes."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from ppvit_jax.checkpoint.delta import Delta

# Google's models take images as x / 127.5 - 1, which is this mean and this standard deviation of x / 255.
STANDARD = (0.5, 0.5, 0.5)
# Fields that are left out of the JSON if they are empty, so that the record of a model that needs none stays as it was.
_OPTIONAL = (
    "model_options",
    "mean",
    "std",
    "resize",
    "images_encryption",
    "images_key_fingerprint",
    "images_block_size",
    "own_mean",
    "own_std",
    "origin",
    "delta",
    "task",
)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Metadata of a checkpoint.

    Attributes:
      model: the model's name, such as "ViT-B/16"; "" if unknown.
      image_size: side of an image in pixels; 0 if unknown.
      encryption: the encryption that the model is adapted to, which `ppvit restore` undoes; "none" for a plain model.
      key_fingerprint: fingerprint of the key that the model is adapted to; None for a plain model.
      class_names: names of the head's outputs, in order; empty if unknown.
      model_options: options that the arrays do not show; see `ppvit_jax.models.recorded_options`.
      mean, std: normalization of the images, (x / 255 - mean) / std for each channel; empty if nothing recorded it, and
        then `normalization` assumes 0.5.
      resize: how images of other sizes were resized, "centre_crop" or "squash"; "" if unknown, or if all images had one
        size.
      images_encryption: the encryption of the images that the model was trained on, if it is not the one that the model
        is adapted to; "" if it is.
      images_key_fingerprint: fingerprint of these images' key, beside `images_encryption`.
      images_block_size: side of these images' blocks in pixels, if it is not the model's patch size; 0 if it is.
      own_mean, own_std: normalization that the model was published with, if it has been rewritten for `mean` and `std`;
        empty if it has not.
      origin: program and architecture that the model came from, such as "timm:vit_small_patch14_dinov2" or
        "transformers:dinov2"; "" for Google's layout.
      delta: record of the base, if the file holds the trained tensors alone; None for a whole model.
      task: "multi_label" for a model that was trained on any number of labels per image, each with a sigmoid; "" for
        one label per image.
    """

    model: str = ""
    image_size: int = 0
    encryption: str = "none"
    key_fingerprint: str | None = None
    class_names: tuple[str, ...] = ()
    model_options: dict[str, str | int | float] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: str = ""
    images_encryption: str = ""
    images_key_fingerprint: str | None = None
    images_block_size: int = 0
    own_mean: tuple[float, ...] = ()
    own_std: tuple[float, ...] = ()
    origin: str = ""
    delta: Delta | None = None
    task: str = ""

    @property
    def images(self) -> tuple[str, str | None]:
        """Encryption and key fingerprint of the images that the model takes, such as ("none", None) for plain ones."""
        if self.images_encryption:
            return self.images_encryption, self.images_key_fingerprint
        return self.encryption, self.key_fingerprint

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel; 0.5 if nothing recorded them."""
        return self.mean or STANDARD, self.std or STANDARD

    def with_normalization(self, mean: Sequence[float], std: Sequence[float]) -> "Metadata":
        """Returns the metadata of a model that has been rewritten for this normalization.

        A record without a normalization assumes none of its own.
        """
        new = (tuple(map(float, mean)), tuple(map(float, std)))
        own = (self.own_mean, self.own_std) if self.own_mean else (self.mean, self.std)
        own = ((), ()) if own == new else own
        return dataclasses.replace(self, mean=new[0], std=new[1], own_mean=own[0], own_std=own[1])

    def trained_on(self, encryption: str, key_fingerprint: str | None, block_size: int = 0) -> "Metadata":
        """Returns the metadata of a model that was trained on images of this encryption, key and block size.

        Args:
          encryption: the images' encryption; "none" for plain ones.
          key_fingerprint: fingerprint of their key; None for plain images.
          block_size: side of their blocks in pixels, if it is not the model's patch size; 0 if it is.
        """
        if (encryption, key_fingerprint, block_size) == (self.encryption, self.key_fingerprint, 0):
            encryption, key_fingerprint = "", None
        return dataclasses.replace(
            self,
            images_encryption=encryption,
            images_key_fingerprint=key_fingerprint,
            images_block_size=block_size,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "Metadata":
        """Reads the JSON that `to_json` writes. Fields that a later version has added are ignored.

        Raises:
          ValueError: the text is not such JSON.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("the metadata is not a JSON object")
        names = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {name: value for name, value in fields.items() if name in names}
        delta = values.pop("delta", None)
        for name, value in values.items():
            if not _is_valid(name, value):
                raise ValueError(f"the metadata has the field {name} with the impossible value {str(value)[:80]}")
        for name in ("class_names", "mean", "std", "own_mean", "own_std"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values, delta=None if delta is None else Delta.from_fields(delta))

    def to_json(self) -> str:
        """Returns one line of JSON, without the optional fields that are empty."""
        fields = dataclasses.asdict(self)
        return json.dumps({name: value for name, value in fields.items() if value or name not in _OPTIONAL})


def _is_valid(name: str, value: Any) -> bool:
    if name in ("model", "encryption", "resize", "images_encryption", "origin", "task"):
        return isinstance(value, str)
    if name in ("key_fingerprint", "images_key_fingerprint"):
        return value is None or isinstance(value, str)
    if name in ("image_size", "images_block_size"):
        return isinstance(value, int) and 0 <= value < 2**31
    if name == "model_options":
        return isinstance(value, dict) and all(isinstance(option, str | int | float) for option in value.values())
    if name == "class_names":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    numbers = isinstance(value, list) and all(isinstance(number, int | float) for number in value)
    if not numbers or len(value) not in (0, 3) or not all(math.isfinite(number) for number in value):
        return False
    return name in ("mean", "own_mean") or all(number > 0 for number in value)
