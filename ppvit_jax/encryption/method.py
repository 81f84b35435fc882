"""Interface of an encryption: a frozen description, a secret derived from a key, and functions on arrays."""

import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ppvit_jax.encryption.permutations import Array, Permutations
from ppvit_jax.errors import UserError

# Arrays by name, derived from a key. A pytree: compiled programs take it as an argument, so they never contain it.
Secret = dict[str, Any]


class Randomness(Protocol):
    """Keyed source of randomness, such as `ppvit_jax.keys.SecretKey`. A label gives the same values at every call."""

    def permutation(self, label: str, length: int) -> np.ndarray:
        """Returns a permutation, int32 [length], to use as out[i] = in[permutation[i]]."""
        ...

    def integers(self, label: str, count: int, bound: int) -> np.ndarray:
        """Returns integers drawn uniformly from [0, bound): int32 [count]."""
        ...

    def bits(self, label: str, count: int) -> np.ndarray:
        """Returns random bits: bool [count]."""
        ...

    def words(self, label: str, count: int) -> np.ndarray:
        """Returns random words: uint32 [count]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encryption:
    """Encryption of images: a frozen dataclass, so that equal encryptions share a compilation.

    The further fields of a subclass are the options of its method.

    Attributes:
      block_size: side of a block in pixels.
    """

    block_size: int
    name: ClassVar[str]
    title: ClassVar[str]
    # False if the block size does not matter.
    blocks: ClassVar[bool] = True
    # The block size that the method's authors use; 0 stands for the model's patch size.
    usual_block_size: ClassVar[int] = 0
    # Further spellings of options that `parse` reads, with the field that each sets. `spec` has the field's own name.
    spellings: ClassVar[dict[str, str]] = {}
    # True if every encrypted value is a value of the image, or its inverse 255 - x.
    gathers: ClassVar[bool] = False
    # True if blocks change their places.
    moves_blocks: ClassVar[bool] = False
    # True if the result is an encoding (floating point), which is not normalized and cannot be stored as PNG.
    encodes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.blocks and self.block_size < 1:
            raise UserError(f"encryption {self.name} has a block size of {self.block_size}: give at least 1")

    @property
    def per_image(self) -> bool:
        """True if every image has its own key, derived from the image's number."""
        return False

    @property
    def inverts(self) -> bool:
        """True if some values are inverted."""
        return False

    @property
    def depends_on_batch(self) -> bool:
        """True if an encrypted image depends on the images that are encrypted with it."""
        return False

    @property
    def program(self) -> "Encryption":
        """Encryption whose `encrypt` gives the same result with this encryption's secret.

        Methods with equal programs share a compilation.
        """
        return self

    def program_in_blocks(self, block_size: int, platform: str = "cpu") -> "Encryption":
        """Returns the `program` for a model that cuts each image into blocks. It gives the same bytes, in less time.

        Args:
          block_size: side of the model's blocks in pixels, its patch size; 0 if the model does not cut images.
          platform: "cpu", "gpu" or "tpu", the devices for which the program is compiled.
        """
        return self.program

    @property
    def spec(self) -> str:
        """Name and options that differ from their defaults, in the form that `create` reads."""
        options = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name != "block_size" and getattr(self, field.name) != field.default
        ]
        return f"{self.name}:{','.join(options)}" if options else self.name

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        """Derives from a key the secret for images of one size.

        Args:
          randomness: a `ppvit_jax.keys.SecretKey`.
          height, width: sides of an image in pixels.

        Returns:
          Arrays by name, as the method's class describes them.

        Raises:
          UserError: the sides are not multiples of the block size, or an option does not fit the size.
        """
        raise NotImplementedError

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        """Encrypts images.

        Args:
          images: uint8 [..., height, width, 3], a numpy or JAX array, also under jit and vmap.
          secret: from `derive`, for this image size.
          numbers: uint32 [...], a number for each image, which no other image under this key has. Methods with a key
            for every image need it, and the others ignore it.

        Returns:
          An array of the shape and dtype of `images`, with identical bits for numpy and JAX. A method that `encodes`
          returns float32; its class describes the shape.

        Raises:
          UserError: the images do not have the size or dtype that the method and its secret need, or their numbers are
            missing.
        """
        raise NotImplementedError

    def sort(self, secret: Secret, *, height: int, width: int) -> Secret:
        """Returns the secret in the order in which `encrypt` is fastest; most encryptions have one order only.

        `encrypt` takes a secret in both orders. A run sorts its secret once, on the host.

        Args:
          secret: from `derive`, or already sorted.
          height, width: sides of an image in pixels.

        Raises:
          UserError: the secret is for images of another size.
        """
        return secret

    def derive_in_blocks(self, randomness: Randomness, *, height: int, width: int, block_size: int) -> Secret:
        """Derives the sorted secret of `program_in_blocks`.

        Args:
          randomness: a `ppvit_jax.keys.SecretKey`.
          height, width: sides of an image in pixels.
          block_size: side of the model's blocks in pixels, its patch size; 0 if the model does not cut images.

        Raises:
          UserError: see `derive`.
        """
        secret = self.derive(randomness, height=height, width=width)
        return self.program_in_blocks(block_size).sort(secret, height=height, width=width)

    def check_numbers(self, images: Array, numbers: ArrayLike | None) -> Array:
        """Returns the images' numbers as uint32 [...], a numpy or JAX array like `images`.

        Raises:
          UserError: the numbers are missing, or there is not one for every image.
        """
        xp = images.__array_namespace__()
        checked = None if numbers is None else xp.asarray(numbers, dtype=xp.uint32)
        if checked is None or checked.shape != images.shape[:-3]:
            raise UserError(f"encryption {self.spec} has a key for every image: give the images' numbers")
        return checked

    def undo(self, secret: Secret) -> Secret:
        """Returns the secret with which `encrypt` decrypts.

        Raises:
          UserError: the method has no inverse, or its inverse differs from image to image.
        """
        raise NotImplementedError

    def decrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        """Inverts `encrypt`, with the same arguments.

        Raises:
          UserError: the method has no inverse.
        """
        return self.encrypt(images, self.undo(secret), numbers)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        """Derives the encryption in the form that a model can be adapted to: block and pixel permutations, inversions.

        A model's patch and position embeddings absorb these exactly (see `ppvit_jax.adaptation`).

        Args:
          randomness: a `ppvit_jax.keys.SecretKey`.
          height, width: sides of an image in pixels.

        Raises:
          UserError: the encryption does not have this form; the message gives the reason.
        """
        raise NotImplementedError


def check_choice(name: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError unless the value of an option is one of the choices."""
    if value not in choices:
        raise UserError(f"encryption {name}: {option} is {value!r}: use one of {', '.join(choices)}")
