"""Random damage to files: bytes, JSON, zip archives of numpy arrays, and safetensors."""

import copy
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

_NUMBERS = (0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_MAGICS = (
    b"PK\x03\x04",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\0",
    b"GIF89a",
    b"RIFF",
    b"\x93NUMPY\1\0",
    b"{",
    b"\x80\2}",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    10**30,
    -(10**30),
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 3000,
    "../../x",
    "/etc/passwd",
    "gs://bucket/x",
    "~nobody/x",
    "\udcff",
    "\0",
    "bs+ps",
    [],
    {},
    [[[[]]]],
    [1, 2],
    {"a": {"b": None}},
)
_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': [1], }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
    "{'descr': 'M8[s]', 'fortran_order': True, 'shape': (), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 2L), }",
    "{" * 500,
    "(" * 9000,
    "'",
    "'''",
    "\\",
    "1 +",
    "{'descr': '<f4', \0}",
    "\t {",
    "-" * 5000 + "1",
    "lambda: 1",
)


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Damages a file of any kind: bits, bytes, lengths, parts that are missing, doubled, swapped or foreign."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        # Most formats keep their structure at the beginning and the end.
        limit = draw.choice((min(len(data), 128), len(data)))
        place = draw.choice((draw.randrange(limit), len(data) - 1 - draw.randrange(limit)))
        length = draw.choice((1, 2, 4, 8, 64, 512))
        kind = draw.randrange(11)
        if kind <= 2:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 3:
            data[place] = draw.randrange(256)
        elif kind == 4:
            del data[place:]
        elif kind == 5:
            del data[place : place + length]
        elif kind == 6:
            data[place:place] = draw.randbytes(length)
        elif kind == 7:
            data[place:place] = data[place : place + length]
        elif kind == 8:
            number, order = draw.choice(_NUMBERS), draw.choice(("little", "big"))
            size = draw.choice([size for size in (2, 4, 8) if number < 256**size])
            data[place : place + size] = number.to_bytes(size, order)
        elif kind == 9:
            data[:0] = draw.choice(_MAGICS)
        else:
            data[place : place + length] = bytes(length)
    return bytes(data)


def damage_value(value: Any, draw: random.Random) -> Any:
    """Returns a copy of a JSON value in which one field is replaced, removed, renamed, doubled or moved."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return draw.choice(_VALUES)
    container, name = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del container[name]
    elif kind == 1 and isinstance(container, dict):
        container[f"{name}{draw.choice(('', 'x', '/..', ' '))}"] = container.pop(name)
    elif kind == 2:
        other, place = draw.choice(places)
        try:
            container[name], other[place] = other[place], container[name]
            json.dumps(value)
        except (LookupError, ValueError):  # A field moved into itself.
            return draw.choice(_VALUES)
    elif kind == 3 and isinstance(container, list):
        container.append(container[name])
    elif kind == 4:
        return draw.choice(_VALUES) if draw.random() < 0.3 else [value]
    else:
        container[name] = draw.choice(_VALUES)
    return value


def damage_json(content: bytes, draw: random.Random) -> bytes:
    """Damages a field of a JSON file, or its bytes, or nests it deeply. Several lines are several values."""
    kind = draw.randrange(10)
    if kind == 0:
        return damage_bytes(content, draw)
    if kind == 1:
        depth = draw.choice((100, 100_000))
        return b"[" * depth + draw.choice((content, b"]" * depth))
    lines = content.splitlines()
    try:
        values = [json.loads(content)]
    except ValueError:
        values = [json.loads(line) for line in lines]
    number = draw.randrange(len(values))
    values[number] = damage_value(values[number], draw)
    text = "\n".join(json.dumps(value, indent=None if len(values) > 1 else 1) for value in values)
    return text.encode() + b"\n"


def damage_npz(content: bytes, draw: random.Random) -> bytes:
    """Damages a zip archive of arrays: its bytes, its metadata, or a member's name, header or content."""
    kind = draw.randrange(10)
    if kind <= 3:
        return damage_bytes(content, draw)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
        comment = archive.comment
    number = draw.randrange(len(members))
    name, data, compression = members[number]
    if kind == 4:
        prefix, _, fields = comment.partition(b" ")
        comment = (prefix + b" " + damage_json(fields or b"{}", draw))[:65535]
    elif kind == 5:
        members.insert(draw.randrange(len(members)), members[number])
    elif kind == 6:
        name = draw.choice(("../x.npy", "/x.npy", "x", "", "a\\b.npy", "head/kernel.npy", "__proto__.npy", f"{name}/"))
    elif kind == 7:
        header = draw.choice(_HEADERS).encode()
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header + draw.choice((b"", data))
    elif kind == 8:
        data = damage_bytes(data, draw)
    else:
        del members[number]
        number = None
    if number is not None and kind in (6, 7, 8):
        members[number] = (name, data, compression)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, data, compression in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), data, compression)
        archive.comment = comment
    return buffer.getvalue()


def damage_safetensors(content: bytes, draw: random.Random) -> bytes:
    """Damages the bytes of a safetensors file, or the JSON of its header."""
    if draw.random() < 0.4:
        return damage_bytes(content, draw)
    (length,) = struct.unpack("<Q", content[:8])
    header = damage_json(content[8 : 8 + length], draw)
    length = len(header) if draw.random() < 0.8 else draw.choice(_NUMBERS)
    return struct.pack("<Q", length) + header + content[8 + struct.unpack("<Q", content[:8])[0] :]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Returns (container, name or index) of every field."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for name, field in items for place in [(value, name), *_places(field)]]


Damage = Callable[[bytes, random.Random], bytes]
