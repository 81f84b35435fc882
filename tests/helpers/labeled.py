"""The same labeled images as an image folder and in files of other formats."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from helpers.images import write_images
from ppvit_jax.data.settings import DataSettings

# (split, class, path inside the folder) of each image, in the order of a folder's listing.
Row = tuple[str, str, str]


def write_folder(root: Path, splits: Sequence[str] = ("train", "test"), count: int = 4, size: int = 6) -> list[Row]:
    """Writes an image folder with `count` images of each of the classes ant and bee in each split; lists them."""
    rows = [
        (split, name, "/".join(filter(None, (split, name, f"{number}.png"))))
        for split in splits
        for name in ("ant", "bee")
        for number in range(count)
    ]
    write_images(root, [path for _, _, path in rows], size=size)
    return rows


def write_csv(file: Path, lines: Iterable[Sequence[object]], header: Sequence[str] = ("path", "label")) -> Path:
    """Writes a CSV with a header."""
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([header, *lines])
    return file


def settings(folder: Path, **changes: object) -> DataSettings:
    """Returns the settings of images at 4x4, with a quarter of each class to test on."""
    fields = {
        "name": "",
        "dir": str(folder),
        "train_split": "train",
        "test_split": "test",
        "test_fraction": 0.25,
        "resize": "squash",
        "max_pixels": 10_000,
        "train_examples": 0,
        "test_examples": 0,
        "in_memory": "auto",
        "image_size": 4,
        "seed": 0,
    }
    return DataSettings(**(fields | changes))  # pyright: ignore[reportArgumentType]


def content_of(dataset) -> list:
    """Returns the class names, and the class and the values of each training and test image, in order."""
    sources = (dataset.train, dataset.test)
    images = [[source.fetch(index).tobytes() for index in range(len(source))] for source in sources]
    return [dataset.class_names, *(source.labels.tolist() for source in sources), *images]


def write_tar(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Writes a tar file with these members, in order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def write_parquet(
    file: Path,
    images: Sequence[bytes],
    labels: Sequence[object],
    *,
    class_names: Sequence[str] = (),
    columns: tuple[str, str] = ("image", "label"),
    plain: bool = False,
    rows: int = 100,
) -> Path:
    """Writes a Parquet file as Hugging Face's `datasets` does.

    Args:
      file: the file.
      images: encoded images.
      labels: numbers or names.
      class_names: names for numbers, which go into the metadata.
      columns: names of the columns of images and labels.
      plain: True writes images as bytes, without a struct.
      rows: rows of a group.
    """
    import pyarrow as pa
    import pyarrow.parquet

    image: pa.Array = pa.array(images, pa.binary())
    if not plain:
        paths = pa.array([f"{number}.png" for number in range(len(images))], pa.string())
        image = pa.StructArray.from_arrays([image, paths], ["bytes", "path"])
    table = pa.table(dict(zip(columns, (image, pa.array(labels)), strict=True)))
    label = {"names": list(class_names), "_type": "ClassLabel"} if class_names else {"dtype": "x", "_type": "Value"}
    features = {columns[0]: {"_type": "Image"}, columns[1]: label}
    if not plain:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, file, row_group_size=rows)
    return file
