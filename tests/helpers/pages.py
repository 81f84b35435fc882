"""Pages of documentation: their links, and the commands in their code blocks."""

import dataclasses
import re
import shlex
from pathlib import Path

from helpers.command import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# A block after this line runs in the tests, in a folder in which the README's commands ran before.
RUNS = "<!-- runs -->"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
      language: the word after the fence; empty for commands.
      text: the lines between the fences.
      runs: the line RUNS stands before it.
    """

    language: str
    text: str
    runs: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without comments; a backslash at the end of a line continues it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page, in order."""
    pattern = re.compile(rf"({re.escape(RUNS)}\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(language, text, bool(runs)) for runs, language, text in pattern.findall(page.read_text())]


def without_blocks(page: Path) -> str:
    """Returns the text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def inline_commands(page: Path) -> list[list[str]]:
    """Returns the words of the commands that stand between backticks in the text of a page."""
    codes = re.findall(r"`((?:ppvit|python -m) [^`]+)`", without_blocks(page).replace("\n", " "))
    return [shlex.split(code) for code in codes]


def links(page: Path) -> list[tuple[str, str]]:
    """Returns the page's links to files of the repository, as (path, anchor)."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))
    parts = [target.partition("#") for target in targets if not re.match(r"[a-z]+:", target)]
    return [(path, anchor) for path, _, anchor in parts]


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
