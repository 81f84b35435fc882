"""Layout of the package: folders, the direction of imports, and the length of files."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ppvit_jax"
# A room is a folder or module at the top of the package. It imports from its own floor or from those below, which
# come first.
FLOORS = (
    {"command_line", "errors", "files"},
    {"encryption", "models", "keys"},
    {"data", "checkpoint", "adaptation", "cloud_augmentation"},
    {"config", "training", "audit", "offline", "export"},
    {"experiments", "commands", "experiment"},
    {"main", "__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


MODULES = modules()


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Yields every module of the package that a module imports, inside functions, too."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports are not used"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for target in names:
            if target.startswith("ppvit_jax."):
                yield target if target in MODULES else target.rpartition(".")[0]


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def test_every_room_has_a_floor_and_the_root_has_at_most_ten_modules():
    assert {room(name) for name in MODULES} - {"__init__"} == set(FLOOR)
    assert len(list(PACKAGE.glob("*.py"))) <= 10


@pytest.mark.parametrize("name", [name for name in MODULES if name != "ppvit_jax"])
def test_imports_go_down(name):
    for target in imports_of(MODULES[name]):
        if target != "ppvit_jax":
            assert FLOOR[room(target)] <= FLOOR[room(name)], f"{name} imports {target}, which is above it"


def test_rooms_and_modules_import_each_other_in_no_circle():
    between_rooms: dict[str, set[str]] = {}
    between_modules: dict[str, set[str]] = {}
    for name in MODULES:
        for target in imports_of(MODULES[name]):
            # The __init__ of a package imports its own modules, and these only need its name.
            if target != name and not name.startswith(f"{target}."):
                between_modules.setdefault(name, set()).add(target)
            if room(target) != room(name) and "ppvit_jax" not in (name, target):
                between_rooms.setdefault(room(name), set()).add(room(target))
    for graph in (between_rooms, between_modules):
        # Raises CycleError if there is a cycle.
        graphlib.TopologicalSorter(graph).prepare()


def loaded_by(name: str) -> set[str]:
    """Returns the modules that an import loads, directly or indirectly; imports inside functions do not count."""
    loaded, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in loaded:
            loaded.add(module)
            top_level: list[ast.stmt] = [
                node for node in MODULES[module].body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            # The __init__ of a package is loaded before its modules.
            waiting += [*imports_of(ast.Module(top_level, [])), module.rpartition(".")[0] or module]
    return loaded


def test_keys_and_encryptions_do_not_know_each_other():
    assert {room(target) for target in imports_of(MODULES["ppvit_jax.keys"])} == {"errors"}
    assert "ppvit_jax.encryption" not in loaded_by("ppvit_jax.keys")


def test_the_cloud_loads_no_keys():
    rooms = ("data", "models", "encryption", "training.loop", "training.experiment", "checkpoint.hub")
    for name in (
        "main",
        "commands.train",
        "commands.predict",
        "commands.evaluate",
        "commands.merge",
        "commands.info",
        "commands.export",
        "commands.report",
        *rooms,
    ):
        assert "ppvit_jax.keys" not in loaded_by(f"ppvit_jax.{name}"), name
    # The test can fail: the owner's programs do load keys.
    assert "ppvit_jax.keys" in loaded_by("ppvit_jax.commands.keygen")
    assert "ppvit_jax.keys" in loaded_by("ppvit_jax.offline.worker")


def test_flax_linen_stays_in_models():
    for name, tree in MODULES.items():
        if room(name) != "models":
            assert "flax.linen" not in ast.unparse(tree), name


@pytest.mark.parametrize("folder", ["ppvit_jax", "benchmarks", "configs", "checkpoints_convert"])
def test_no_file_has_more_than_three_hundred_lines(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_names_of_a_vision_transformers_parameters_stand_in_models_alone():
    names = ("posembed_input", "MultiHeadDotProductAttention", "encoderblock", "embedding/kernel", "encoder_norm")
    for name, tree in MODULES.items():
        if room(name) == "models":
            continue
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                assert not any(part in node.value for part in names), f"{name}: {node.value!r}"


def test_encryptions_have_blocks_and_models_have_patches():
    for path in (PACKAGE / "encryption").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and path.name != "__init__.py":
                assert node.arg != "patch_size", path


def test_commands_are_nothing_but_commands():
    for path in (PACKAGE / "commands").glob("*.py"):
        if path.name != "__init__.py":
            functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert {"add_arguments", "run"} <= functions, path
