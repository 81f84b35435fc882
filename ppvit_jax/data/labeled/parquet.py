"""Parquet in the layout of Hugging Face's `datasets`: a column of encoded images and a column of labels.

Files are named as on the hub, data/train-00000-of-00002.parquet. An image is a struct of `bytes` and `path`, or plain
bytes. A label is a number, whose class names stand in the schema's metadata under "huggingface", or a name, or a list
of either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax.data.class_depth import printable
from ppvit_jax.data.labeled.class_list import read_class_names
from ppvit_jax.data.labeled.examples import Collection, Columns, Examples
from ppvit_jax.data.labeled.labels import Labels
from ppvit_jax.data.labeled.row_groups import GROUP_BYTES, ImageColumn, damaged
from ppvit_jax.data.labeled.shards import list_shards
from ppvit_jax.errors import UserError, require

# Usual names of columns, in lower case.
_IMAGES = ("image", "img", "jpg", "png", "picture")
_LABELS = ("label", "labels", "class", "cls", "target")
_ROWS = 2**16


def open_files(path: Path, columns: Columns, *, labeled: bool) -> Collection:
    """Opens Parquet files.

    Args:
      path: a folder of files, one file, or a pattern such as "train-{00000..00001}-of-00002.parquet".
      columns: the names of the columns of images and labels.
      labeled: True if every image needs a label.

    Raises:
      UserError: pyarrow is missing, a file is missing or damaged, or the files have other columns.
    """
    require("reading Parquet", "parquet", "pyarrow")
    import pyarrow.parquet

    root, files = list_shards(path, ".parquet")
    first = next(iter(files.values()))[0]
    schema: Any = None
    labels: Any = None
    image = label = ""
    splits: list[tuple[str, ImageColumn]] = []
    for split, parts in files.items():
        metadata = []
        for file in parts:
            try:
                content = pyarrow.parquet.read_metadata(file)
                present = content.schema.to_arrow_schema()
            except Exception as error:  # pyarrow documents no exception types for a damaged file
                raise damaged(file, error) from error
            if schema is None:
                schema = present
                image, label = _find_columns(file, schema, columns, labeled)
                labels = Labels(_class_names(schema, label) or read_class_names(root), labeled=labeled)
            _check_schema(file, present, first, schema, [name for name in (image, label) if name])
            metadata.append(content)
        column = ImageColumn(parts, metadata, image, is_struct=_is_struct(schema.field(image).type))
        if not column.count:
            raise UserError(f"{parts[0]} has no rows: get it again, or leave it out")
        for file, content in zip(parts, metadata, strict=True):
            _add_labels(labels, split, file, content, label)
        splits.append((split, column))
    class_names, by_split, declared = labels.finish()
    examples = tuple(_make_examples(root, split, column, by_split[split]) for split, column in splits)
    largest = max(column.largest for _, column in splits)
    slow = ""
    if largest > GROUP_BYTES:
        slow = (
            f"{path} has row groups of up to {largest / 2**20:,.0f} MiB, which are read anew for single images: write "
            "it with row groups of 100 rows, or set config.data.in_memory=True"
        )
    return Collection(path, root, examples, class_names, declared, in_groups=True, slow=slow)


def _make_examples(root: Path, split: str, column: ImageColumn, labels: np.ndarray | None) -> Examples:
    def name(index: int) -> str:
        path, row = column.place(index)
        return f"{path.relative_to(root).as_posix()}, row {row}"

    return Examples(split, column.count, labels, name, column.read, column.scan)


def _find_columns(file: Path, schema: Any, columns: Columns, labeled: bool) -> tuple[str, str]:
    """Returns the names of the columns of images and labels; "" for labels that are missing and not needed."""
    images = [field.name for field in schema if _is_struct(field.type) or _is_binary(field.type)]
    labels = [field.name for field in schema if _label_type(field.type)]
    classes = [name for name in labels if _class_names(schema, name)]
    usual = [name for name in labels if name.lower() in _LABELS]
    image = _choose(file, schema, columns.image, (images, [n for n in images if n.lower() in _IMAGES]), "image")
    if columns.label or labeled or classes or usual:
        return image, _choose(file, schema, columns.label, (classes, usual), "label", labels)
    return image, ""


def _choose(
    file: Path,
    schema: Any,
    name: str,
    candidates: Sequence[Sequence[str]],
    field: str,
    possible: Sequence[str] | None = None,
) -> str:
    """Returns the column of this name, or the only candidate of the first list that has a single one."""
    possible = candidates[0] if possible is None else possible
    if name in possible:
        return name
    single = [names[0] for names in candidates if len(names) == 1]
    if single and not name:
        return single[0]
    if name:
        fault = f"no column {name!r} of {field}s"
    elif several := next((names for names in candidates if names), None):
        fault = f"several columns of {field}s, {' and '.join(map(repr, several))},"
    else:
        fault = f"no column of {field}s"
    listed = ", ".join(f"{printable(column.name)}: {column.type}" for column in schema)
    option = f"data.{field}_column (--{field}-column)"
    raise UserError(f"{file} has {fault} among its columns ({listed}): name it in {option}")


def _check_schema(file: Path, present: Any, first: Path, schema: Any, names: Sequence[str]) -> None:
    for name in names:
        expected = f"{name}: {schema.field(name).type}"
        place = present.get_field_index(name)
        found = f"{name}: {present.field(place).type}" if place >= 0 else f"only {', '.join(present.names)}"
        if found != expected or _class_names(present, name) != _class_names(schema, name):
            fault = f"{found}, but {first} has {expected}" if found != expected else f"other class names than {first}"
            raise UserError(f"{file} has {fault}: give the files of one data set")


def _add_labels(labels: Labels, split: str, file: Path, content: Any, column: str) -> None:
    """Reads the labels of one file."""
    import pyarrow.parquet

    if not column:
        for row in range(content.num_rows):
            labels.add(split, None, f"{file}, row {row}")
        return
    start = 0

    def title(index: int) -> str:
        return f"{file}, row {start + index}"

    try:
        with pyarrow.parquet.ParquetFile(file, metadata=content, buffer_size=2**20) as opened:
            for batch in opened.iter_batches(_ROWS, columns=[column], use_threads=False):
                values: Any = batch.column(0)
                if not values.null_count and _label_type(values.type) == "number":
                    labels.add_numbers(split, values.to_numpy(zero_copy_only=False), title)
                else:
                    for index, value in enumerate(values.to_pylist()):
                        labels.add(split, value, title(index))
                start += len(values)
    except UserError:
        raise
    except Exception as error:  # see `open_files`
        raise damaged(file, error) from error


def _features(schema: Any) -> Mapping[str, Any]:
    """Returns the features that `datasets` describes in the schema's metadata, by column; empty without them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _feature_type(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(schema: Any, column: str) -> tuple[str, ...]:
    feature = _features(schema).get(column)
    # A list of labels: the feature of its items, or in former versions a list of one feature.
    if isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    elif isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    names = feature.get("names") if isinstance(feature, dict) and _feature_type(feature) == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _is_binary(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _is_struct(kind: Any) -> bool:
    import pyarrow

    if not pyarrow.types.is_struct(kind):
        return False
    place = kind.get_field_index("bytes")
    return place >= 0 and _is_binary(kind.field(place).type)


def _label_type(kind: Any) -> str:
    """Returns "number", "name" or "list" for the type of a column that may have labels; "" for other types."""
    import pyarrow

    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind):
        return "list" if _label_type(kind.value_type) in ("number", "name") else ""
    if types.is_dictionary(kind):
        return "name" if _label_type(kind.value_type) == "name" else ""
    if types.is_integer(kind):
        return "number"
    return "name" if types.is_string(kind) or types.is_large_string(kind) else ""
