"""Errors of users and machines as one line, and numbers outside their range."""

import argparse
import errno
import importlib
import io
import math
import os
import re
import sys
from pathlib import Path

import pytest
from helpers.command import ROOT, run_ppvit
from safetensors import SafetensorError

from ppvit_jax import main
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.command_line import EXIT_CLOSED_PIPE, Number, describe, run_command
from ppvit_jax.commands import COMMANDS
from ppvit_jax.commands.shared.unknown_options import _leaves
from ppvit_jax.errors import Range, UserError
from ppvit_jax.files import local_path, write_text, written_aside

DEMO = str(ROOT / "configs" / "demo.py")


def failing(error):
    def command(arguments):
        raise error

    return command


def one_line(capsys):
    """Returns the text of the one line on standard error, without "error: "."""
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error.removeprefix("error: ").strip()


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_the_operating_system_is_one_line(number, capsys):
    if issubclass(type(OSError(number, "")), BrokenPipeError):
        return
    assert run_command(failing(OSError(number, os.strerror(number), "some/file")), []) == 1
    line = one_line(capsys)
    assert line.startswith(f"some/file: {os.strerror(number)}; ") and line.endswith(", then run the command again")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("cannot identify it"), "cannot identify it; fix this, then run the command again"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory (Unable to allocate 3 TiB): use smaller batches"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "out of memory (RESOURCE_EXHAUSTED"),
        (RuntimeError("Could not determine home directory."), "the home folder is unknown: set HOME"),
        (KeyError("getpwuid(): uid not found: 7"), "the home folder is unknown: set HOME"),
        (UnicodeEncodeError("ascii", "Straße", 4, 5, "no"), "'Stra\\xdfe' cannot be written in the encoding ascii"),
        (SafetensorError("header too large"), "cannot read or write a .safetensors file (header too large)"),
    ],
)
def test_errors_of_the_machine_are_one_line(error, message, capsys):
    assert run_command(failing(error), []) == 1
    assert one_line(capsys).startswith(message)


def test_json_that_is_nested_too_deeply_is_one_line_and_endless_recursion_is_not(capsys):
    import json

    assert run_command(lambda arguments: json.loads("[" * 100_000), []) == 1
    assert "nested too deeply" in one_line(capsys)

    def endless(arguments):
        endless(arguments)

    with pytest.raises(RecursionError):
        run_command(endless, [])


def test_a_device_that_jax_lacks_is_one_line(capsys, monkeypatch):
    import jax

    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda': gone (set JAX_PLATFORMS='' to choose)")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    # JAX raises this without a text.
    assert run_command(failing(AssertionError()), []) == 1
    expected = "JAX has no device for JAX_PLATFORMS=cuda (Unable to initialize backend 'cuda': gone): set JAX_PLATFORMS"
    assert one_line(capsys).startswith(expected)
    monkeypatch.undo()
    assert describe(AssertionError()) is None


def test_a_closed_pipe_ends_a_command_quietly(capsys, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run_command(lambda arguments: print("text"), []) == EXIT_CLOSED_PIPE
        # Python would flush the text again at the end of the process.
        output.flush()
    assert capsys.readouterr().err == ""


def test_another_broken_pipe_is_an_error(capsys, monkeypatch):
    with Path(os.devnull).open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", output)
        assert run_command(failing(BrokenPipeError(errno.EPIPE, "Broken pipe")), []) == 1


def test_letters_that_the_output_lacks_are_escaped(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert run_command(lambda arguments: print("Straße \udcff"), []) == 0
    assert output.buffer.getvalue() == b"Stra\\xdfe \\udcff\n"
    assert output.errors == "strict"


@pytest.mark.parametrize("url", ["gs://bucket/x", "s3://b/x", "hf://timm/vit", "https://host/x", "file:///tmp/x"])
def test_urls_are_refused_in_arguments_and_in_fields_before_any_work(url, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = url.partition(":")[0]
    for arguments in (
        ["info", url],
        ["keygen", "--output", url],
        ["predict", "--checkpoint=embedded", f"--input={url}", "--output=o.csv"],
        ["train", f"--config={DEMO}", f"--workdir={url}"],
        ["train", f"--config={DEMO}", "--workdir=w", f"--config.data.dir={url}"],
        ["convert", "timm-to-npz", url, "x.npz"],
    ):
        assert run_ppvit(*arguments) == 1
        assert one_line(capsys).startswith(f"{url} is ")
    assert run_command(main.main, [f"--config={DEMO}", f"--workdir={url}"]) == 1
    assert f"{name}://" in one_line(capsys)
    assert list(tmp_path.iterdir()) == []
    # pathlib drops a slash.
    with pytest.raises(UserError, match=f"{name}:/"):
        local_path(Path(url))


def test_paths_with_colons_are_no_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/table2.py:etc_vit", "10:30/x", "a:b", "C:/x"):
        assert local_path(name) == Path(name)
    with pytest.raises(UserError, match="the home folder in ~nobody-of-this-name/x is unknown: set HOME"):
        local_path("~nobody-of-this-name/x")


def test_names_as_long_as_a_file_system_takes_are_written(tmp_path):
    for name in ("a" * 255, "ä" * 127):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(UserError, match="target is a folder: choose another name"):
        write_text(tmp_path / "target", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError("I/O error: Permission denied (os error 13)"), errno.EACCES),
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EIO, "Input/output error"), None),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), None),
        (RuntimeError("a defect"), None),
    ],
)
def test_a_disk_that_fails_names_the_file_that_was_to_be_written(error, number, tmp_path):
    with pytest.raises(Exception) as raised, written_aside(tmp_path / "model") as aside:
        aside.write_text("half")
        raise error
    if number is not None:
        assert isinstance(raised.value, OSError)
        assert (raised.value.errno, raised.value.filename) == (number, str(tmp_path / "model"))
    elif "Pytorch" in str(error):
        assert isinstance(raised.value, UserError) and "model (PytorchStreamWriter failed" in str(raised.value)
    else:
        assert raised.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        (Range(1, 9, whole=True), (1, 9), (0, -1, 10, 1.0, True, "3", None)),
        (Range(0, below=1), (0, 0.0, 0.999), (-0.1, 1, 1.0, math.nan, math.inf, "0.5", False)),
        (Range(above=0), (1e-9, 5), (0, -1, math.inf, math.nan)),
        (Range(), (-1e300, 0), (math.nan, -math.inf)),
    ],
)
def test_ranges(bounds, good, bad):
    for value in good:
        bounds.check("x", value)
    for value in bad:
        with pytest.raises(UserError, match=f"^x is {re.escape(repr(value))}: give "):
            bounds.check("x", value)


def numbers():
    """Yields each command with an argument that is a number, and the other arguments that it requires."""
    for name in COMMANDS:
        parser = argparse.ArgumentParser(prog=f"ppvit {name}")
        importlib.import_module(f"ppvit_jax.commands.{name}").add_arguments(parser)
        for leaf in _leaves(parser):
            required = []
            for action in leaf._actions:
                if action.required and not isinstance(action, argparse._SubParsersAction):
                    required += [*action.option_strings[:1], next(iter(action.choices or ["x"]))]
            for action in leaf._actions:
                if action.type in (int, float):
                    yield [*leaf.prog.split()[1:], *required], action


NUMBERS = list(numbers())


def test_every_number_of_every_command_has_a_range():
    assert len(NUMBERS) > 40
    for arguments, action in NUMBERS:
        assert isinstance(action, Number), (arguments, action.option_strings)


@pytest.mark.parametrize(("arguments", "action"), NUMBERS, ids=[f"{n[0][0]}-{n[1].option_strings[0]}" for n in NUMBERS])
def test_impossible_numbers_are_one_line_before_any_work(arguments, action, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ("-1", "0", "1000000000000", "nan", "-inf"):
        number = action.type(value) if action.type is float or value.lstrip("-").isdigit() else None
        if number is None:
            continue
        try:
            action._range.check("", number)
        except UserError:
            option = action.option_strings[0]
            assert run_ppvit(*arguments, f"{option}={value}") == 1
            assert one_line(capsys).startswith(f"{option} is {number}: give ")
    # Every range refuses a negative number.
    with pytest.raises(UserError):
        action._range.check("", action.type(-1))
    assert list(tmp_path.iterdir()) == []


def test_options_of_other_commands_are_named(capsys):
    for arguments, message in (
        (
            ["encrypt", "--epochs", "3"],
            "unknown arguments --epochs: it is a field of the configuration, as in ppvit",
        ),
        (["predict", "--key", "k"], "unknown arguments --key: --key is an option of ppvit encrypt, ppvit adapt, "),
        (["info", "x", "--checkpont=y"], "unknown arguments --checkpont=y: see ppvit info --help"),
        (["adapt", "--check", "y"], "unknown arguments --check: did you mean --checkpoint? see ppvit adapt --help"),
        (
            ["audit", "weights", "--candidates=3"],
            "unknown arguments --candidates=3: --candidates is an option of",
        ),
    ):
        assert run_ppvit(*arguments) == 1
        assert one_line(capsys).startswith(message)


def test_metadata_of_the_wrong_type_is_a_value_error():
    with pytest.raises(ValueError, match="metadata"):
        Metadata.from_json('{"class_names": 5}')
