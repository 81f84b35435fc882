"""What a worker of a pipeline does: opens the key and the input by their paths, and encrypts what it is told to."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import PIL

import ppvit_jax
from ppvit_jax import keys
from ppvit_jax.data.listing import Decoding, Images, Item, open_tfds, read_file
from ppvit_jax.data.manifest import UNFINISHED
from ppvit_jax.encryption import create
from ppvit_jax.errors import UserError
from ppvit_jax.offline.journal import Record
from ppvit_jax.offline.outputs import list_shards, write_image, write_shard
from ppvit_jax.offline.permute import Recipe, encrypting

_LIST = "images"
# Of the list; as many elements are in the graph, which services limit to some MB.
_MAX_CHUNKS = 1000


@dataclasses.dataclass(frozen=True)
class Task:
    """What workers are told. It must not hold a secret.

    Attributes:
        output: the output folder.
        root: the folder of the input; of a tfds data set the version's.
        splits: of a tfds data set; None for files.
        decoding: how to read images.
        key_file, passphrase_file: paths that workers open.
        key_fingerprint: of the key that should be there.
        encryption: name and options.
        image_size, patch_size: in pixels.
        copies, augmentation, seed: see `Recipe`.
        skip_unreadable: leave out what cannot be read, instead of stopping there.
        versions: of the packages that decide the bytes of the output.
    """

    output: Path
    root: Path
    splits: tuple[str, ...] | None
    decoding: Decoding
    key_file: Path
    passphrase_file: Path | None
    key_fingerprint: str
    encryption: str
    image_size: int
    patch_size: int
    copies: int
    augmentation: str
    seed: int
    skip_unreadable: bool
    versions: str = dataclasses.field(default_factory=lambda: _versions())

    @property
    def unfinished(self) -> Path:
        """The folder of what is being written, and of records; see `Journal`."""
        return self.output / UNFINISHED


def open_task(task: Task) -> Callable[[int], tuple[int, Record]]:
    """Opens key and input.

    Returns:
        What writes one image, by the offset of its line in the list, or one shard, by its number; it returns the
        place of the entry in the journal, and the entry.

    Raises:
        UserError: the key cannot be opened or is another, or the worker's packages are others. What is returned
            raises it for what cannot be read.
    """
    if (found := _versions()) != task.versions:
        raise UserError(f"a worker has {found}, and this machine {task.versions}: install the same")
    passphrase = keys.read_passphrase(task.passphrase_file) if task.passphrase_file else None
    key = keys.load(task.key_file, passphrase)
    if key.fingerprint != task.key_fingerprint:
        raise UserError(
            f"{task.key_file} on a worker has fingerprint {key.fingerprint}, and on this machine "
            f"{task.key_fingerprint}: give workers the same key"
        )
    method = create(task.encryption, task.patch_size)
    size = task.image_size
    recipe = Recipe(
        size,
        encrypting(method, method.derive(key, height=size, width=size)),
        copies=task.copies,
        augmentation=task.augmentation,
        seed=task.seed,
    )

    def image(offset: int) -> tuple[int, Record]:
        with (task.unfinished / _LIST).open("rb") as file:
            file.seek(offset)
            item = Item(**json.loads(file.readline()))
        try:
            pixels = read_file(task.root / item.original, task.decoding, item.sha256)
        except UserError as error:
            if not task.skip_unreadable:
                raise
            return item.number, Record({}, [str(error)])
        return item.number, write_image(pixels, item, recipe, task.output)

    if task.splits is None:
        return image
    images = open_tfds(task.root, task.splits, task.decoding, checks=False)
    shards = list_shards(images)

    def shard(number: int) -> tuple[int, Record]:
        record = write_shard(
            images,
            shards[number],
            recipe,
            task.output,
            skip_unreadable=task.skip_unreadable,
            update=lambda _: None,
        )
        return number, record

    return shard


def write_list(task: Task, images: Images, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Lists images for the workers, one a line; returns (offset, count) of each piece of the list."""
    size = -(-len(numbers) // _MAX_CHUNKS)
    chunks = []
    with (task.unfinished / _LIST).open("wb") as file:
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            chunks.append((file.tell(), len(part)))
            file.writelines(f"{json.dumps(dataclasses.asdict(images.item(number)))}\n".encode() for number in part)
    return chunks


def offsets(chunk: tuple[int, int], task: Task) -> Iterator[int]:
    """The offset of each line of a piece of the list."""
    offset, count = chunk
    with (task.unfinished / _LIST).open("rb") as file:
        file.seek(offset)
        for _ in range(count):
            yield offset
            offset += len(file.readline())


def _versions() -> str:
    return f"ppvit-jax {ppvit_jax.__version__}, pillow {PIL.__version__}, jax {importlib.metadata.version('jax')}"
