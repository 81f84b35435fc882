"""Tensors of PyTorch and safetensors files, recognized by their content and read as weights alone."""

import argparse
import dataclasses
import io
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from checkpoints_convert import safetensors_file, shards
from ppvit_jax import checkpoint
from ppvit_jax.checkpoint.content import recognize, refusal
from ppvit_jax.errors import UserError, print_note, require

if TYPE_CHECKING:
    import torch

# The field of a safetensors header, of the attribute `_metadata` of a state dict, and of config.json.
FIELD = "ppvit"
# The number of attention heads, which the tensors of timm do not show, beside it.
_HEADS = "ppvit_heads"
# Names under which training programs keep weights: an average over the training, and the weights themselves.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_WEIGHTS = ("state_dict", "model", "model_state_dict", "module", "net", "weights")
WEIGHTS = ("ema", "model")


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Content of a file of weights.

    Attributes:
      state: tensors by name.
      record: metadata that a former export left in the file, or None.
      settings: arguments of the training program, if the file has them.
      heads: number of attention heads that a former export left in the file, or None.
      averaged: True if the tensors come from a training state's average.
      mapped: True if the tensors share the memory of the file, from which they are read when they are used.
    """

    state: dict[str, np.ndarray]
    record: checkpoint.Metadata | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    heads: int | None = None
    averaged: bool = False
    mapped: bool = False


def read(path: Path, weights: str | None = None) -> Tensors:
    """Reads a file of PyTorch or safetensors, whatever its ending, or the files that an index names.

    Args:
      path: the file of weights, or the index of several.
      weights: one of WEIGHTS, for a training state that has both; None prefers the average, as timm does.

    Raises:
      UserError: the file cannot be read, or holds something other than weights.
    """
    try:
        kind = recognize(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "index" or path.name.endswith(".index.json"):
        return _read_shards(path)
    if kind == "torch":
        return _read_torch(path, weights)
    if kind == "unknown":
        raise UserError(f"cannot read {path} as weights alone: it is neither a PyTorch nor a safetensors file")
    raise UserError(refusal(path, kind, "a PyTorch or safetensors file"))


def check_values(state: Mapping[str, np.ndarray], where: str) -> None:
    """Checks that all tensors are finite floating-point numbers.

    Raises:
      UserError: a tensor has other values; the message names it.
    """
    for name, tensor in state.items():
        if tensor.dtype.kind != "f" and tensor.dtype != ml_dtypes.bfloat16:
            raise _quantized(name, str(tensor.dtype), where)
    checkpoint.check_finite(state, where)


def write_safetensors(path: Path, state: dict[str, np.ndarray], record: checkpoint.Metadata, heads: int) -> None:
    """Writes a safetensors file, with the record and the number of heads in its header."""
    save_file(state, path, metadata={"format": "pt", **_fields(record, heads)})


def write_torch(path: Path, state: dict[str, np.ndarray], record: checkpoint.Metadata, heads: int) -> None:
    """Writes a state dict by torch.save, with the record in its attribute `_metadata`, which loaders ignore."""
    from collections import OrderedDict

    import torch

    tensors: Any = OrderedDict((name, _to_torch(np.array(array))) for name, array in state.items())
    tensors._metadata = OrderedDict(_fields(record, heads))
    # PyTorch reports a full disk as an error of its own; Python's writing raises an OSError.
    content = io.BytesIO()
    torch.save(tensors, content)
    path.write_bytes(content.getbuffer())


def _fields(record: checkpoint.Metadata, heads: int) -> dict[str, str]:
    return {FIELD: record.to_json(), _HEADS: str(heads)}


def _parse_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Tensors` that `_fields` has written.

    Raises:
      ValueError or TypeError: they are damaged.
    """
    text, heads = fields.get(FIELD), fields.get(_HEADS)
    return {"record": checkpoint.Metadata.from_json(text) if text else None, "heads": int(heads) if heads else None}


def _to_torch(array: np.ndarray) -> "torch.Tensor":
    import torch

    # numpy has no bfloat16, so the bits pass as integers.
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def load(tensors: Tensors, names: Iterable[str], where: str) -> dict[str, np.ndarray]:
    """Reads the tensors of these names, and checks that they are finite floating-point numbers.

    Raises:
      UserError: a tensor has other values; the message names it.
    """
    state = {}
    for name in names:
        tensor = tensors.state[name]
        if tensors.mapped and tensor.dtype.kind not in "iub":
            tensor = safetensors_file.load(tensor)
        # A tensor that was just read is checked while it is in the processor's cache.
        check_values({name: tensor}, where)
        state[name] = tensor
    return state


def _read_safetensors(path: Path) -> Tensors:
    try:
        state, texts = safetensors_file.map_tensors(path)
        return Tensors(state, mapped=True, **_parse_fields(texts))
    except safetensors_file.DtypeError as error:
        raise _quantized(error.args[0], error.args[1], str(path)) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} as safetensors: {_one_line(error)}; download it again") from None


def _read_shards(index: Path) -> Tensors:
    state: dict[str, np.ndarray] = {}
    for path, names in shards.read_index(index).items():
        content = _read_safetensors(path)
        if missing := sorted(names - content.state.keys()):
            raise UserError(f"{index} expects {missing[0]} in {path.name}, which lacks it: download both again")
        state |= {name: content.state[name] for name in names}
    return Tensors(state, mapped=True)


def _read_torch(path: Path, weights: str | None) -> Tensors:
    require(f"reading {path}", "convert", "torch", instead="use a .safetensors file")
    import torch

    try:
        # With weights_only, the file can create tensors and plain containers, and run no code. A namespace, in which
        # timm keeps the arguments of its training program, only holds attributes.
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
            # A path would be judged by its ending.
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    # PyTorch documents no type of exception for a file that is damaged or holds other objects.
    except Exception as error:
        raise UserError(f"cannot read {path} as weights alone: {_explain(path, error)}") from None
    settings = content.get("args") if isinstance(content, dict) else None
    settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    content, averaged = _unwrap(content, weights, str(path))
    try:
        fields = _parse_fields(getattr(content, "_metadata", {}))
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: its field {FIELD} is not the record of a checkpoint") from None
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"{path} is not a state dict: it holds values other than tensors")
    if left_out := [str(name) for name in content if name not in tensors]:
        print_note(f"values of {path} that are no tensors are left out: {', '.join(left_out[:5])}")
    state = {str(name): _to_numpy(str(name), tensor, str(path)) for name, tensor in tensors.items()}
    return Tensors(state, settings=settings if isinstance(settings, dict) else {}, averaged=averaged, **fields)


def _unwrap(content: Any, weights: str | None, where: str) -> tuple[dict[Any, Any], bool]:
    """Returns the state dict in a training state, which may be wrapped several times; True if it is an average."""
    averaged = False
    while isinstance(content, dict):
        inner = [name for name, value in content.items() if isinstance(value, dict) and _holds_tensors(value)]
        average = next((name for name in _AVERAGES if name in inner), None)
        plain = next((name for name in _WEIGHTS if name in inner), None)
        if average is None and plain is None and len(inner) == 1 and not _holds_tensors(content):
            plain = inner[0]
        name = average if average is not None and (weights != "model" or plain is None) else plain
        if name is None:
            return content, averaged
        if weights == "model" and name == average:
            raise UserError(f"{where} has no weights other than the average in {name}: give --weights ema")
        other = f", and not those in {plain}, which --weights model takes" if name == average and plain else ""
        print_note(f"the {'averaged ' if name == average else ''}weights in {name} of {where} are converted{other}")
        averaged, content = averaged or name == average, content[name]
    raise UserError(f"{where} is not a state dict: it holds values other than tensors")


def _holds_tensors(tree: Mapping[Any, Any]) -> bool:
    import torch

    return any(
        isinstance(value, torch.Tensor) or (name in _WEIGHTS and isinstance(value, dict) and _holds_tensors(value))
        for name, value in tree.items()
        if isinstance(name, str)
    )


def _to_numpy(name: str, tensor: "torch.Tensor", where: str) -> np.ndarray:
    import torch

    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
        raise _quantized(name, str(tensor.dtype if tensor.is_quantized else tensor.layout), where)
    tensor = tensor.detach().contiguous()
    try:
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()
    except (TypeError, RuntimeError):
        raise _quantized(name, str(tensor.dtype), where) from None


def _quantized(name: str, dtype: str, where: str) -> UserError:
    return UserError(
        f"{where} has {name} as {dtype.removeprefix('torch.')}, and quantized or integer weights cannot be converted: "
        "export the model in float32"
    )


def _explain(path: Path, error: Exception) -> str:
    """Explains in one sentence the reason for which PyTorch refused a file, and the command that helps."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused is None:
        return f"{_one_line(error)}; download it again, or save its state_dict() again"
    code = (
        f'import torch; c = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        'torch.save({k: getattr(v, "state_dict", lambda: v)() for k, v in c.items() if k.startswith(("state_dict", '
        '"model"))} if isinstance(c, dict) else c.state_dict(), "weights.pth")'
    )
    return (
        f"it also holds objects of {refused[1]}, which could run code: if you trust its source, save the weights alone "
        f"by python -c {shlex.quote(code)}, then convert weights.pth"
    )


def _one_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)) or type(error).__name__
    reason = re.search(r"WeightsUnpickler error: (.+)", text)
    first = reason[1] if reason else text.strip().splitlines()[0]
    return re.split(r"(?<=[a-z)])\. ", first)[0].rstrip(". ")[:300]
