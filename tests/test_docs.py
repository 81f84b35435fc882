"""README and docs: their size, their links, and their commands."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command import ROOT
from helpers.pages import PAGES, anchors, blocks, inline_commands, links, without_blocks

from ppvit_jax import __main__ as commands
from ppvit_jax import config
from ppvit_jax.errors import UserError

README = ROOT / "README.md"
INDEX = ROOT / "docs" / "README.md"
# Words that stand for a value of the reader's.
PLACEHOLDER = re.compile(r"\b(DIR|FILE|FOLDER|ROW|RUNNER|ATTACK|NAMES?|X|N|COMMAND)\b|\.\.\.")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_readme_is_read_in_a_few_minutes():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 900
    first_screens = text.splitlines()[:75]
    assert "python -m ppvit_jax.main --config=configs/cifar10.py --workdir=runs/cifar10" in first_screens


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), [INDEX]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [target for path, _ in links(page) if (target := (page.parent / path).resolve()).suffix == ".md"]
    assert reached >= {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert INDEX in {(ROOT / path).resolve() for path, _ in links(README)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {path}"
        assert not anchor or anchor in anchors(target), f"{name_of(page)} links to {path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_sentence_opens_with_a_word_that_hides_its_subject(page):
    prose = re.sub(r"^[|#].*$", "", without_blocks(page), flags=re.MULTILINE)
    openings = re.findall(r"(?:^|[.!?:] |\n\n|- )((?:Of|What|Whether|Who|Which) [^.?\n]*[.\n])", prose)
    assert not openings


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a command as the program does, and loads its configuration, without running it.

    Raises:
      UserError: the program would refuse the command.
      SystemExit: as argparse's.
    """
    if words[:2] == ["python", "-m"]:
        module, arguments = words[2], words[3:]
        if module.startswith("checkpoints_convert."):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
            return
        words = {"ppvit_jax": ["ppvit"], "ppvit_jax.main": ["ppvit", "train"]}[module] + arguments
    assert words[0] == "ppvit"
    name = next(word for word in words[1:] if not word.startswith("-"))
    module = importlib.import_module(f"ppvit_jax.commands.{name}")
    monkeypatch.setattr(module, "run", lambda parsed: None)
    commands.main(words[1:])
    named = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    if named and not PLACEHOLDER.search(named[0]):
        config.load(named[0], [word for word in words if word.startswith("--config.")])


def is_ours(words: list[str]) -> bool:
    return words[0] == "ppvit" or (words[:2] == ["python", "-m"] and words[2].startswith(("ppvit_jax", "checkpoints")))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_commands_in_blocks_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in blocks(page):
        for words in block.commands if block.language in ("", "sh") else ():
            if is_ours(words):
                understand(words, monkeypatch)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_commands_in_sentences_are_understood(page, monkeypatch, capsys):
    """A sentence may leave out what a command requires, but names nothing that it does not have."""
    monkeypatch.chdir(ROOT)
    for words in inline_commands(page):
        if is_ours(words) and not PLACEHOLDER.search(" ".join(words)):
            try:
                understand(words, monkeypatch)
            except (SystemExit, UserError) as error:
                message = f"{capsys.readouterr().err}{error}"
                assert "--help" in words or "required" in message, f"{' '.join(words)} in {name_of(page)}: {message}"


def run_blocks(page: Path, folder: Path) -> None:
    """Runs the commands and the Python of a page's marked blocks, in order, as processes in the folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for block in (block for block in blocks(page) if block.runs):
        if block.language == "python":
            programs = [[sys.executable, "-c", block.text]]
        else:
            programs = [[sys.executable, "-m", "ppvit_jax", *words[1:]] for words in block.commands]
        for program in programs:
            done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{program[1:]} in {name_of(page)}: {done.stderr}"
            if "prepare" in program:
                _keep_a_third(folder / "images")


def _keep_a_third(images: Path) -> None:
    """Removes two of three images of every class: the commands are the reader's, and they run in less time."""
    for label in images.glob("*/*"):
        paths = sorted(label.iterdir())
        for path in set(paths) - set(paths[::3]):
            path.unlink()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A folder in which a reader has followed the README."""
    folder = tmp_path_factory.mktemp("reader")
    run_blocks(README, folder)
    return folder


@pytest.mark.slow
def test_the_readme_runs_and_its_two_answers_agree(story):
    answers = [(story / name).read_text().splitlines()[1:] for name in ("answers.csv", "plain_answers.csv")]
    encrypted, plain = ([line.split(",")[1] for line in lines] for lines in answers)
    assert len(plain) > 100 and encrypted == plain
    assert np.unique(plain).size > 1


RUNNING = [page for page in PAGES if page != README and any(block.runs for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_a_page_runs_after_the_readme(page, story):
    run_blocks(page, story)


@pytest.mark.slow
def test_no_docstring_hides_its_subject_and_spelling_is_american():
    folders = ("ppvit_jax", "configs", "checkpoints_convert", "benchmarks", "tests")
    british = re.compile(
        r"\b(?:optimi|normali|recogni|utili|randomi)s(?:e|ed|es|ing|ation)\b|\bneighbours?\b|\bbehaviours?\b"
    )
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                assert not re.match(r"(?:Of|What|Whether|How|Who|Which|Where)\b", text), f"{name_of(path)}: {text}"
                assert not british.search(text), f"{name_of(path)}: {text}"
