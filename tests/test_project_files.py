"""The files at the top of the repository agree with each other and with the code."""

import ast
import re
import tomllib

import pytest
import yaml
from helpers.command import ROOT
from helpers.wheel import BLOCKED

import ppvit_jax
from ppvit_jax import errors

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Distributions, by the modules that are imported.
DISTRIBUTIONS = {
    "apache_beam": "apache-beam",
    "huggingface_hub": "huggingface-hub",
    "mlflow": "mlflow-skinny",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
# Libraries that MLflow imports for its local store.
COMPANIONS = {"alembic", "sqlalchemy"}


def _installed_by(extra: str) -> set[str]:
    """The names of the distributions that an extra installs, directly or by other extras."""
    names = set()
    for requirement in EXTRAS[extra]:
        if match := re.fullmatch(r"ppvit-jax\[(.*)\]", requirement):
            names |= {name for inner in match[1].split(",") for name in _installed_by(inner)}
        else:
            names.add(re.split("[<>=]", requirement)[0])
    return names


def _calls_of_require() -> list[tuple[str, list[str]]]:
    calls = []
    for folder in ("ppvit_jax", "checkpoints_convert", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                    _, extra, *modules = [getattr(argument, "value", "") for argument in node.args]
                    calls.append((str(extra), [str(module) for module in modules]))
    return calls


@pytest.mark.slow
def test_a_refusal_names_an_extra_that_installs_what_is_missing():
    calls = _calls_of_require()
    assert len(calls) > 6
    for extra, modules in calls:
        assert modules and {DISTRIBUTIONS.get(module, module) for module in modules} <= _installed_by(extra), extra


def test_every_optional_library_is_of_an_extra_and_blocked_in_the_test_of_the_core():
    titled = {DISTRIBUTIONS.get(module, module) for module in errors._LIBRARIES}
    assert titled == _installed_by("all") - COMPANIONS and set(errors._LIBRARIES) <= set(BLOCKED)
    core = (ROOT / "requirements.txt").read_text()
    assert not [name for name in titled if re.search(f"^{name}[<>=]", core, re.MULTILINE)]


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(errors._LIBRARIES, "no_such_library", "Nothing")
    errors.require("everything", "all", "json")
    with pytest.raises(errors.UserError) as caught:
        errors.require("everything", "all", "json", "no_such_library", instead="do without")
    assert str(caught.value) == "everything needs Nothing: run pip install 'ppvit-jax[all]', or do without"


def test_the_wheel_lists_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [
        path.parent.relative_to(ROOT)
        for top in ("ppvit_jax", "checkpoints_convert")
        for path in (ROOT / top).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted({".".join(folder.parts) for folder in folders} | {"ppvit_jax.configs"})


def test_nothing_is_pinned_twice():
    files = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-test.txt")]
    names = re.findall(r"^([\w-]+)[\w\[\]]*[<>=]", "\n".join(files), re.MULTILINE)
    # The tests need one version of PyTorch, among those that the package takes.
    assert set(names) & {name for extra in EXTRAS for name in _installed_by(extra)} == {"torch"}
    assert len(names) == len(set(names)) > 20


def test_the_recipes_name_files_and_lists_that_there_are():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+/?[\w-]+\.(?:py|md|toml))`", text))
    missing = {path for path in paths if "NAME" not in path and not (ROOT / path).exists()}
    assert len(paths) > 30 and not missing
    for name, path in re.findall(r"`(_?[A-Z]{4,})` in `([^`]+)`", text) + re.findall(
        r"\d\. `([^`]+)`: import.* add .* to\s+`([A-Z]+)`", text
    ):
        listed, file = (name, path) if "/" in path else (path, name)
        assert re.search(rf"^{listed}\b", (ROOT / file).read_text(), re.MULTILINE), (file, listed)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", ppvit_jax.__version__)
    assert citation["license"] == PROJECT["license"] and citation["authors"] == PROJECT["authors"]
    assert citation["preferred-citation"]["url"] == PROJECT["urls"]["Paper"]


def test_hooks_and_workflow_use_what_the_project_has():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"ruff=={hook['rev'].removeprefix('v')}\n" in (ROOT / "requirements-test.txt").read_text()
    (path,) = (ROOT / ".github" / "workflows").glob("*.yml")
    workflow = yaml.safe_load(path.read_text())
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    used = set()
    for job in workflow["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
        used |= {target for step in job["steps"] for target in re.findall(r"make (\w+) PYTHON", step.get("run", ""))}
    assert {"demo", "test"} <= used <= {*targets, "check"}
