"""Augmentations of images that are already encrypted, which need no key; one file per method, one list.

They are the cloud's, and act in the training step alone. Those of the owner, which come before the encryption, are in
`ppvit_jax.data.preprocess`.
"""

import dataclasses
import re
import zlib

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ppvit_jax import models
from ppvit_jax.cloud_augmentation.brightness import Brightness
from ppvit_jax.cloud_augmentation.contrast import Contrast
from ppvit_jax.cloud_augmentation.cutmix import CutMix
from ppvit_jax.cloud_augmentation.method import Augmented, CloudAugmentation, next_examples
from ppvit_jax.cloud_augmentation.mixup import Mixup
from ppvit_jax.cloud_augmentation.token_drop import TokenDrop
from ppvit_jax.encryption import Encryption
from ppvit_jax.errors import UserError

# In the order in which they are applied.
METHODS: dict[str, type[CloudAugmentation]] = {
    method.name: method for method in (Contrast, Brightness, Mixup, CutMix, TokenDrop)
}
_FIELD = "config.cloud_augmentation"


@dataclasses.dataclass(frozen=True)
class CloudAugmentations:
    """The augmentations of a run, in the order in which they are applied.

    Attributes:
      methods: the augmentations; () for none.
    """

    methods: tuple[CloudAugmentation, ...] = ()

    def apply(self, images: jax.Array, rng: jax.Array, patch_size: int, dtype: DTypeLike) -> Augmented:
        """Draws and applies the augmentations.

        If several methods mix images, each image draws one of them, with equal chances.

        Args:
          images: [batch, height, width, 3], encrypted or plain: uint8, or the floating-point values of an encoding.
          rng: random key.
          patch_size: side of the model's patches in pixels; 0 for a model without patches.
          dtype: compute dtype of the model; the arithmetic is in at least float32.

        Returns:
          The augmented images. They stay uint8 if no method computes with values.
        """
        if any(method.computes for method in self.methods) and images.dtype == jnp.uint8:
            images = images.astype(jnp.promote_types(dtype, jnp.float32))
        batch = Augmented(images)
        # Draws of a method do not depend on the other methods.
        rngs = {name: jax.random.fold_in(rng, zlib.crc32(name.encode())) for name in (*METHODS, "choice")}
        mixing = [method for method in self.methods if method.mixes]
        for method in self.methods:
            if method not in mixing:
                batch = method.apply(batch, rngs[method.name], patch_size)
            elif method is mixing[0]:
                outcomes = [each.apply(batch, rngs[each.name], patch_size) for each in mixing]
                batch = _choose(outcomes, rngs["choice"])
        return batch

    def check_model(self, config: models.ModelConfig, batch_size: int) -> None:
        """Makes sure that a model and a batch suit the augmentations.

        Raises:
          UserError: a method needs patches and the model has none, or it needs another image and there is none.
        """
        for method in self.methods:
            if method.mixes and batch_size < 2:
                raise UserError(
                    f"{_FIELD} has {method.name}, which mixes two images, and config.batch_size is {batch_size}: "
                    "give at least 2"
                )
            if method.draws_blocks and (not config.patch_size or len(models.input_shape(config)) != 3):
                raise UserError(
                    f"{_FIELD} has {method.name}, which needs a model that cuts images into patches: leave it out, or "
                    "choose a model such as ViT-B/16"
                )
            if isinstance(method, TokenDrop) and not isinstance(config, models.ViTConfig):
                raise UserError(
                    f"{_FIELD} has {method.name}, which needs a Vision Transformer: leave it out, or choose a model "
                    "such as ViT-B/16"
                )

    def check_encryption(self, encryption: Encryption | None, patch_size: int) -> None:
        """Makes sure that all augmentations commute with the encryption of the images.

        Args:
          encryption: the encryption; None for plain images.
          patch_size: side of the model's patches in pixels.

        Raises:
          UserError: one does not commute; the message gives the reason.
        """
        for method in self.methods:
            if encryption is not None and (reason := find_obstacle(method, encryption, patch_size)):
                raise UserError(
                    f"{_FIELD} has {method.name}, which does not commute with encryption {encryption.spec}, because "
                    f"{reason}: leave {method.name} out"
                )


def parse(spec: str) -> CloudAugmentations:
    """Reads the spec of augmentations: "none", or methods joined by "+", each NAME or NAME:option=value,option=value.

    Args:
      spec: for example "mixup:alpha=0.2+token_drop:rate=0.1". The order of the methods does not matter.

    Raises:
      UserError: a name, an option or a value is unknown, or a method occurs twice.
    """
    if spec == "none":
        return CloudAugmentations()
    found: dict[str, CloudAugmentation] = {}
    # A plus before a digit belongs to a number, such as 1e+1.
    for text in re.split(r"\+(?!\d)", spec):
        name, _, options = text.partition(":")
        if name not in METHODS:
            raise UserError(f"{_FIELD} has {text!r}: use none, or some of {', '.join(METHODS)} joined by +")
        if name in found:
            raise UserError(f"{_FIELD} has {name} twice: give each method once")
        found[name] = _read_method(METHODS[name], options)
    return CloudAugmentations(tuple(found[name] for name in METHODS if name in found))


def find_obstacle(method: CloudAugmentation, encryption: Encryption, patch_size: int) -> str:
    """Returns the reason that a method does not commute with an encryption, or "" if it does.

    Args:
      method: the augmentation.
      encryption: the encryption.
      patch_size: side of the model's patches in pixels.
    """
    return next(filter(None, (need(encryption, patch_size) for need in method.needs)), "")


def commutes_exactly(method: CloudAugmentation, encryption: Encryption) -> bool:
    """Returns True if a method that commutes with an encryption does so for the same draws."""
    return not (method.draws_blocks and encryption.moves_blocks)


def _choose(outcomes: list[Augmented], rng: jax.Array) -> Augmented:
    """Draws for each image one of several outcomes."""
    chosen = jax.random.randint(rng, (len(outcomes[0].images),), 0, len(outcomes))

    def select(*arrays: jax.Array) -> jax.Array:
        conditions = [(chosen == number).reshape(-1, *(1,) * (arrays[0].ndim - 1)) for number in range(len(arrays))]
        return jnp.select(conditions, arrays)

    return outcomes[0] if len(outcomes) == 1 else jax.tree.map(select, *outcomes)


def _read_method(method: type[CloudAugmentation], options: str) -> CloudAugmentation:
    values = {}
    for assignment in filter(None, options.split(",")):
        option, equals, text = assignment.partition("=")
        if not equals or option not in method.ranges:
            choices = ", ".join(f"{field.name}={field.default}" for field in dataclasses.fields(method))
            raise UserError(f"{_FIELD}: {method.name} has no option {assignment!r}: give {choices}, or another value")
        try:
            number: float | str = float(text)
        except ValueError:
            number = text
        method.ranges[option].check(f"{_FIELD}: {option} of {method.name}", number)
        values[option] = number
    return method(**values)


__all__ = [
    "METHODS",
    "Augmented",
    "CloudAugmentation",
    "CloudAugmentations",
    "commutes_exactly",
    "find_obstacle",
    "next_examples",
    "parse",
]
