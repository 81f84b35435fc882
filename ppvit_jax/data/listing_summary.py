"""Summary of a listed folder on stderr: splits, classes with their numbers of images, and files that are left out."""

from __future__ import annotations

import collections
import itertools
import sys

from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.folders import FolderListing, SplitFolder, describe_left_out
from ppvit_jax.errors import UserError

_SHOWN = 10


def print_summary(listing: FolderListing) -> None:
    """Prints a line for each split, one for the files that are left out, and warnings, on stderr."""
    for line in summarize(listing):
        print(line, file=sys.stderr)


def summarize(listing: FolderListing) -> list[str]:
    """Returns the lines of `print_summary`."""
    lines = [f"{printable(str(listing.root / split.name))}: {_describe(split)}" for split in listing.splits]
    if listing.unlabeled:
        example = printable(listing.images[listing.unlabeled[0]])
        lines.append(
            f"warning: images beside the splits belong to none of them: {len(listing.unlabeled):,}, such as {example}"
        )
    for split in listing.splits:
        if split.classes and split.unlabeled:
            example = printable(listing.images[split.unlabeled[0]])
            lines.append(
                f"warning: images beside class folders belong to no class: {len(split.unlabeled):,}, such as {example}"
            )
    if listing.left_out:
        lines.append(f"left out: {describe_left_out(listing.left_out)}")
    doubts = [listing.doubt] if listing.doubt else []
    return lines + [f"warning: {text}" for text in (*doubts, *_find_twins(listing))]


def check_images(listing: FolderListing) -> None:
    """Raises UserError if a folder has no images."""
    if not listing.images:
        others = f" ({describe_left_out(listing.left_out)})" if listing.left_out else ""
        raise UserError(f"{listing.root} has no images{others}: give a folder of images that Pillow reads")


def _describe(split: SplitFolder) -> str:
    if not split.classes:
        return f"{_count(split.count)}, not in class folders"
    shown = ", ".join(
        f"{printable(name)} ({len(positions):,})" for name, positions in itertools.islice(split.classes.items(), _SHOWN)
    )
    others = f" and {len(split.classes) - _SHOWN:,} others" if len(split.classes) > _SHOWN else ""
    classes = "class" if len(split.classes) == 1 else "classes"
    return f"{_count(split.count - len(split.unlabeled))} in {len(split.classes):,} {classes}: {shown}{others}"


def _count(images: int) -> str:
    return f"{images:,} image{'' if images == 1 else 's'}"


def _find_twins(listing: FolderListing) -> list[str]:
    """Describes classes whose names differ in nothing but capital letters."""
    spellings = collections.defaultdict(set)
    for split in listing.splits:
        for name in split.classes:
            spellings[name.casefold()].add(name)
    return [
        f"{' and '.join(map(printable, sorted(names)))} are different classes, though only capital letters differ"
        for names in spellings.values()
        if len(names) > 1
    ]
