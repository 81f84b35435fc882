"""Descriptions and examples that `--help` prints."""

import argparse


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps each paragraph, and keeps indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line.startswith(" ") else fill(line, width, indent) for line in text.splitlines())


def describe(parser: argparse.ArgumentParser, description: str, *examples: str) -> None:
    """Sets the description of a command, and adds examples to the end of its help; its options need their full names.

    Args:
      parser: the parser of the command; an epilog that it has already stays, before the examples.
      description: the work of the command, the side that runs it, and the files that it reads and writes.
      examples: command lines.
    """
    parser.formatter_class = _HelpFormatter
    # An abbreviation of today can be another option tomorrow.
    parser.allow_abbrev = False
    parser.description = description
    title = "example:" if len(examples) == 1 else "examples:"
    lines = [title, *(f"  {example}" for example in examples)] if examples else []
    parser.epilog = "\n".join([*([parser.epilog, ""] if parser.epilog else []), *lines])
