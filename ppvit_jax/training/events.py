"""TensorBoard's event files: scalars by step, written without TensorBoard.

The format is TensorFlow's: records of `tensorflow/core/lib/io/record_writer.h`, each a serialized message `Event` of
`tensorflow/core/util/event.proto`.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

# The polynomial of CRC-32C (Castagnoli), its bits reversed.
_POLYNOMIAL = 0x82F63B78


class EventFile:
    """A new event file in a folder. What is written is in the file at once, so that it can be watched."""

    def __init__(self, folder: Path):
        # TensorBoard reads every file whose name contains "tfevents", in the order of the names.
        self._file = (folder / f"events.out.tfevents.{time.time():.6f}").open("ab", buffering=0)
        self._write(_bytes_field(3, b"brain.Event:2"))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends the values of a step, by the names of TensorBoard's charts."""
        summary = b"".join(
            _bytes_field(1, _bytes_field(1, tag.encode()) + _tag(2, 5) + struct.pack("<f", value))
            for tag, value in scalars.items()
        )
        self._write(_tag(2, 0) + _varint(step) + _bytes_field(5, summary))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, fields: bytes) -> None:
        event = _tag(1, 1) + struct.pack("<d", time.time()) + fields
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked_checksum(length) + event + _masked_checksum(event))


def _tag(field: int, wire_type: int) -> bytes:
    """Returns the tag before a field of a protocol buffer; type 0 is a varint, 1 a double, 2 bytes, 5 a float."""
    return bytes([field << 3 | wire_type])


def _varint(number: int) -> bytes:
    """Encodes a number that is not negative: 7 bits a byte, low ones first, the high bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _bytes_field(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content


def _checksum_table() -> list[int]:
    table = []
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (_POLYNOMIAL if remainder & 1 else 0)
        table.append(remainder)
    return table


_CHECKSUMS = _checksum_table()


def _masked_checksum(content: bytes) -> bytes:
    """Returns the CRC-32C, rotated right by 15 bits plus 0xA282EAD8, as a record carries it."""
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum = _CHECKSUMS[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    checksum ^= 0xFFFFFFFF
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)
