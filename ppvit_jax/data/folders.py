"""Listing of a folder of images: splits, classes, images without a class, and files that are left out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ppvit_jax.data import formats
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


def printable(name: str) -> str:
    """Returns a file's name for a message; characters that would spoil the line are escaped."""
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode()


def _arrange(listing: FolderListing, named: frozenset[str]) -> FolderListing:
    """Finds out which folders are splits and which are classes, and adds this to the listing."""
    ranges, loose = _group(listing.images, range(len(listing.images)), 0)
    inside = {name: _group(listing.images, positions, 1) for name, positions in ranges.items()}
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
    depth = 0 if loose or not ranges else 1
    return dataclasses.replace(
        listing, splits=(split,), depth=depth, fault=fault or _find_deeper_classes(listing, inside), stray=stray
    )


def _with_splits(
    listing: FolderListing,
    inside: Mapping[str, tuple[dict[str, range], list[int]]],
    roles: Mapping[str, str],
    loose: Sequence[int],
) -> FolderListing:
    splits = tuple(SplitFolder(name, roles[name], classes, tuple(free)) for name, (classes, free) in inside.items())
    whole = {name for split in splits if split.role == TRAIN or not split.unlabeled for name in split.classes}
    fault = stray = ""
    for split in splits:
        if unsure := [name for name in split.classes if split.unlabeled and name not in whole]:
            image = printable(listing.images[split.unlabeled[0]])
            stray = (
                f"{listing.root / image} lies beside the folder {printable(unsure[0])}, which is no class of another "
                "split: move the image or the folder away, or add --keep-names"
            )
    labels = {name for split in splits for name in split.classes}
    if len(labels) == 1:
        (label,) = labels
        wrappers = (_find_wrapper(listing, f"{s.name}/{label}", s.classes[label], 2) for s in splits if s.classes)
        fault = next(filter(None, wrappers), "")
    return dataclasses.replace(listing, splits=splits, unlabeled=tuple(loose), depth=2, fault=fault, stray=stray)


def _find_deeper_classes(listing: FolderListing, inside: Mapping[str, tuple[dict[str, range], list[int]]]) -> str:
    """Describes folders at the top that hold only folders, which seem to be the classes; "" if there are none."""
    if not inside or any(free for _, free in inside.values()):
        return ""
    if len(inside) == 1:
        name = next(iter(inside))
        return _find_wrapper(listing, name, range(len(listing.images)), 1)
    for (one, (first, _)), (other, (second, _)) in itertools.combinations(itertools.islice(inside.items(), 20), 2):
        shared = [name for name in first if name in second]
        if len(shared) > 1:
            return (
                f"{listing.root / printable(one)} and {printable(other)} hold only folders, such as "
                f"{printable(shared[0])} and {printable(shared[1])}, so either may be the classes: rename the folders "
                "of a split to train and test, or move the images of a class into its folder"
            )
    return ""


def _find_wrapper(listing: FolderListing, folder: str, positions: range, level: int) -> str:
    """Describes the only class folder if it holds several folders, which seem to be the classes; "" if not."""
    folders, free = _group(listing.images, positions, level)
    if free or len(folders) < 2:
        return ""
    names = [printable(name) for name in itertools.islice(folders, 2)]
    return (
        f"{listing.root / printable(folder)} is the only class folder, but it holds only folders, such as {names[0]} "
        f"and {names[1]}: give that folder, or move its folders up"
    )


def _group(images: Sequence[str], positions: range, level: int) -> tuple[dict[str, range], list[int]]:
    """Groups images by the folder at a level of their paths.

    Returns:
      The positions of the images below each folder, and the positions of the images without a folder at this level.
    """
    folders: dict[str, range] = {}
    free = []

    def name(position: int) -> str:
        parts = images[position].split("/", level + 1)
        return parts[level] if len(parts) > level + 1 else ""

    for key, members in itertools.groupby(positions, name):
        if key:
            first = next(members)
            folders[key] = range(first, first + 1 + sum(1 for _ in members))
        else:
            free += members
    return folders, free
