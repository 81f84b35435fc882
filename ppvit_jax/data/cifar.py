"""Preparation of CIFAR-10 and CIFAR-100 in the format of tensorflow-datasets (tfds), without TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError

_URL = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Content of an archive. A record is one byte per label, then 3,072 bytes of pixels, channel by channel."""

    builder: str
    archive: str
    sha256: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: dict[str, str]  # label's key -> file with its class names, in the order of the label bytes
    classes: dict[str, int]


_LAYOUTS = {
    "cifar10": _Layout(
        builder="Cifar10",
        archive="cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test=("test_batch.bin",),
        labels={"label": "batches.meta.txt"},
        classes={"label": 10},
    ),
    "cifar100": _Layout(
        builder="Cifar100",
        archive="cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        labels={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
        classes={"coarse_label": 20, "label": 100},
    ),
}
NAMES = tuple(_LAYOUTS)


def prepare(name: str, root: Path, archive: str | Path | None = None, *, allow_other_archive: bool = False) -> Path:
    """Prepares a data set as array_record files that `tfds.builder(name, data_dir=root)` reads.

    The result is complete or absent: a failure leaves nothing behind. A data set that is already prepared is kept.

    Args:
      name: "cifar10" or "cifar100".
      root: the folder of data sets, from `ppvit_jax.data.tfds_source.data_root`.
      archive: the .tar.gz of CIFAR's binary version; None downloads it.
      allow_other_archive: True accepts an archive whose SHA-256 differs from the published one.

    Returns:
      The folder ROOT/NAME/VERSION.

    Raises:
      UserError: the name is unknown, the download fails, the archive is wrong or damaged, or the folder cannot be
        written.
    """
    if name not in _LAYOUTS:
        raise UserError(f"{name!r} cannot be prepared here: choose among {', '.join(NAMES)}")
    layout = _LAYOUTS[name]
    created, builder = _missing_parents(root / name), None
    try:
        root.mkdir(parents=True, exist_ok=True)
        builder = _builder(layout, root)
        if (builder.data_path / "dataset_info.json").is_file():
            return Path(builder.data_path)
        # Next to the result, because the system's temporary folder is often too small.
        with tempfile.TemporaryDirectory(prefix="ppvit_prepare_", dir=root) as scratch:
            path = _download(name, Path(scratch)) if archive is None else Path(archive).expanduser()
            _check_archive(path, layout, allow_other_archive)
            builder.members = _read_archive(path, layout)
            _write(builder, scratch)
        return Path(builder.data_path)
    except OSError as error:
        # Another process, such as that of another host, may have prepared it meanwhile.
        if builder and (builder.data_path / "dataset_info.json").is_file():
            return Path(builder.data_path)
        where = error.filename or root
        raise UserError(f"cannot prepare {name} ({where}: {error.strerror or error}): correct the path") from error
    finally:
        for folder in created:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _builder(layout: _Layout, root: Path) -> Any:
    """Creates tfds' own builder, with its name, version and features, but reads PNG files from `members`."""
    import tensorflow_datasets as tfds

    base: Any = getattr(tfds.image_classification, layout.builder)

    def split_generators(self: Any, _: Any) -> dict[str, Any]:
        for key, file in layout.labels.items():
            self.info.features[key].names = _label_names(self.members, file)
        return {
            "train": _examples(self.members, layout, layout.train, "train_"),
            "test": _examples(self.members, layout, layout.test, "test_"),
        }

    namespace = {"_split_generators": split_generators, "members": {}, "__module__": __name__}
    # tfds has already registered this name.
    return type(base)(layout.builder, (base,), namespace, skip_registration=True)(data_dir=root)


def _write(builder: Any, scratch: str) -> None:
    builder.download_and_prepare(download_dir=scratch, file_format="array_record")


def _examples(
    members: dict[str, bytes], layout: _Layout, files: tuple[str, ...], prefix: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number, example) as tfds' own builder does, except that the image is encoded."""
    keys = tuple(layout.labels)
    records = (
        record for file in files for record in np.frombuffer(members[file], np.uint8).reshape(-1, len(keys) + _PIXELS)
    )
    for number, record in enumerate(records):
        labels = {key: int(value) for key, value in zip(keys, record, strict=False)}
        pixels = record[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
        yield number, {"id": f"{prefix}{number:05d}", "image": _png(pixels), **labels}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def _download(name: str, folder: Path) -> Path:
    import urllib.request  # imported here, because it is slow and reading data does not need it

    layout = _LAYOUTS[name]
    url, path = _URL + layout.archive, folder / layout.archive
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, path.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            progress = Progress(f"downloading {layout.archive}", total, "bytes")
            while block := response.read(_BLOCK):
                file.write(block)
                progress.update(file.tell())
            progress.close()
    except (OSError, ValueError, EOFError) as error:  # OSError includes the errors of urllib and sockets
        raise UserError(
            f"cannot download {url} ({error}): download it elsewhere and run `ppvit prepare {name} --archive FILE`"
        ) from error
    return path


def _check_archive(path: Path, layout: _Layout, allow_other_archive: bool) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read the archive {path} ({error.strerror}): check --archive") from error
    if digest != layout.sha256 and not allow_other_archive:
        raise UserError(
            f"{path} is not the published {layout.archive} (SHA-256 {digest}, not {layout.sha256}): "
            f"download it again from {_URL}{layout.archive}"
        )


def _read_archive(path: Path, layout: _Layout) -> dict[str, bytes]:
    """Reads the archive's files by name, and checks that they hold complete records and known labels."""
    data_files = layout.train + layout.test
    wanted = {f"{layout.folder}/{file}": file for file in (*data_files, *layout.labels.values())}
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for entry in archive:
                file = wanted.get(entry.name.removeprefix("./"))
                content = archive.extractfile(entry) if file else None
                if file and content:
                    members[file] = content.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read the archive {path} ({error}): download it again") from error
    missing = [file for file in wanted.values() if file not in members]
    if missing:
        raise UserError(f"{path} lacks {layout.folder}/{missing[0]}: pass the binary version, {layout.archive}")
    limits = np.array([layout.classes[key] for key in layout.labels])
    for file in data_files:
        values = np.frombuffer(members[file], np.uint8)
        if not values.size or values.size % (len(limits) + _PIXELS):
            raise UserError(f"{file} in {path} is not a whole number of records: download the archive again")
        labels = values.reshape(-1, len(limits) + _PIXELS)[:, : len(limits)]
        if (labels >= limits).any():
            raise UserError(f"{file} in {path} has a label out of range: download the archive again")
    for key, file in layout.labels.items():
        if len(_label_names(members, file)) != layout.classes[key]:
            raise UserError(f"{file} in {path} does not name {layout.classes[key]} classes: download it again")
    return members


def _label_names(members: dict[str, bytes], file: str) -> list[str]:
    return [line for line in members[file].decode().splitlines() if line]


def _missing_parents(folder: Path) -> list[Path]:
    """Lists `folder` and the folders above it that do not exist yet, the deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]
