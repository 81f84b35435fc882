"""Tensors of a safetensors file, mapped into memory: a tensor is read when its values are used.

The header is checked by itself, so that a file that lies about its content gives one line. Format:
https://github.com/huggingface/safetensors#format
"""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# The largest header that the format allows.
_MAX_HEADER = 100_000_000
_LENGTH_SIZE = 8
_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class DtypeError(ValueError):
    """Tensor whose dtype numpy does not have: its name and the dtype's name."""


def map_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Maps the tensors of a file into memory.

    Args:
      path: the file.

    Returns:
      Read-only arrays by name, which share the file's memory, and the texts of the header's field `__metadata__`.

    Raises:
      DtypeError: a tensor has a dtype that numpy lacks.
      ValueError: the header is damaged, or does not describe the file.
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(_LENGTH_SIZE), "little")
        if size < _LENGTH_SIZE or length > size - _LENGTH_SIZE:
            raise ValueError(f"its header claims {length:,} bytes, but the file has {size:,}")
        if length > _MAX_HEADER:
            raise ValueError(f"its header has {length:,} bytes, but at most {_MAX_HEADER:,} are allowed")
        header = _parse(file.read(length))
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its header has a field __metadata__ that is not texts by name")
    start = _LENGTH_SIZE + length
    places = {name: _place(name, entry) for name, entry in header.items()}
    _check_places(places, size - start)
    tensors = {}
    for name, (dtype, shape, begin, _) in places.items():
        count = math.prod(shape)
        flat = np.frombuffer(content, dtype, count, start + begin) if count else np.empty(0, dtype)
        tensors[name] = flat.reshape(shape)
    return tensors, texts


def load(tensor: np.ndarray) -> np.ndarray:
    """Returns a copy of a mapped tensor in memory of its own."""
    return np.array(tensor, order="K")


def _parse(text: bytes) -> dict[str, Any]:
    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise ValueError("its header has a name twice")
        return content

    try:
        header = json.loads(text, object_pairs_hook=refuse_repeated)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header


def _place(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Returns dtype, shape, begin and end of a tensor, by its entry in the header."""
    if not isinstance(entry, Mapping) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"its header has no dtype, shape and data_offsets for {name!r:.80}")
    if entry["dtype"] not in _DTYPES:
        raise DtypeError(name, str(entry["dtype"]))
    dtype, shape, offsets = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2 and len(shape) <= 32
    if not lists or not all(type(number) is int and 0 <= number < 2**62 for number in (*shape, *offsets)):
        raise ValueError(f"its header has an impossible shape or data_offsets for {name!r:.80}")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its header has {end - begin:,} bytes for {name!r:.80}, whose shape {shape} needs others")
    return dtype, tuple(shape), begin, end


def _check_places(places: Mapping[str, tuple[np.dtype, tuple[int, ...], int, int]], size: int) -> None:
    """Raises ValueError unless the tensors fill the file's data without gaps and overlaps."""
    position = 0
    for name, (_, _, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise ValueError(f"its tensors overlap or have a gap before {name!r:.80}")
        if end > size:
            raise ValueError(f"its tensor {name!r:.80} ends at byte {end:,} of {size:,}: the file is truncated")
        position = end
    if position != size:
        raise ValueError(f"its tensors have {position:,} bytes, but the file {size:,}")
