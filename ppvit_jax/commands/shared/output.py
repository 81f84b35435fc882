"""Checks of the paths that commands write to."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path


def new_path(text: str, title: str) -> Path:
    """Returns a path to write to.

    Args:
      text: the path, from the command line.
      title: name of its content in messages, such as "the checkpoint".

    Raises:
      UserError: the path exists, or its folder does not.
    """
    path = local_path(text)
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists: choose another name for {title}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it first, or choose another place for {title}")
    return path


def results_folder(text: str) -> Path:
    """Returns a folder for results, and creates it if it does not exist.

    Raises:
      UserError: the folder cannot be created.
    """
    path = local_path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use the output folder {path}: {error.strerror}") from None
    return path


@contextlib.contextmanager
def results_in(text: str) -> Iterator[Path]:
    """Yields a folder for results, as `results_folder`; a folder that it created, and that stays empty, is removed."""
    existed = local_path(text).exists()
    path = results_folder(text)
    try:
        yield path
    finally:
        if not existed:
            # This fails where results have been written.
            with contextlib.suppress(OSError):
                path.rmdir()
