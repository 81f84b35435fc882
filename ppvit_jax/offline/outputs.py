"""What comes out: a folder of PNG files, or a data set for tensorflow-datasets; both with a manifest."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError
from ppvit_jax.offline.inputs import Images, Split
from ppvit_jax.offline.journal import Journal
from ppvit_jax.offline.permute import Recipe, in_threads

_T = TypeVar("_T")
_SHARD_EXAMPLES = 1000


def write_files(images: Images, recipe: Recipe, journal: Journal, *, what: str, skip_unreadable: bool) -> list[str]:
    """Writes PNG files and the manifest; continues what the journal has.

    Args:
        images: what goes in; the name "cat/00000012" becomes the file "cat/00000012.png", or with copies
            "cat/00000012_0.png" and so on.
        recipe: what happens to each.
        journal: of the output folder.
        what: for the progress, such as "encrypting".
        skip_unreadable: leave out what cannot be read, instead of stopping there.

    Returns:
        The messages about what was left out.

    Raises:
        UserError: an image cannot be read.
        OSError: the disk cannot be written.
    """
    left_out: list[str] = []

    def work(number: int) -> dict[str, str]:
        split, index = images.locate(number)
        contents, _ = _make(recipe, split, index, number)
        name = split.output(index)
        copied = recipe.copies > 0 and split.is_training
        entry = {}
        for copy, content in enumerate(contents):
            file_name = f"{name}_{copy}.png" if copied else f"{name}.png"
            path = journal.folder / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.tmp")
            aside.write_bytes(content)
            aside.replace(path)
            entry[file_name] = hashlib.sha256(content).hexdigest()
        return entry

    progress = Progress(what, images.count, begun=journal.done)
    with contextlib.closing(
        _results(work, range(journal.done, images.count), left_out if skip_unreadable else None)
    ) as results:
        for number, entry in results:
            journal.add(entry or {})
            progress.update(number + 1)
    progress.close()
    journal.finish()
    return left_out


def write_tfds(images: Images, recipe: Recipe, journal: Journal, *, what: str, skip_unreadable: bool) -> list[str]:
    """Writes array_record files of PNG images that tfds reads, and the manifest; continues what the journal has.

    The features are `image` and `label` alone. A file holds up to 1,000 images with their copies, and is written or
    repeated as a whole. Arguments, result and errors are those of `write_files`.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    assert images.dataset is not None
    name, _, class_names = images.dataset
    features: Any = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(recipe.image_size, recipe.image_size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=class_names),
        }
    )
    shards: list[tuple[str, Split, int, range]] = []
    total = 0
    for split in images.splits:
        count = split.count
        starts = range(0, count, _SHARD_EXAMPLES)
        for number, start in enumerate(starts):
            file_name = f"{name}-{split.name}.array_record-{number:05d}-of-{len(starts):05d}"
            shards.append((file_name, split, total, range(start, min(start + _SHARD_EXAMPLES, count))))
        total += count
    left_out: list[str] = []
    progress = Progress(what, total, begun=sum(len(members) for *_, members in shards[: journal.done]))
    for file_name, split, before, members in shards[journal.done :]:

        def work(index: int, split: Split = split, before: int = before) -> list[bytes]:
            contents, label = _make(recipe, split, index, before + index)
            return [
                features.serialize_example(features.encode_example({"image": content, "label": label}))
                for content in contents
            ]

        aside = journal.folder / f".{file_name}.tmp"
        try:
            writer = ArrayRecordWriter(str(aside), "group_size:1")
            with contextlib.closing(_results(work, members, left_out if skip_unreadable else None)) as results:
                for index, examples in results:
                    for example in examples or ():
                        writer.write(example)
                    progress.update(before + index + 1)
            writer.close()
        # What array_record raises for a disk that is full or fails.
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot write {aside} ({reason}); run the same command again to continue") from None
        aside.replace(journal.folder / file_name)
        journal.add(_sha256(journal.folder, [file_name]))
    progress.close()
    if journal.done == len(shards):
        _write_metadata(images, features, journal.folder)
        journal.add(_sha256(journal.folder, ["dataset_info.json", "features.json", "label.labels.txt"]))
    journal.finish()
    return left_out


def _write_metadata(images: Images, features: Any, folder: Path) -> None:
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader
    from etils import epath

    assert images.dataset is not None
    name, version, _ = images.dataset
    splits = []
    for split in images.splits:
        files = sorted(folder.glob(f"{name}-{split.name}.array_record-*"))
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(folder), dataset_name=name, split=split.name, filetype_suffix="array_record"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split.name,
                shard_lengths=[ArrayRecordReader(str(file)).num_records() for file in files],
                num_bytes=sum(file.stat().st_size for file in files),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        version=version,
        # It would read with TensorFlow.
        check_data=False,
    )


def _make(recipe: Recipe, split: Split, index: int, number: int) -> tuple[list[bytes], int | None]:
    image, label = split.read(index)
    return recipe.apply(image, number, split.original(index), split.is_training), label


def _results(
    work: Callable[[int], _T], numbers: Iterable[int], left_out: list[str] | None
) -> Generator[tuple[int, _T | None]]:
    """As `in_threads`; with a list for messages, an image that cannot be read gives None instead of an end."""

    def guarded(number: int) -> _T | UserError:
        try:
            return work(number)
        except UserError as error:
            return error

    with contextlib.closing(in_threads(guarded, numbers)) as results:
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
