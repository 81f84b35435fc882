"""The interface of an encryption: a frozen description, a secret derived from a key, and functions on arrays."""

import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ppvit_jax.encryption.permutations import Array, Permutations
from ppvit_jax.errors import UserError

# Arrays by name, derived from a key. A pytree, so that compiled programs take it as an argument and never hold it.
Secret = dict[str, Any]


class Randomness(Protocol):
    """The keyed source that secrets derive from: `ppvit_jax.keys.SecretKey`. A label gives the same at every call."""

    def permutation(self, label: str, length: int) -> np.ndarray:
        """Returns int32 [length], out[i] = in[permutation[i]]."""
        ...

    def integers(self, label: str, count: int, bound: int) -> np.ndarray:
        """Returns int32 [count], uniform in [0, bound)."""
        ...

    def bits(self, label: str, count: int) -> np.ndarray:
        """Returns bool [count]."""
        ...

    def words(self, label: str, count: int) -> np.ndarray:
        """Returns uint32 [count]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encryption:
    """An encryption of images; equal ones share a compilation. Its further fields are the options of the method.

    block_size: side of a block in pixels.
    """

    block_size: int
    name: ClassVar[str]
    title: ClassVar[str]
    # False where the block size does not matter.
    blocks: ClassVar[bool] = True
    # The block size that its authors use; 0 for the patch size of the model.
    usual_block_size: ClassVar[int] = 0
    # Encodings (floating point) instead of uint8 images: these are not normalized, and cannot be a PNG.
    encodes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.blocks and self.block_size < 1:
            raise UserError(f"encryption {self.name} has blocks, and their size is {self.block_size}: give at least 1")

    @property
    def per_image(self) -> bool:
        """Tells whether every image has keys of its own, which follow from its number."""
        return False

    @property
    def program(self) -> "Encryption":
        """Encryption whose `encrypt` computes the same with this one's secret.

        Methods with equal programs share compiled ones.
        """
        return self

    @property
    def spec(self) -> str:
        """Name with the options that differ from their defaults, as `create` reads it."""
        options = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name != "block_size" and getattr(self, field.name) != field.default
        ]
        return f"{self.name}:{','.join(options)}" if options else self.name

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        """Derives the secret for images of one size from a key.

        Raises:
          UserError: sides that are not multiples of the block size, or options that do not fit the size.
        """
        raise NotImplementedError

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        """Encrypts images.

        Args:
          images: uint8 [..., height, width, 3], numpy or JAX array, also under jit and vmap.
          secret: from `derive`, for this size.
          numbers: uint32 [...], the number of each image, which differs from that of every other image under this
            key; needed by methods with keys of their own for every image, and ignored by the others.

        Returns:
          An array like `images`; for a method that `encodes`, see there. The same for numpy and JAX, bit for bit
          unless it encodes.

        Raises:
          UserError: images of another size or dtype than the method and its secret are for, or missing numbers.
        """
        raise NotImplementedError

    def check_numbers(self, images: Array, numbers: ArrayLike | None) -> Array:
        """Returns the numbers as uint32 [...], arrays like `images`, for a method that needs them.

        Raises:
          UserError: there are none, or not one for every image.
        """
        xp = images.__array_namespace__()
        checked = None if numbers is None else xp.asarray(numbers, dtype=xp.uint32)
        if checked is None or checked.shape != images.shape[:-3]:
            raise UserError(f"encryption {self.spec} has a key for every image: give the images' numbers")
        return checked

    def undo(self, secret: Secret) -> Secret:
        """Returns the secret with which `encrypt` decrypts.

        Raises:
          UserError: the method has no inverse, or none that is the same for every image.
        """
        raise NotImplementedError

    def decrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        """Inverts `encrypt`, with the same arguments.

        Raises:
          UserError: the method has no inverse.
        """
        return self.encrypt(images, self.undo(secret), numbers)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        """Derives the encryption as block and pixel permutations and inversions.

        A model's patch and position embeddings absorb these exactly (see `ppvit_jax.adaptation`).

        Raises:
          UserError: the encryption is none of that form, with the reason.
        """
        raise NotImplementedError


def check_choice(name: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError unless the value of an option is one of the choices."""
    if value not in choices:
        raise UserError(f"encryption {name}: {option} is {value!r}, use one of {', '.join(choices)}")
