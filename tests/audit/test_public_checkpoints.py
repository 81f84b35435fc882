"""The list of public checkpoints, and the warnings of `ppvit adapt` and `ppvit encrypt`."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from helpers.command import make_key, run_ppvit
from helpers.images import write_images
from helpers.tiny import random_params, tiny_model

from ppvit_jax import checkpoint
from ppvit_jax.audit import public_checkpoints
from ppvit_jax.audit.public_checkpoints import identify, patch_embedding_sha256
from ppvit_jax.checkpoint import Metadata

EMBEDDED = checkpoint.resolve("embedded")
NAME = "ppvit's embedded ViT-Micro/8"
WARNING = (
    "warning: {}; anyone who has it and the adapted model can compute the key's permutations in under a second: "
    "see docs/threat_model.md\n"
)
ASSUMED = WARNING.format("the base checkpoint is assumed to be public (if it is not, give --no-base-is-public)")
SAID = WARNING.format("the base checkpoint is public")
KNOWN = WARNING.format(f"the base checkpoint is public ({NAME})")


def test_the_tables_hold_digests():
    for table in (public_checkpoints._FILES, public_checkpoints._PATCH_EMBEDDINGS):
        assert table and all(len(bytes.fromhex(digest)) == 32 and digest == digest.lower() for digest in table)
        assert len(set(table.values())) == len(table)


def test_a_public_file_is_identified_by_its_bytes(tmp_path):
    copy = tmp_path / "other name.npz"
    copy.write_bytes(EMBEDDED.read_bytes())
    assert identify(copy, {}) == NAME
    copy.write_bytes(EMBEDDED.read_bytes() + b"\0")
    assert identify(copy, {}) is None


def test_a_public_file_is_identified_in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"public")
    assert identify(tmp_path, {}) is None
    digest = hashlib.sha256(b"public").hexdigest()
    monkeypatch.setattr(public_checkpoints, "_FILES", {digest: "a public model"})
    assert identify(tmp_path, {}) == identify(tmp_path / "model.safetensors", {}) == "a public model"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ([], WARNING.format("the base checkpoint is public (hf:someone/model)")),
        (["--base-is-public"], SAID),
        (["--no-base-is-public"], ""),
    ],
)
def test_a_checkpoint_by_its_name_on_the_hub_is_public(tmp_path, monkeypatch, capsys, extra, expected):
    checkpoint.write(tmp_path / "model.npz", random_params(tiny_model()), Metadata(image_size=16, mean=(0.5,) * 3))
    monkeypatch.setattr(checkpoint, "resolve", lambda name: tmp_path / "model.npz")
    options = ["--key", make_key(tmp_path, 1), "--image-size=16", "--output", tmp_path / "adapted.npz", *extra]
    assert run_ppvit("adapt", "--checkpoint", "hf:someone/model", *options) == 0
    assert "".join(line for line in capsys.readouterr().err.splitlines(True) if "warning" in line) == expected


def test_a_public_patch_embedding_is_identified_in_any_file(tmp_path):
    arrays, _ = checkpoint.read(EMBEDDED)
    path = tmp_path / "written again.npz"
    checkpoint.write(path, {name: array for name, array in arrays.items() if not name.startswith("head/")}, Metadata())
    written, _ = checkpoint.read(path)
    assert identify(path, written) == NAME
    # The byte order and the precision differ, but not the values.
    kernel = written["embedding/kernel"]
    for same in (kernel.astype(">f4"), kernel.astype(np.float64), np.asfortranarray(kernel)):
        assert identify(path, {"embedding/kernel": same}) == NAME
    changed = kernel.copy()
    changed[0, 0, 0, 0] += 1
    assert identify(path, {"embedding/kernel": changed}) is None
    assert identify(path, {"embedding/kernel": kernel[::-1]}) is None


def test_the_digest_is_of_the_little_endian_bytes():
    kernel = np.array([[[[1.0, -2.0]]]], np.float32)
    expected = hashlib.sha256(bytes.fromhex("0000803f000000c0")).hexdigest()
    assert patch_embedding_sha256(kernel) == expected


def _warnings(errors):
    """Returns the lines on standard error but those about the images and about what is assumed."""
    others = ("note: ", "/")
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith(others))


@pytest.mark.parametrize(
    ("known", "extra", "expected"),
    [
        (False, [], ASSUMED),
        (False, ["--base-is-public"], SAID),
        (False, ["--no-base-is-public"], ""),
        (True, [], KNOWN),
        (True, ["--no-base-is-public"], KNOWN),
    ],
)
def test_adapt_warns_of_a_public_base(tmp_path, capsys, known, extra, expected):
    checkpoint.write(tmp_path / "private.npz", random_params(tiny_model()), Metadata(image_size=16))
    base = "embedded" if known else tmp_path / "private.npz"
    options = ["--key", make_key(tmp_path), "--checkpoint", base, "--output", tmp_path / "out.npz", "--image-size=64"]
    assert run_ppvit("adapt", *options, *extra) == 0
    assert _warnings(capsys.readouterr().err) == expected


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ([], ASSUMED),
        (["--base-is-public"], SAID),
        (["--no-base-is-public"], ""),
        # No model can be adapted to these, so no model reveals the key.
        (["--encryption=pe"], ""),
        (["--encryption=etc"], ""),
        (["--encryption=etc:shared=True"], ASSUMED),
    ],
)
def test_encrypt_warns_by_the_argument_alone(tmp_path, capsys, extra, expected):
    write_images(tmp_path / "in", ["a/1.png"])
    options = ["--key", make_key(tmp_path), "--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert run_ppvit("encrypt", *options, "--image-size=32", "--patch-size=8", *extra) == 0
    assert _warnings(capsys.readouterr().err) == expected


@pytest.mark.slow
def test_encrypt_warns_without_slow_imports(tmp_path):
    write_images(tmp_path / "in", ["a/1.png"])
    options = ["encrypt", "--key", make_key(tmp_path), "--input", tmp_path / "in", "--output", tmp_path / "out"]
    program = (
        "import sys; from ppvit_jax.__main__ import main; main(sys.argv[1:]); "
        "print([name for name in ('jax', 'scipy', 'ppvit_jax.audit.public_checkpoints') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, *map(str, options), "--image-size=32", "--patch-size=8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert _warnings(done.stderr) == ASSUMED and done.stdout.splitlines()[-1] == "[]"
