"""The progress line, with a clock that the tests control."""

from __future__ import annotations

import io

import pytest

from ppvit_jax.data import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def report(clock, stream, seconds, total=1000):
    line = progress.Progress("decoding", total, stream=stream)
    for second in range(1, seconds + 1):
        clock[0] += 1
        line.update(10 * second)
    line.close()
    return stream.getvalue()


def test_short_work_is_silent(clock):
    assert report(clock, io.StringIO(), 2) == ""
    assert report(clock, Terminal(), 2) == ""


def test_a_log_gets_a_line_every_ten_seconds(clock):
    lines = report(clock, io.StringIO(), 24).splitlines()
    assert lines == [
        "decoding: 30 images, 10 images/s, 97 s left of 1,000 images",
        "decoding: 130 images, 10 images/s, 87 s left of 1,000 images",
        "decoding: 230 images, 10 images/s, 77 s left of 1,000 images",
    ]


def test_a_terminal_gets_one_line_that_is_rewritten(clock):
    text = report(clock, Terminal(), 6)
    assert text.count("\r") == 4 and text.count("\n") == 1 and text.endswith("\n")
    assert "60 images, 10 images/s, 94 s left of 1,000 images" in text.split("\r")[-1]


def test_an_unknown_total_promises_no_time(clock):
    assert report(clock, io.StringIO(), 4, total=0) == "decoding: 30 images, 10 images/s\n"
