"""Listing of a folder of images: splits, classes, images without a class, and files that are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ppvit_jax.data import formats
from ppvit_jax.data.class_depth import find_deeper_classes, group_by_folder, printable
from ppvit_jax.data.splits import TEST, TRAIN, split_role
from ppvit_jax.data.walk import FORBIDDEN, OTHER, LeftOut, walk
from ppvit_jax.errors import UserError

# The path and the class of each image.
LabeledFiles = list[tuple[Path, int]]


@dataclasses.dataclass(frozen=True)
class SplitFolder:
    """One split, or a whole folder without splits.

    Attributes:
      name: path of the split inside the listed folder; "" for a folder without splits.
      role: result of `split_role`; "" for other splits and for a folder without splits.
      classes: positions of the images of each class, among all images.
      unlabeled: positions of the images that lie in no class folder.
    """

    name: str
    role: str
    classes: Mapping[str, range]
    unlabeled: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(map(len, self.classes.values())) + len(self.unlabeled)


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """Images of a folder, with their places.

    Attributes:
      root: the folder.
      images: paths of the images inside it, with "/", ordered part by part.
      folders: paths of the visible folders, down to the second level, with images or without.
      left_out: files that are left out, with the reason.
      splits: all splits, in order; a single one with the name "" for a folder without splits.
      unlabeled: positions of the images that lie beside the splits.
      depth: number of leading folders that name splits and classes; 0, 1 or 2.
      fault: reason why split and class folders cannot be told apart; "" if they can.
      stray: reason why folders beside images may be no classes; "" if there is none.
      doubt: description of folders inside class folders that may be the classes; "" if there are none.
    """

    root: Path
    images: Sequence[str]
    folders: frozenset[str]
    left_out: tuple[LeftOut, ...]
    splits: tuple[SplitFolder, ...]
    unlabeled: tuple[int, ...] = ()
    depth: int = 1
    fault: str = ""
    stray: str = ""
    doubt: str = ""

    @property
    def has_splits(self) -> bool:
        """True if the folders at the top are splits."""
        return bool(self.splits[0].name)

    def class_folders(self) -> list[str]:
        """Returns the paths of the class folders with images, inside the folder."""
        return [f"{split.name}/{name}" if split.name else name for split in self.splits for name in split.classes]

    def folders_without_images(self) -> dict[str, tuple[LeftOut, ...]]:
        """Returns the folders that hold no image where a split or a class is expected, with the files in each."""
        above = {split.name for split in self.splits if split.classes}
        present = {*self.class_folders(), *(split.name for split in self.splits)}
        return {
            folder: tuple(part for part in self.left_out if f"{part.folder}/".startswith(f"{folder}/"))
            for folder in sorted(self.folders - present)
            if folder.rpartition("/")[0] in above or (self.has_splits and split_role(folder))
        }

    def check_labels(self) -> None:
        """Makes sure that no class is lost.

        Raises:
          UserError: splits and classes cannot be told apart, or a class folder has only pictures that cannot be read.
        """
        if self.fault:
            raise UserError(self.fault)
        for folder, inside in self.folders_without_images().items():
            if any(part.ending not in formats.OTHER_ENDINGS for part in inside if part.reason in (OTHER, FORBIDDEN)):
                raise UserError(
                    f"the folder {self.root / folder} has files but no image that can be read "
                    f"({describe_left_out(inside)}): convert them, or move the folder away"
                )


def list_folder(
    folder: Path, *, named: Iterable[str] = (), ignored: Iterable[str] = (), skip_unreadable: bool = False
) -> FolderListing:
    """Lists the images below a folder.

    Args:
      folder: the folder.
      named: names of folders at its top that are splits whatever they are called.
      ignored, skip_unreadable: see `walk`.

    Raises:
      UserError: the folder or a folder inside cannot be read, or a link that may be an image leads nowhere.
    """
    files = walk(folder, ignored=ignored, skip_unreadable=skip_unreadable)
    listing = FolderListing(folder, files.images, files.folders, files.left_out, ())
    return _arrange(listing, frozenset(named))


def describe_left_out(parts: Iterable[LeftOut]) -> str:
    """Returns the numbers of files that are left out, such as ".txt: 3, hidden: 2 (such as .DS_Store)"."""
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], str] = {}
    for part in parts:
        key = part.reason, part.ending
        counts[key] = counts.get(key, 0) + part.count
        examples.setdefault(key, part.example)
    texts = []
    for (reason, ending), count in sorted(counts.items()):
        note = " (Pillow cannot read them here)" if formats.is_picture_that_cannot_be_read(ending) else ""
        if reason or not ending:
            note = f" (such as {printable(examples[reason, ending])})"
        texts.append(f"{reason or printable(ending) or 'files without an ending'}: {count:,}{note}")
    return ", ".join(texts)


def _arrange(listing: FolderListing, named: frozenset[str]) -> FolderListing:
    """Finds out which folders are splits and which are classes, and adds this to the listing."""
    ranges, loose = group_by_folder(listing.images, range(len(listing.images)), 0)
    inside = {name: group_by_folder(listing.images, positions, 1) for name, positions in ranges.items()}
    roles = {name: split_role(name) for name in ranges}
    usual = [name for name, role in roles.items() if role]
    splits = [name for name in usual if roles[name] in (TRAIN, TEST) and inside[name][0]]
    flat = [name for name in ranges if not roles[name] and not inside[name][0]]
    is_split_layout = usual and (len(usual) == len(ranges) or (splits and not (len(usual) == 1 and flat)))
    if is_split_layout or named & ranges.keys():
        return _with_splits(listing, inside, roles, loose)
    fault = ""
    if splits:
        fault = (
            f"{listing.root / splits[0]} has class folders, but {listing.root / flat[0]} beside it has images: move "
            "one of them away"
        )
    elif ambiguous := [name for name in ranges if name.lower() in (TRAIN, TEST)]:
        fault = (
            f"{listing.root / ambiguous[0]} may be a class or a split, because it lies beside "
            f"{printable(next(name for name in ranges if name not in ambiguous))} and has no class folders: rename it, "
            f"such as to {ambiguous[0]}_class"
        )
    stray = ""
    if loose and ranges:
        stray = (
            f"{listing.root / printable(listing.images[loose[0]])} lies beside the folder "
            f"{printable(next(iter(ranges)))}: if folders are classes, move such images into one; if not, add "
            "--keep-names, or move all images to one folder"
        )
    split = SplitFolder("", "", ranges, tuple(loose))
    deeper, doubt = find_deeper_classes(listing.root, listing.images, ranges, 1, is_only=len(ranges) == 1)
    return dataclasses.replace(
        listing,
        splits=(split,),
        depth=0 if loose or not ranges else 1,
        fault=fault or deeper,
        stray=stray,
        doubt=doubt,
    )


def _with_splits(
    listing: FolderListing,
    inside: Mapping[str, tuple[dict[str, range], list[int]]],
    roles: Mapping[str, str],
    loose: Sequence[int],
) -> FolderListing:
    splits = tuple(SplitFolder(name, roles[name], classes, tuple(free)) for name, (classes, free) in inside.items())
    whole = {name for split in splits if split.role == TRAIN or not split.unlabeled for name in split.classes}
    stray = ""
    for split in splits:
        if unsure := [name for name in split.classes if split.unlabeled and name not in whole]:
            image = printable(listing.images[split.unlabeled[0]])
            stray = (
                f"{listing.root / image} lies beside the folder {printable(unsure[0])}, which is no class of another "
                "split: move the image or the folder away, or add --keep-names"
            )
    is_only = len({name for split in splits for name in split.classes}) == 1
    training = [split for split in splits if split.role == TRAIN] or splits
    checks = [
        find_deeper_classes(listing.root, listing.images, split.classes, 2, is_only=is_only) for split in training
    ]
    fault, doubt = (next(filter(None, texts), "") for texts in zip(*checks, strict=True))
    return dataclasses.replace(
        listing, splits=splits, unlabeled=tuple(loose), depth=2, fault=fault, stray=stray, doubt=doubt
    )
