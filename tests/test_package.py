"""The names of the package itself."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ppvit_jax
from ppvit_jax import Permutations


@pytest.mark.slow
def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(ppvit_jax) == (0, 10)


def test_every_name_is_the_functions_or_classes_own_and_the_type_checker_sees_it():
    imports = {}
    for node in ast.walk(ast.parse(Path(ppvit_jax.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppvit_jax."):
            imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    assert sorted(imports) == ppvit_jax.__all__ and set(ppvit_jax.__all__) <= set(dir(ppvit_jax))
    for name, (module, original) in imports.items():
        value = getattr(ppvit_jax, name)
        assert value is getattr(importlib.import_module(module), original) and value.__doc__
    with pytest.raises(AttributeError, match="module 'ppvit_jax' has no attribute 'nothing'"):
        _ = ppvit_jax.nothing  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_importing_the_package_loads_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import ppvit_jax; "
        "assert not {m for m in set(sys.modules) - before if m.partition('.')[0] in ('jax', 'numpy', 'flax', 'absl')}; "
        "from ppvit_jax import config, experiment, encryption, adaptation; "
        "assert config.load and experiment.run and encryption.encrypt and adaptation.adapt; "
        "ppvit_jax.load_config, ppvit_jax.train, ppvit_jax.compute_logits; assert 'ppvit_jax.keys' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_checkpoint_is_written_and_read_again(tmp_path):
    params, metadata = ppvit_jax.load_checkpoint("embedded")
    permutations: Permutations = ppvit_jax.derive_permutations(
        ppvit_jax.generate_key(), "bs+ps", image_size=64, block_size=8
    )
    ppvit_jax.save_checkpoint(tmp_path / "model.npz", ppvit_jax.adapt(params, permutations), metadata)
    adapted, again = ppvit_jax.load_checkpoint(tmp_path / "model.npz")
    restored = ppvit_jax.restore(adapted, permutations)
    assert again == metadata
    np.testing.assert_array_equal(restored["embedding"]["kernel"], params["embedding"]["kernel"])
    assert not np.array_equal(adapted["embedding"]["kernel"], params["embedding"]["kernel"])
    del params["head"]
    with pytest.raises(ppvit_jax.UserError, match="no head"):
        ppvit_jax.compute_logits(params, np.zeros((1, 64, 64, 3), np.uint8))
