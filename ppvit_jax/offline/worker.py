"""Work of a pipeline's worker, which opens the key and the input by their paths and encrypts the images of its task."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import PIL

import ppvit_jax
from ppvit_jax import keys
from ppvit_jax.data.images import ImageReader
from ppvit_jax.data.listing import Images, Item, open_tfds
from ppvit_jax.data.manifest import UNFINISHED
from ppvit_jax.encryption import parse
from ppvit_jax.errors import UserError
from ppvit_jax.offline.journal import Record
from ppvit_jax.offline.outputs import list_shards, write_image, write_shard
from ppvit_jax.offline.recipe import Augmentation, Recipe, make_encryptor

_LIST = "images"
# Pieces of the list; each is an element of the graph, whose size services limit to a few MB.
_MAX_CHUNKS = 1000


@dataclasses.dataclass(frozen=True)
class KeyFile:
    """Paths that workers open.

    Attributes:
      path: path of the key file.
      passphrase_file: path of the file with the passphrase of a sealed key, or None.
      fingerprint: fingerprint of the expected key.
    """

    path: Path
    passphrase_file: Path | None
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Task:
    """Description of the work that all workers share. It must not hold a secret.

    Attributes:
      output: the output folder.
      root: the folder of the input; for a tfds data set its version folder.
      splits: the splits of a tfds data set; None for files.
      reader: decodes the images.
      key: the key's file.
      encryption: the encryption's name and options.
      image_size, block_size: in pixels.
      augmentation, skip_unreadable: see `Recipe`.
      versions: versions of the packages that decide the bytes of the output.
    """

    output: Path
    root: Path
    splits: tuple[str, ...] | None
    reader: ImageReader
    key: KeyFile
    encryption: str
    image_size: int
    block_size: int
    augmentation: Augmentation
    skip_unreadable: bool
    versions: str = dataclasses.field(default_factory=lambda: _versions())

    @property
    def unfinished(self) -> Path:
        """Folder of files being written and of records; see `Journal`."""
        return self.output / UNFINISHED


def open_task(task: Task) -> Callable[[int], tuple[int, Record]]:
    """Opens the key and the input.

    Returns:
      A function that writes one image, given the offset of its line in the list, or one shard, given its number. It
      returns the place of the entry in the journal, and the entry. It raises UserError for images that cannot be read.

    Raises:
      UserError: the key cannot be opened or is not the expected one, or the worker's packages have other versions.
    """
    if (versions := _versions()) != task.versions:
        raise UserError(f"a worker has {versions}, but this machine has {task.versions}: install the same versions")
    passphrase = keys.read_passphrase(task.key.passphrase_file) if task.key.passphrase_file else None
    key = keys.load(task.key.path, passphrase)
    if key.fingerprint != task.key.fingerprint:
        raise UserError(
            f"{task.key.path} on a worker has fingerprint {key.fingerprint}, but on this machine "
            f"{task.key.fingerprint}: give workers the same key"
        )
    method = parse(task.encryption, task.block_size)
    size = task.image_size
    encryptor = make_encryptor(method, method.derive(key, height=size, width=size))
    recipe = Recipe(size, encryptor, augmentation=task.augmentation, skip_unreadable=task.skip_unreadable)

    def encrypt_image(offset: int) -> tuple[int, Record]:
        with (task.unfinished / _LIST).open("rb") as file:
            file.seek(offset)
            item = Item(**json.loads(file.readline()))
        try:
            image = task.reader.read(task.root / item.original, item.sha256)
        except UserError as error:
            if not task.skip_unreadable:
                raise
            return item.number, Record({}, [str(error)])
        return item.number, write_image(image, item, recipe, task.output)

    if task.splits is None:
        return encrypt_image
    images = open_tfds(task.root, task.splits, task.reader, checks=False)
    shards = list_shards(images)

    def encrypt_shard(number: int) -> tuple[int, Record]:
        return number, write_shard(images, shards[number], recipe, task.output, update=lambda _: None)

    return encrypt_shard


def write_list(task: Task, images: Images, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Lists images for the workers, one a line; returns the (offset, count) of each piece of the list."""
    size = -(-len(numbers) // _MAX_CHUNKS)
    chunks = []
    with (task.unfinished / _LIST).open("wb") as file:
        for start in range(0, len(numbers), size):
            chunk = numbers[start : start + size]
            chunks.append((file.tell(), len(chunk)))
            file.writelines(f"{json.dumps(dataclasses.asdict(images.item(number)))}\n".encode() for number in chunk)
    return chunks


def offsets(chunk: tuple[int, int], task: Task) -> Iterator[int]:
    """Yields the offset of each line of a piece of the list."""
    offset, count = chunk
    with (task.unfinished / _LIST).open("rb") as file:
        file.seek(offset)
        for _ in range(count):
            yield offset
            offset += len(file.readline())


def _versions() -> str:
    return f"ppvit-jax {ppvit_jax.__version__}, pillow {PIL.__version__}, jax {importlib.metadata.version('jax')}"
