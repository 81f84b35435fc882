import struct
from typing import Any

import pytest

from ppvit_jax.training.events import EventFile

# An independent implementation of the records and messages.
event_pb2: Any = pytest.importorskip("tensorboardX.proto.event_pb2")


def _records(content):
    from tensorboardX.crc32c import crc32c

    def check(part, checksum):
        value = crc32c(part)
        assert struct.unpack("<I", checksum)[0] == ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    while content:
        length = struct.unpack("<Q", content[:8])[0]
        check(content[:8], content[8:12])
        check(content[12 : 12 + length], content[12 + length : 16 + length])
        yield content[12 : 12 + length]
        content = content[16 + length :]


def test_tensorboards_own_messages_read_what_was_written(tmp_path):
    steps = {0: {"step/loss": 2.5}, 127: {"a": -0.0, "é": 1e-30}, 128: {}, 10**12: {"epoch/test_accuracy": 0.25}}
    file = EventFile(tmp_path)
    for step, scalars in steps.items():
        file.write_scalars(step, scalars)
    # Watched while the run goes on: nothing waits in memory.
    (path,) = tmp_path.glob("events.out.tfevents.*")
    first, *events = [event_pb2.Event.FromString(record) for record in _records(path.read_bytes())]
    file.close()
    assert first.file_version == "brain.Event:2" and first.wall_time > 1.7e9
    assert [event.step for event in events] == list(steps)
    for event, scalars in zip(events, steps.values(), strict=True):
        assert {value.tag: value.simple_value for value in event.summary.value} == pytest.approx(scalars)
        assert 0 <= event.wall_time - first.wall_time < 60
