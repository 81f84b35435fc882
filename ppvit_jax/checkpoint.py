"""Checkpoints for exchange: Google's `.npz` layout <-> params.

Our metadata (fingerprint, encryption, sizes) is in the zip archive's comment, where other loaders never look.
"""

import dataclasses
import hashlib
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import models
from ppvit_jax.errors import UserError

Params = dict[str, Any]
POSITION_EMBEDDING = "Transformer/posembed_input/pos_embedding"
# Training states of the original code keep the parameters under one of these.
_PREFIXES = ("opt/target/", "params/", "target/")
_COMMENT = b"ppvit "


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself.

    encryption and key_fingerprint: what the model is adapted to, or "none" and None for a plain one.
    """

    model: str = ""
    image_size: int = 0
    encryption: str = "none"
    key_fingerprint: str | None = None


def read(path: str | os.PathLike, sha256: str = "") -> tuple[dict[str, np.ndarray], Metadata]:
    """Reads a `.npz` checkpoint.

    Args:
      path: the file.
      sha256: what the file's SHA-256 must be, in hexadecimal; "" for anything.

    Returns:
      Arrays by name ("Transformer/encoderblock_0/LayerNorm_0/scale"), without the prefixes `opt/target/`,
      `target/` or `params/` and without an optimiser's state beside them; and the metadata (of a plain model
      where the file has none).

    Raises:
      UserError: the file is missing, truncated, damaged, not a `.npz` file, or of another SHA-256.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest() if sha256 else ""
    if found != sha256.lower():
        raise UserError(f"the checkpoint {path} has the SHA-256 {found} and not {sha256.lower()}: fetch it again")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            comment = archive.comment
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: _recover_bfloat16(file[name]) for name in file.files}
        metadata = Metadata()
        if comment.startswith(_COMMENT):
            known = {field.name for field in dataclasses.fields(Metadata)}
            fields = json.loads(comment[len(_COMMENT) :])
            metadata = Metadata(**{name: value for name, value in fields.items() if name in known})
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise UserError(
            f"the checkpoint {path} is truncated, damaged or not a .npz file ({error}): fetch it again"
        ) from None
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    return arrays, metadata


def write(path: str | os.PathLike, params: Params, metadata: Metadata) -> None:
    """Writes params in Google's layout, uncompressed; aside first, then renamed, so never half-written."""
    path = Path(path)
    arrays = {name: np.asarray(jax.device_get(array)) for name, array in flatten_dict(params, sep="/").items()}
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        with zipfile.ZipFile(aside, "a") as archive:
            archive.comment = _COMMENT + json.dumps(dataclasses.asdict(metadata)).encode()
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def to_params(
    arrays: dict[str, np.ndarray], config: models.ViTConfig, *, keep_head: bool, where: str = "the checkpoint"
) -> Params:
    """Fits a checkpoint's arrays to a model.

    The position embedding is interpolated to the model's grid. Without `keep_head` the head is new: zeros of
    the model's number of classes, as the original code does for fine-tuning. `pre_logits` is dropped when the
    model has none, as the original code does.

    Args:
      arrays: from `read`.
      config: the model's shape.
      keep_head: keep the checkpoint's head (ImageNet-21k's, or a tuned one).
      where: the checkpoint's name, for messages.

    Returns:
      The parameter tree, of float32 numpy arrays (float64 when the compute dtype is float64).

    Raises:
      UserError: one line that names every missing, extra and wrongly shaped parameter.
    """
    arrays = dict(arrays)
    shapes: dict[str, Any] = flatten_dict(jax.eval_shape(models.build(config).init, jax.random.key(0)), sep="/")
    expected = {name: leaf.shape for name, leaf in shapes.items()}
    if config.representation_size is None:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("pre_logits/")}
    if not keep_head:
        head = {name: np.zeros(shape, np.float32) for name, shape in expected.items() if name.startswith("head/")}
        arrays = {name: array for name, array in arrays.items() if not name.startswith("head/")} | head
    embedding = arrays.get(POSITION_EMBEDDING)
    if embedding is not None and embedding.ndim == 3 and embedding.shape != expected[POSITION_EMBEDDING]:
        arrays[POSITION_EMBEDDING] = models.resize_position_embedding(embedding, config.grid_size)

    problems = []
    if missing := sorted(expected.keys() - arrays.keys()):
        problems.append(f"missing {', '.join(missing)}")
    if extra := sorted(arrays.keys() - expected.keys()):
        problems.append(f"extra {', '.join(extra)}")
    wrong = [
        f"{name} has {arrays[name].shape} and needs {shape}"
        for name, shape in sorted(expected.items())
        if name in arrays and arrays[name].shape != shape
    ]
    if wrong:
        problems.append(f"wrong shapes: {', '.join(wrong)}")
    if problems:
        raise UserError(f"{where} does not fit the model: {'; '.join(problems)}")
    dtype = np.float64 if config.dtype == "float64" else np.float32
    return unflatten_dict({name: arrays[name].astype(dtype) for name in expected}, sep="/")


def _recover_bfloat16(array: np.ndarray) -> np.ndarray:
    # numpy stores bfloat16 as two-byte void.
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array
