"""Messages to the user: the exception for mistakes, checks that raise it, notes and warnings."""

import contextlib
import dataclasses
import importlib.util
import math
import sys
from collections.abc import Iterator

# Attribute of an error that stopped a command which continues where it was.
_RESUMES = "ppvit_resumes"

# Titles of the optional libraries, by the modules that are imported.
_LIBRARIES = {
    "apache_beam": "Apache Beam",
    "huggingface_hub": "huggingface_hub",
    "matplotlib": "matplotlib",
    "mlflow": "MLflow",
    "onnx": "onnx",
    "pyarrow": "pyarrow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "PyTorch",
    "wandb": "wandb",
}


class UserError(ValueError):
    """Something that the user can put right; the message is one line that says what is wrong and what to do.

    The entry points print the message without a traceback and exit with status 1.
    """


@contextlib.contextmanager
def resuming() -> Iterator[None]:
    """Marks every error in this context, so that its message tells the user to run the same command again.

    Use it as a decorator of commands that continue where an error or the user stopped them.
    """
    try:
        yield
    except BaseException as error:
        setattr(error, _RESUMES, True)
        raise


def resumes(error: BaseException) -> bool:
    """Returns True if the command that this error stopped continues when it is run again."""
    return hasattr(error, _RESUMES)


@dataclasses.dataclass(frozen=True)
class Range:
    """Range of a number.

    Attributes:
      least, most: the smallest and the largest number, which belong to the range.
      above, below: bounds that do not belong to it; None for none.
      whole: True for whole numbers alone.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float | None = None
    below: float | None = None
    whole: bool = False

    def check(self, name: str, value: object) -> None:
        """Checks that a value is a number inside the range; True and False are no numbers.

        Args:
          name: the number's name, as the message begins, such as "--batch-size" or "config.epochs".
          value: the number.

        Raises:
          UserError: the value is outside the range, not finite, or no number.
        """
        kinds = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < math.inf:
            raise UserError(f"{name} is {value!r}: give {'a whole' if self.whole else 'a'} number{self._bounds}")
        if value < self.least:
            raise UserError(f"{name} is {value}: give at least {self.least}")
        if value > self.most:
            raise UserError(f"{name} is {value}: give at most {self.most}")
        if self.above is not None and value <= self.above:
            wanted = f"a number above {self.above}" if self.above else "a positive number"
            raise UserError(f"{name} is {value}: give {wanted}")
        if self.below is not None and value >= self.below:
            raise UserError(f"{name} is {value}: give less than {self.below}")

    @property
    def _bounds(self) -> str:
        bounds = [
            f"{word} {bound}"
            for word, bound in (("at least", self.least), ("above", self.above), ("below", self.below))
            if bound not in (None, -math.inf)
        ]
        return f" that is {' and '.join(bounds)}" if bounds else ""


# Whole numbers that JAX counts in 32 bits with a sign, and seeds, which may have 63.
COUNT = Range(1, 2**31 - 1, whole=True)
COUNT_OR_NONE = Range(0, 2**31 - 1, whole=True)
SEED = Range(0, 2**63 - 1, whole=True)
# Side of an image in pixels, up to that of the largest square that Pillow opens.
SIDE = Range(1, 13_377, whole=True)


def is_installed(module: str) -> bool:
    """Returns True if a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def require(purpose: str, extra: str, *modules: str, instead: str = "") -> None:
    """Makes sure that optional libraries are installed, before the work that needs them begins.

    Args:
      purpose: the thing that needs them, as the message begins, such as "ppvit audit".
      extra: the extra of this package that installs them, such as "audit".
      modules: their top-level modules, such as "sklearn".
      instead: something else that the user can do, such as "give --image FILE".

    Raises:
      UserError: one is missing. The message has the command that installs it.
    """
    if missing := [_LIBRARIES[module] for module in modules if not is_installed(module)]:
        alternative = f", or {instead}" if instead else ""
        raise UserError(f"{purpose} needs {', '.join(missing)}: run pip install 'ppvit-jax[{extra}]'{alternative}")


def print_note(text: str) -> None:
    """Prints one line on standard error about something that was assumed, chosen or left out."""
    print(f"note: {' '.join(text.split())}", file=sys.stderr)


def print_warning(text: str) -> None:
    """Prints one line on standard error about something that may make a result wrong."""
    print(f"warning: {' '.join(text.split())}", file=sys.stderr)
