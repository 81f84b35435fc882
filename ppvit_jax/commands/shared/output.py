"""Checks of the paths that commands write to."""

from pathlib import Path

from ppvit_jax.errors import UserError


def new_path(text: str, what: str) -> Path:
    """A path to write to, which must not exist, in a folder that does.

    Raises:
      UserError: it does, or it does not.
    """
    path = Path(text).expanduser()
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists: choose another name for {what}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it first, or choose another place for {what}")
    return path


def results_folder(text: str) -> Path:
    """A folder for results, which is made where it does not exist.

    Raises:
      UserError: it cannot be made.
    """
    path = Path(text).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use the output folder {path}: {error.strerror}") from None
    return path
