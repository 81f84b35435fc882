"""Result of writing a folder of images: numbers of images, images that were left out, and classes that were lost."""

from __future__ import annotations

import dataclasses

from ppvit_jax.data.listing import Images
from ppvit_jax.errors import UserError
from ppvit_jax.offline.journal import Journal


@dataclasses.dataclass(frozen=True)
class Written:
    """Result of writing a folder.

    Attributes:
      count: number of images that were written; the augmented copies of an image count once.
      left_out: the messages about images that were left out by this process.
      lost_classes: the class folders of which no image was written.
    """

    count: int
    left_out: list[str]
    lost_classes: tuple[str, ...] = ()


def summarize(images: Images, journal: Journal, left_out: list[str]) -> Written:
    """Counts the images that were written, and lists the classes without any.

    Raises:
      UserError: no image was written.
    """
    count, folders = 0, set()
    for entry in journal.entries():
        count += bool(entry)
        for name in entry:
            parts = name.split("/")
            folders |= {parts[0], "/".join(parts[:2])}
    if not count:
        example = f", such as {images.item(0).original}" if not left_out else f": {left_out[0]}"
        raise UserError(f"none of the {images.count:,} images in {images.root} can be read{example}")
    classes = images.listing.class_folders() if images.listing else []
    return Written(count, left_out, tuple(name for name in classes if name not in folders))
