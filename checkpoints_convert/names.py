"""Tables that map the tensors of other programs to Google's arrays: one a program, read in both directions."""

import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from ppvit_jax.errors import UserError

_BLOCK = "Transformer/encoderblock_{}/"
_ATTENTION = "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/"


@dataclasses.dataclass(frozen=True)
class Form:
    """Layout of one tensor.

    Attributes:
      to_google: (tensor of the other program, number of heads) -> Google's array.
      from_google: Google's array -> tensor of the other program.
    """

    to_google: Callable[[np.ndarray, int], np.ndarray]
    from_google: Callable[[np.ndarray], np.ndarray]


SAME = Form(lambda tensor, heads: tensor, lambda array: array)
# [outputs, inputs] <-> [inputs, outputs]
DENSE = Form(lambda tensor, heads: tensor.T, lambda array: array.T)
# [hidden, 3, patch, patch] <-> [patch, patch, 3, hidden]
CONVOLUTION = Form(lambda tensor, heads: tensor.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1))
# [heads * size, hidden] <-> [hidden, heads, size]
TO_HEADS = Form(
    lambda tensor, heads: tensor.T.reshape(tensor.shape[1], heads, -1),
    lambda array: array.reshape(array.shape[0], -1).T,
)
# [heads * size] <-> [heads, size]
BIAS_OF_HEADS = Form(lambda tensor, heads: tensor.reshape(heads, -1), lambda array: array.reshape(-1))
# [hidden, heads * size] <-> [heads, size, hidden]
FROM_HEADS = Form(
    lambda tensor, heads: tensor.T.reshape(heads, -1, tensor.shape[0]),
    lambda array: array.reshape(-1, array.shape[-1]).T,
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Names and layout of one tensor.

    Attributes:
      other: its name in the other program, with "{}" for the number of the block.
      google: Google's name; several names for a tensor that joins their arrays along its first axis.
      form: its layout.
    """

    other: str
    google: tuple[str, ...]
    form: Form = SAME


Table = tuple[Entry, ...]


def both(other: str, google: str, form: Form) -> Table:
    """Returns the entries for the weight and bias of a dense layer or convolution."""
    return (Entry(f"{other}.weight", (f"{google}/kernel",), form), Entry(f"{other}.bias", (f"{google}/bias",)))


def norm(other: str, google: str) -> Table:
    """Returns the entries for the scale and bias of a layer normalization."""
    return (Entry(f"{other}.weight", (f"{google}/scale",)), Entry(f"{other}.bias", (f"{google}/bias",)))


def _heads(name: str) -> tuple[str, ...]:
    return tuple(f"{_ATTENTION}{kind}/{name}" for kind in ("query", "key", "value"))


TIMM: Table = (
    Entry("cls_token", ("cls",)),
    Entry("pos_embed", ("Transformer/posembed_input/pos_embedding",)),
    *both("patch_embed.proj", "embedding", CONVOLUTION),
    *norm("blocks.{}.norm1", f"{_BLOCK}LayerNorm_0"),
    Entry("blocks.{}.attn.qkv.weight", _heads("kernel"), TO_HEADS),
    Entry("blocks.{}.attn.qkv.bias", _heads("bias"), BIAS_OF_HEADS),
    *both("blocks.{}.attn.proj", f"{_ATTENTION}out", FROM_HEADS),
    *norm("blocks.{}.norm2", f"{_BLOCK}LayerNorm_2"),
    *both("blocks.{}.mlp.fc1", f"{_BLOCK}MlpBlock_3/Dense_0", DENSE),
    *both("blocks.{}.mlp.fc2", f"{_BLOCK}MlpBlock_3/Dense_1", DENSE),
    *norm("norm", "Transformer/encoder_norm"),
    # Models of timm had this layer before version 0.8.
    *both("pre_logits.fc", "pre_logits", DENSE),
    *both("head", "head", DENSE),
)

_LAYER = "vit.encoder.layer.{}"
# These are the names in files. The modules of transformers 5 have other names, which it translates.
HUGGING_FACE: Table = (
    Entry("vit.embeddings.cls_token", ("cls",)),
    Entry("vit.embeddings.position_embeddings", ("Transformer/posembed_input/pos_embedding",)),
    *both("vit.embeddings.patch_embeddings.projection", "embedding", CONVOLUTION),
    *norm(f"{_LAYER}.layernorm_before", f"{_BLOCK}LayerNorm_0"),
    *(
        entry
        for kind in ("query", "key", "value")
        for entry in (
            Entry(f"{_LAYER}.attention.attention.{kind}.weight", (f"{_ATTENTION}{kind}/kernel",), TO_HEADS),
            Entry(f"{_LAYER}.attention.attention.{kind}.bias", (f"{_ATTENTION}{kind}/bias",), BIAS_OF_HEADS),
        )
    ),
    *both(f"{_LAYER}.attention.output.dense", f"{_ATTENTION}out", FROM_HEADS),
    *norm(f"{_LAYER}.layernorm_after", f"{_BLOCK}LayerNorm_2"),
    *both(f"{_LAYER}.intermediate.dense", f"{_BLOCK}MlpBlock_3/Dense_0", DENSE),
    *both(f"{_LAYER}.output.dense", f"{_BLOCK}MlpBlock_3/Dense_1", DENSE),
    *norm("vit.layernorm", "Transformer/encoder_norm"),
    *both("classifier", "head", DENSE),
)


def to_google(state: Mapping[str, np.ndarray], table: Table, *, heads: int, where: str) -> dict[str, np.ndarray]:
    """Converts tensors of another program to Google's arrays of the same dtypes.

    Args:
      state: tensors by the other program's names.
      table: the table of that program.
      heads: number of attention heads.
      where: the file's name, for messages.

    Raises:
      UserError: a tensor has an impossible shape, or none of Google's Vision Transformers has it.
    """
    entries = {entry.other: entry for entry in table}
    arrays, unknown = {}, []
    for name, tensor in state.items():
        number = re.search(r"\.(\d+)\.", name)
        entry = entries.get(name[: number.start(1)] + "{}" + name[number.end(1) :] if number else name)
        if entry is None:
            unknown.append(name)
            continue
        try:
            parts = np.split(tensor, len(entry.google))
            for google, part in zip(entry.google, parts, strict=True):
                arrays[google.format(number[1] if number else "")] = entry.form.to_google(part, heads)
        except ValueError:
            raise UserError(f"{where}: {name} has the impossible shape {tensor.shape}") from None
    if unknown:
        shown = ", ".join(sorted(unknown)[:5]) + (" and others" if len(unknown) > 5 else "")
        raise UserError(f"{where} is not one of Google's Vision Transformers: it also has {shown}")
    return arrays


def from_google(arrays: Mapping[str, np.ndarray], table: Table, *, layers: int) -> dict[str, np.ndarray]:
    """Converts Google's arrays, as far as there are, to contiguous tensors of another program, of the same dtypes."""
    state = {}
    for entry in table:
        for number in range(layers) if "{}" in entry.other else (0,):
            names = [google.format(number) for google in entry.google]
            if all(name in arrays for name in names):
                parts = [entry.form.from_google(np.asarray(arrays[name])) for name in names]
                state[entry.other.format(number)] = np.ascontiguousarray(np.concatenate(parts))
    return state
