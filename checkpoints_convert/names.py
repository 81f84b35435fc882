"""Tables that map the tensors of other programs to Google's arrays, read in both directions.

The tables are in `checkpoints_convert.tables`, one file a family.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from ppvit_jax.errors import UserError
from ppvit_jax.models.vit_config import ViTConfig

BLOCK = "Transformer/encoderblock_{}/"
ATTENTION = "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/"


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


# [hidden] <-> [1, 1, hidden]
TOKEN = Form(lambda tensor, heads: tensor.reshape(1, 1, -1), lambda array: array.reshape(-1))
# [rows, hidden] <-> [1, rows, hidden]
ROWS = Form(lambda tensor, heads: tensor[None], lambda array: array[0])


@dataclasses.dataclass(frozen=True)
class Entry:
    """Names and layout of one tensor.

    Attributes:
      other: its name in the other program, with "{}" for the number of the block.
      google: Google's name; several names for a tensor that joins their arrays along its first axis.
      form: its layout.
      when: shape of a model -> True if its tensor has this name. Such an entry takes the place of those before it that
        have the same `google`. None for a name that all models have.
    """

    other: str
    google: tuple[str, ...]
    form: Form = SAME
    when: Callable[[ViTConfig], bool] | None = None


Table = tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of a family's tensors in the files of other programs.

    Attributes:
      timm, hugging_face: the tables of both programs.
      prefixes: beginnings of the encoder's names in Hugging Face's files, such as "vit."; () if it has no such model.
        The table has the first one. "" stands for a file of the encoder alone.
      unused: regular expressions of names, in either program, of tensors that the family's models do not use.
      prepare: tensors by Hugging Face's names -> those that the table has.
    """

    timm: Table
    hugging_face: Table = ()
    prefixes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    prepare: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = lambda state: state


def both(other: str, google: str, form: Form, when: Callable[[ViTConfig], bool] | None = None) -> Table:
    """Returns the entries for the weight and bias of a dense layer or convolution."""
    return (
        Entry(f"{other}.weight", (f"{google}/kernel",), form, when),
        Entry(f"{other}.bias", (f"{google}/bias",), when=when),
    )


def norm(other: str, google: str, when: Callable[[ViTConfig], bool] | None = None) -> Table:
    """Returns the entries for the scale and bias of a layer normalization."""
    return (
        Entry(f"{other}.weight", (f"{google}/scale",), when=when),
        Entry(f"{other}.bias", (f"{google}/bias",), when=when),
    )


def of_heads(weight: str, bias: str, attention: str, kinds: tuple[str, ...]) -> Table:
    """Returns the entries for the projections to the heads, which one tensor may join.

    Args:
      weight, bias: the tensors' names.
      attention: Google's name of the attention, with "/" at its end.
      kinds: "query", "key" and "value", as far as the tensor has them.
    """
    return (
        Entry(weight, tuple(f"{attention}{kind}/kernel" for kind in kinds), TO_HEADS),
        Entry(bias, tuple(f"{attention}{kind}/bias" for kind in kinds), BIAS_OF_HEADS),
    )


def with_prefix(table: Table, old: str, new: str) -> Table:
    """Returns a table whose names begin with `new` where they began with `old`."""
    return tuple(
        dataclasses.replace(entry, other=new + entry.other.removeprefix(old)) if entry.other.startswith(old) else entry
        for entry in table
    )


def select(state: Mapping[str, np.ndarray], names: Names) -> tuple[dict[str, np.ndarray], list[str]]:
    """Selects the tensors that a family's models use.

    Args:
      state: tensors of timm or Hugging Face by name.
      names: the family's names.

    Returns:
      The tensors, by the names of the family's tables; and the names in `state` of those that are left out.
    """
    first = names.prefixes[0] if names.prefixes else ""
    prefix = next(
        (prefix for prefix in names.prefixes if prefix and any(name.startswith(prefix) for name in state)), ""
    )
    is_bare = "" in names.prefixes and any(
        entry.other.startswith(first) and entry.other.removeprefix(first) in state for entry in names.hugging_face
    )
    chosen, left_out = {}, []
    for name, tensor in state.items():
        known = name
        if (prefix and name.startswith(prefix)) or (is_bare and not prefix):
            known = first + name.removeprefix(prefix)
        if any(re.fullmatch(pattern, known) for pattern in names.unused):
            left_out.append(name)
        else:
            chosen[known] = tensor
    return chosen, left_out


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


def from_google(
    arrays: Mapping[str, np.ndarray], table: Table, *, layers: int, shape: ViTConfig | None = None
) -> dict[str, np.ndarray]:
    """Converts Google's arrays, as far as there are, to contiguous tensors of another program, of the same dtypes.

    Args:
      arrays: Google's arrays by name.
      table: the table of the other program.
      layers: number of encoder blocks.
      shape: the model's shape, which decides between the names of one tensor; None for the usual names.
    """
    entries = {
        entry.google: entry for entry in table if entry.when is None or (shape is not None and entry.when(shape))
    }
    state = {}
    for entry in entries.values():
        for number in range(layers) if "{}" in entry.other else (0,):
            names = [google.format(number) for google in entry.google]
            if all(name in arrays for name in names):
                parts = [entry.form.from_google(np.asarray(arrays[name])) for name in names]
                state[entry.other.format(number)] = np.ascontiguousarray(np.concatenate(parts))
    return state
