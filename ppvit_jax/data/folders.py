"""Listing of image files below folders and class folders."""

from __future__ import annotations

import os
from pathlib import Path

from ppvit_jax.errors import UserError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

# The path and the class of each image.
LabeledFiles = list[tuple[Path, int]]


def list_images(folder: Path) -> tuple[list[str], int]:
    """Lists all images below a folder, labeled or not, and ignores hidden files.

    Returns:
      The images' paths inside the folder, with "/", ordered part by part; and the number of other files.

    Raises:
      UserError: the folder is missing or holds no image.
    """
    list_subfolders(folder)
    paths, others = _walk(folder)
    if not paths:
        raise UserError(f"{folder} has no images ({', '.join(sorted(EXTENSIONS))}): give a folder of image files")
    return paths, others


def list_class_folders(folder: Path) -> tuple[LabeledFiles, tuple[str, ...]]:
    """Lists the images in a folder of class folders, recursively, and ignores hidden files.

    Returns:
      (path, class) of every image, ordered by class and path; and the class names in ascending order.

    Raises:
      UserError: the folder is missing or holds no class folder, or a class folder holds no image.
    """
    class_names = tuple(sorted(list_subfolders(folder)))
    if not class_names:
        raise UserError(f"{folder} has no class folders: put the images of each class in a folder of its own")
    files: LabeledFiles = []
    for label, class_name in enumerate(class_names):
        paths, _ = _walk(folder / class_name)
        if not paths:
            raise UserError(
                f"the class folder {folder / class_name} has no image ({', '.join(sorted(EXTENSIONS))}): "
                "add one or remove the folder"
            )
        files.extend((folder / class_name / path, label) for path in paths)
    return files, class_names


def list_subfolders(folder: Path) -> set[str]:
    """Returns the names of the folders in a folder, except hidden ones.

    Raises:
      UserError: the folder cannot be read.
    """
    try:
        return {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}): check data.dir") from error


def _walk(folder: Path) -> tuple[list[str], int]:
    """Returns the result of `list_images`. Paths are strings, which are small, because there may be millions."""
    images, others, visited = [], 0, set()
    for root, folders, names in os.walk(folder, followlinks=True):
        # Without this check, a symbolic link to a folder above would be followed forever.
        place = os.path.realpath(root)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = [name for name in names if not name.startswith(".")]
        chosen = [name for name in visible if Path(name).suffix.lower() in EXTENSIONS]
        prefix = Path(root).relative_to(folder)
        images += [(prefix / name).as_posix() for name in chosen]
        others += len(visible) - len(chosen)
    # Ordered part by part: the separator sorts before every other character.
    images.sort(key=lambda path: path.replace("/", "\0"))
    return images, others
