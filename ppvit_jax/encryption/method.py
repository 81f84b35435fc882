"""What every encryption is: a frozen description with one signature, and the name by which users choose it."""

import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np

from ppvit_jax.encryption.permutations import Permutations
from ppvit_jax.errors import UserError

# Arrays by name: what a key derives to. A pytree, so that compiled programs take it as an argument and never hold it.
Secret = dict[str, Any]


class Randomness(Protocol):
    """The keyed source that secrets derive from: `ppvit_jax.keys.SecretKey`. A label gives the same at every call."""

    def permutation(self, kind: str, length: int) -> np.ndarray:
        """int32 [length], out[i] = in[permutation[i]]."""
        ...

    def integers(self, kind: str, count: int, bound: int) -> np.ndarray:
        """int32 [count], uniform in [0, bound)."""
        ...

    def bits(self, kind: str, count: int) -> np.ndarray:
        """bool [count]."""
        ...

    def words(self, kind: str, count: int) -> np.ndarray:
        """uint32 [count]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encryption:
    """An encryption of images; equal ones share a compilation. Its further fields are the options of the method.

    block_size: side of a block in pixels.
    """

    block_size: int
    name: ClassVar[str]
    title: ClassVar[str]
    # Whether the block size matters.
    blocks: ClassVar[bool] = True
    # Encodings (floating point) instead of uint8 images: these are not normalised, and cannot be a PNG.
    encodes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.blocks and self.block_size < 1:
            raise UserError(f"encryption {self.name} has blocks, and their size is {self.block_size}: give at least 1")

    @property
    def per_image(self) -> bool:
        """Whether every image has keys of its own, which follow from its number."""
        return False

    @property
    def program(self) -> "Encryption":
        """An encryption that encrypts images with this one's secret likewise; where these are equal, compiled programs
        are shared."""
        return self

    @property
    def spec(self) -> str:
        """The name with those options that differ from their defaults, as `create` reads it."""
        options = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name != "block_size" and getattr(self, field.name) != field.default
        ]
        return f"{self.name}:{','.join(options)}" if options else self.name

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        """The secret for images of one size, from a key.

        Raises:
          UserError: sides that are not multiples of the block size, or options that do not fit the size.
        """
        raise NotImplementedError

    def encrypt(self, images: Any, secret: Secret, numbers: Any = None) -> Any:
        """Encrypts images.

        Args:
          images: uint8 [..., height, width, 3], numpy or JAX array, also under jit and vmap.
          secret: from `derive`, for this size.
          numbers: uint32 [...], what tells each image from every other one under this key; needed by methods with
            keys of their own for every image, and ignored by the others.

        Returns:
          An array like `images`; for a method that `encodes`, see there. The same for numpy and JAX, bit for bit
          unless it encodes.
        """
        raise NotImplementedError

    def check_numbers(self, images: Any, numbers: Any) -> Any:
        """The numbers as uint32 [...], of the images' kind of array, for a method that needs them.

        Raises:
          UserError: there are none, or not one for every image.
        """
        xp = images.__array_namespace__()
        numbers = None if numbers is None else xp.asarray(numbers, dtype=xp.uint32)
        if numbers is None or numbers.shape != images.shape[:-3]:
            raise UserError(f"encryption {self.spec} has a key for every image: give the images' numbers")
        return numbers

    def undo(self, secret: Secret) -> Secret:
        """The secret with which `encrypt` decrypts.

        Raises:
          UserError: the method has no inverse, or none that is the same for every image.
        """
        raise NotImplementedError

    def decrypt(self, images: Any, secret: Secret, numbers: Any = None) -> Any:
        """The inverse of `encrypt`, with the same arguments.

        Raises:
          UserError: the method has no inverse.
        """
        return self.encrypt(images, self.undo(secret), numbers)

    def absorb(self, randomness: Randomness, *, height: int, width: int) -> Permutations:
        """The encryption as block and pixel permutations and inversions, which a model's patch and position
        embeddings absorb exactly (see `ppvit_jax.adaptation`).

        Raises:
          UserError: it is none, with the reason.
        """
        raise NotImplementedError


def parse(spec: str, methods: dict[str, type[Encryption]], block_size: int) -> Encryption:
    """Reads "NAME" or "NAME:option=value,option=value".

    Raises:
      UserError: an unknown name, option or value.
    """
    name, _, rest = spec.partition(":")
    if name not in methods:
        raise UserError(f"unknown encryption {spec!r}: use none or one of {', '.join(methods)}")
    method = methods[name]
    defaults = {field.name: field.default for field in dataclasses.fields(method) if field.name != "block_size"}
    options = {}
    for part in filter(None, rest.split(",")):
        option, equals, text = part.partition("=")
        if not equals or option not in defaults:
            known = ", ".join(f"{option}={value}" for option, value in defaults.items()) or "none"
            raise UserError(f"encryption {spec!r}: {name} has no option {part!r}; its options and defaults: {known}")
        options[option] = _value(spec, option, text, type(defaults[option]))
    return method(block_size=block_size, **options)


def check_choice(name: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError unless the value of an option is one of the choices."""
    if value not in choices:
        raise UserError(f"encryption {name}: {option} is {value!r}, use one of {', '.join(choices)}")


def _value(spec: str, option: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"True": True, "False": False}[text]
        return kind(text)
    except (ValueError, KeyError):
        wanted = "True or False" if kind is bool else "a whole number"
        raise UserError(f"encryption {spec!r}: {option} is {text!r}, give {wanted}") from None
