"""The exception for mistakes of the user, the mark of commands that resume, and the check for optional libraries."""

import contextlib
import importlib.util
from collections.abc import Iterator

# Attribute of an error that stopped a command which continues where it was.
_RESUMES = "ppvit_resumes"

# Titles of the optional libraries, by the modules that are imported.
_LIBRARIES = {
    "apache_beam": "Apache Beam",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "PyTorch",
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
