"""Output folders: PNG files, or a data set for tensorflow-datasets; both with a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.data.listing import Images, Item, Split
from ppvit_jax.data.manifest import UNFINISHED
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError
from ppvit_jax.files import written_aside
from ppvit_jax.offline.journal import Journal, Record
from ppvit_jax.offline.recipe import Recipe
from ppvit_jax.offline.threads import T, run_in_threads
from ppvit_jax.offline.written import Written, summarize

_SHARD_EXAMPLES = 1000


def write_files(images: Images, recipe: Recipe, journal: Journal, *, activity: str) -> Written:
    """Writes PNG files and the manifest; continues the journal.

    Args:
      images: the input; the image "cat/00000012" becomes the file "cat/00000012.png", or with copies
        "cat/00000012_0.png" and so on.
      recipe: turns each image into its files.
      journal: the journal of the output folder.
      activity: word for the progress line, such as "encrypting".

    Raises:
      UserError: an image cannot be read, or none can.
      OSError: the disk cannot be written.
    """

    def work(number: int) -> Record:
        if record := journal.record(number):
            return record
        split, index = images.locate(number)
        return write_image(split.read(index)[0], images.item(number), recipe, journal.folder)

    left_out: list[str] = []
    progress = Progress(activity, images.count, begun=journal.done)
    numbers = range(journal.done, images.count)
    with contextlib.closing(_results(work, numbers, left_out if recipe.skip_unreadable else None)) as results:
        for number, record in results:
            if record:
                left_out += record.left_out
            journal.add(record.files if record else {})
            progress.update(number + 1)
    progress.close()
    written = summarize(images, journal, left_out) if recipe.skip_unreadable else Written(images.count, left_out)
    journal.finish()
    return written


def write_image(image: np.ndarray, item: Item, recipe: Recipe, folder: Path) -> Record:
    """Writes the PNG files of one image.

    Args:
      image: uint8 [height, width, 3].
      item: its number and names.
      recipe: turns the image into its files.
      folder: the output folder. A file appears in it at once and whole, even if several processes write it.

    Raises:
      UserError: see `Recipe.apply`.
      OSError: the disk cannot be written.
    """
    files = {}
    for copy, content in enumerate(recipe.apply(image, item.number, item.original, item.augments)):
        augmented = recipe.augmentation.copies and item.augments
        name = f"{item.output}_{copy}.png" if augmented else f"{item.output}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with written_aside(folder / name, folder / UNFINISHED) as aside:
            aside.write_bytes(content)
        files[name] = hashlib.sha256(content).hexdigest()
    return Record(files, [])


def write_tfds(images: Images, recipe: Recipe, journal: Journal, *, activity: str) -> Written:
    """Writes array_record files of PNG images that tfds reads, and the manifest; continues the journal.

    The features are `image` and `label` alone. A file holds up to 1,000 images with their copies; it is written, or
    written again, as a whole. Arguments, result and errors are those of `write_files`.
    """
    shards = list_shards(images)
    left_out: list[str] = []
    progress = Progress(activity, images.count, begun=sum(len(shard.members) for shard in shards[: journal.done]))
    for number, shard in enumerate(shards[journal.done :], start=journal.done):
        record = journal.record(number) or write_shard(images, shard, recipe, journal.folder, update=progress.update)
        left_out += record.left_out
        journal.add(record.files)
    progress.close()
    if journal.done == len(shards):
        _write_metadata(images, recipe, journal.folder)
        journal.add(_sha256(journal.folder, ["dataset_info.json", "features.json", "label.labels.txt"]))
    count = images.count
    if recipe.skip_unreadable:
        lengths = _shard_lengths(images, journal.folder)
        count = sum(
            sum(lengths[split.name]) // (max(recipe.augmentation.copies, 1) if split.is_training else 1)
            for split in images.splits
        )
    journal.finish()
    return Written(count, left_out)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of a data set.

    Attributes:
      name: the file's name.
      split: the split that it belongs to.
      first: the place of its first image among all images.
      members: the places of its images in the split.
    """

    name: str
    split: Split
    first: int
    members: range


def list_shards(images: Images) -> list[Shard]:
    """Lists the files of an encrypted tfds data set, each with up to 1,000 images."""
    assert images.tfds is not None
    shards = []
    first = 0
    for split in images.splits:
        starts = range(0, split.count, _SHARD_EXAMPLES)
        for number, start in enumerate(starts):
            name = f"{images.tfds.name}-{split.name}.array_record-{number:05d}-of-{len(starts):05d}"
            members = range(start, min(start + _SHARD_EXAMPLES, split.count))
            shards.append(Shard(name, split, first, members))
            first += len(members)
    return shards


def write_shard(images: Images, shard: Shard, recipe: Recipe, folder: Path, *, update: Callable[[int], None]) -> Record:
    """Writes one file of a data set.

    Args:
      images: the input.
      shard: the file, and the places of its images.
      recipe: turns each image into its examples.
      folder: the output folder. The file appears in it at once and whole, even if several processes write it.
      update: is called with the number of images that are done.

    Raises:
      UserError: an image cannot be read, or the disk cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    features = _features(images, recipe)
    offset = shard.first - shard.members.start

    def work(index: int) -> list[bytes]:
        image, label = shard.split.read(index)
        contents = recipe.apply(image, offset + index, shard.split.original(index), shard.split.is_training)
        return [
            features.serialize_example(features.encode_example({"image": content, "label": label}))
            for content in contents
        ]

    left_out: list[str] = []
    with written_aside(folder / shard.name, folder / UNFINISHED) as aside:
        try:
            writer = ArrayRecordWriter(str(aside), "group_size:1")
            skipped = left_out if recipe.skip_unreadable else None
            with contextlib.closing(_results(work, shard.members, skipped)) as results:
                for index, examples in results:
                    for example in examples or ():
                        writer.write(example)
                    update(offset + index + 1)
            writer.close()
        # array_record raises this for a disk that is full or fails.
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot write {aside} ({reason}); run the same command again to continue") from None
    return Record(_sha256(folder, [shard.name]), left_out)


def _features(images: Images, recipe: Recipe) -> Any:
    import tensorflow_datasets as tfds

    assert images.tfds is not None
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(recipe.image_size, recipe.image_size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=images.tfds.class_names),
        }
    )


def _shard_files(images: Images, split: Split, folder: Path) -> list[Path]:
    assert images.tfds is not None
    return sorted(folder.glob(f"{images.tfds.name}-{split.name}.array_record-*"))


def _shard_lengths(images: Images, folder: Path) -> dict[str, list[int]]:
    """Returns the numbers of records in the files of each split."""
    from array_record.python.array_record_module import ArrayRecordReader

    return {
        split.name: [ArrayRecordReader(str(file)).num_records() for file in _shard_files(images, split, folder)]
        for split in images.splits
    }


def _write_metadata(images: Images, recipe: Recipe, folder: Path) -> None:
    import tensorflow_datasets as tfds
    from etils import epath

    assert images.tfds is not None
    name = images.tfds.name
    lengths = _shard_lengths(images, folder)
    splits = []
    for split in images.splits:
        files = _shard_files(images, split, folder)
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(folder), dataset_name=name, split=split.name, filetype_suffix="array_record"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split.name,
                shard_lengths=lengths[split.name],
                num_bytes=sum(file.stat().st_size for file in files),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(images, recipe),
        split_infos=splits,
        version=images.tfds.version,
        # The check would read the data with TensorFlow.
        check_data=False,
    )


def _results(
    work: Callable[[int], T], numbers: Iterable[int], left_out: list[str] | None
) -> Generator[tuple[int, T | None]]:
    """Yields as `run_in_threads` does; with a list for messages, an unreadable image gives None and not an error."""

    def guarded(number: int) -> T | UserError:
        try:
            return work(number)
        except UserError as error:
            return error

    with contextlib.closing(run_in_threads(guarded, numbers)) as results:
        for number, result in results:
            if not isinstance(result, UserError):
                yield number, result
            elif left_out is None:
                raise result
            else:
                left_out.append(str(result))
                yield number, None


def _sha256(folder: Path, names: Iterable[str]) -> dict[str, str]:
    entry = {}
    for name in names:
        with (folder / name).open("rb") as file:
            entry[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return entry
