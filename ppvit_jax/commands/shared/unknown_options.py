"""Refusal of options that a command does not have, with the command that has them."""

import argparse
import contextlib
import difflib
import functools
import importlib
from collections.abc import Iterator, Sequence

from ppvit_jax.commands import COMMANDS
from ppvit_jax.errors import UserError


def refuse_unknown_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuses options that the chosen command does not have, before argparse asks for those that are missing.

    Args:
      parser: the parser of all commands.
      arguments: the arguments of the program.

    Raises:
      UserError: there is such an option. The message names the commands, or the field of the configuration, that have
        its name.
    """
    command = _chosen(parser, arguments)
    if _subcommands(command):
        return  # argparse says that the subcommand is missing or unknown.
    start = command.get_default("overrides_start_with")
    known = {option for action in command._actions for option in action.option_strings}
    unknown = [
        text
        for text in arguments[: arguments.index("--") if "--" in arguments else None]
        if text.startswith("--")
        and text.partition("=")[0] not in known
        and (start is None or not text.startswith(start))
    ]
    if unknown:
        option = unknown[0].partition("=")[0]
        raise UserError(
            f"unknown arguments {' '.join(unknown)}: {_advise(option, known, command.prog)}see {command.prog} --help"
        )


def _advise(option: str, known: set[str], prog: str) -> str:
    """Returns advice about the first unknown option, which ends in a semicolon; "" if there is none."""
    options = sorted(name for name in known if name.startswith("--"))
    if longer := [name for name in options if name.startswith(option)]:
        return f"did you mean {longer[0]}? "
    if owners := list(_owners(option, prog)):
        return f"{option} is an option of {', '.join(owners)}; "
    if fields := list(_fields(option.removeprefix("--").replace("-", "_"))):
        return f"it is a field of the configuration, as in ppvit train --config.{fields[0]}=VALUE; "
    near = difflib.get_close_matches(option, options, 1, cutoff=0.75)
    return f"did you mean {near[0]}? " if near else ""


def _owners(option: str, prog: str) -> Iterator[str]:
    """Yields the commands that have an option, such as "ppvit adapt", and the sibling subcommands of `prog`."""
    for parser in _parsers():
        owners = [
            leaf.prog for leaf in _leaves(parser) if any(option in action.option_strings for action in leaf._actions)
        ]
        if owners:
            yield from owners if prog.startswith(f"{parser.prog} ") else [parser.prog]


@functools.cache
def _parsers() -> list[argparse.ArgumentParser]:
    """Returns the parser of each command."""
    parsers = []
    for name in COMMANDS:
        parser = argparse.ArgumentParser(prog=f"ppvit {name}")
        # The benchmarks are not part of an installed package.
        with contextlib.suppress(UserError, ImportError):
            importlib.import_module(f"ppvit_jax.commands.{name}").add_arguments(parser)
        parsers.append(parser)
    return parsers


def _fields(name: str) -> Iterator[str]:
    from ppvit_jax.config import default_config

    config = default_config()
    for field in config:
        if field == name:
            yield field
        if hasattr(config[field], "keys") and name in config[field]:
            yield f"{field}.{name}"


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [parser, *(leaf for child in _subcommands(parser).values() for leaf in _leaves(child))]


def _chosen(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of the command, and of its subcommand, that the arguments name."""
    for text in arguments:
        if (child := _subcommands(parser).get(text)) is not None:
            parser = child
    return parser
