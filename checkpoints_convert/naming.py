"""Names of a foreign file's tensors: their common prefix, averaged weights, and parts that Google's models lack."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from ppvit_jax.errors import UserError, print_note

# Counters, and parameters of a loss, which training programs save beside the model.
_LEFT_OUT = re.compile(r"(.*\.)?(num_batches_tracked|n_averaged)|(criterion|loss|loss_fn|loss_fct)\..*")
# Names of other programs.
_PROGRAMS = (
    (
        r"(.*\.)?embeddings\.(cls_token|patch_embeddings)",
        "its names are Hugging Face's: give its folder to hf-to-npz",
    ),
    (r"(Transformer|embedding)/", "its names are Google's already"),
    (r"conv_proj\.|encoder\.layers\.encoder_layer_", "its names are torchvision's, whose models cannot be converted"),
    (r"(visual|text_model|vision_model|transformer\.resblocks)\.", "it has the image and text towers of CLIP"),
)
# Parts of other models, by the names of their tensors. Google's Vision Transformers have none of them.
_PARTS = (
    (r"layers\.\d+\.blocks\.|.*relative_position_bias", "it has the windows or relative positions of a Swin or BEiT"),
    (r"decoder|mask_token", "it has the decoder or mask token of a masked autoencoder"),
    (r"reg_token|register_tokens", "it has register tokens"),
    (r"dist_token|head_dist\.", "it has a distillation token, as DeiT"),
    (r"blocks\.\d+\.attn\.[qk]_norm\.", "it normalizes queries and keys (qk_norm)"),
    (r"blocks\.\d+\.(ls[12]\.gamma|gamma_[12])", "it has layer scale (init_values)"),
    (r"fc_norm\.", "it normalizes after average pooling (fc_norm)"),
    (r"norm_pre\.", "it normalizes before the first block (pre_norm), as CLIP"),
    (r"attn_pool\.", "it pools by attention (global_pool='map')"),
    (r"patch_embed\.(backbone|norm|conv)", "it has a convolutional or normalized patch embedding"),
    (r"blocks\.\d+\.(mlp\.(norm|w12|w3|fc1_g|fc1_x)|attn\.norm)", "it has a gated MLP, or norms inside its blocks"),
    (r"rope\.|.*rel_pos", "it has rotary or relative positions"),
    (r"(stem|stages)\.", "it has the stages of a convolutional network"),
)


def strip_prefix(
    state: Mapping[str, np.ndarray], anchor: str, *, weights: str | None, averaged: bool, where: str
) -> dict[str, np.ndarray]:
    """Removes the one prefix that wrappers such as DistributedDataParallel and Lightning put before all names.

    Args:
      state: tensors by name.
      anchor: a name, or the end of one, that every model of the program has, such as "cls_token".
      weights: "ema", "model" or None, for a file with both under different prefixes; None prefers the average.
      averaged: True if the tensors are an average already.
      where: the file's name, for messages.

    Raises:
      UserError: several models remain, or the file has tensors beside the model.
    """
    state = {name: tensor for name, tensor in state.items() if not _LEFT_OUT.fullmatch(name)}
    prefixes = sorted({name[: -len(anchor)] for name in state if name == anchor or name.endswith(f".{anchor}")})
    averages = [prefix for prefix in prefixes if re.search(r"(^|[._])ema([._]|$)", prefix)]
    others = [prefix for prefix in prefixes if prefix not in averages]
    if weights == "ema" and not averaged and not averages:
        raise UserError(f"{where} has no averaged weights: leave out --weights ema")
    if averages and others:
        chosen = others if weights == "model" else averages
        kind, rest = ("", averages) if weights == "model" else ("averaged ", others)
        print_note(
            f"the {kind}weights {chosen[0]}* of {where} are converted, and not {', '.join(p + '*' for p in rest)}"
        )
        dropped = tuple({*prefixes} - {*chosen} - {""})
        state = {name: tensor for name, tensor in state.items() if not dropped or not name.startswith(dropped)}
        prefixes = chosen
    if len(prefixes) > 1:
        shown = ", ".join(repr(prefix) for prefix in prefixes)
        raise UserError(f"{where} holds several models, with the prefixes {shown}: save one of them alone")
    if not prefixes or not prefixes[0]:
        return state
    prefix = prefixes[0]
    if beside := [name for name in state if not name.startswith(prefix)]:
        raise UserError(
            f"{where} has {list_names(beside)} beside the model {prefix}*: save the model alone, with its own head"
        )
    print_note(f"the prefix {prefix} is removed from the names in {where}")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def refuse_obstacles(names: Iterable[str], *, where: str, parts: bool = True) -> None:
    """Refuses a model by the first name that timm's Vision Transformers do not have.

    Args:
      names: names of tensors.
      where: the file's name, for messages.
      parts: False if the names may be those of a part that some family has, so that only other programs are refused.

    Raises:
      UserError: the model has such a part; the message names it and a tensor of it.
    """
    for pattern, reason in (*_PROGRAMS, *_PARTS) if parts else _PROGRAMS:
        if name := next((name for name in names if re.match(pattern, name)), None):
            raise UserError(f"{where} is not one of Google's Vision Transformers: {reason} ({name})")


def generic(name: str) -> str:
    """Returns a tensor's name with "{}" for the number of its block, as tables have it."""
    return re.sub(r"\.\d+\.", ".{}.", name, count=1)


def list_names(names: list[str]) -> str:
    """Lists the first five names, in alphabetical order."""
    return ", ".join(sorted(names)[:5]) + (" and others" if len(names) > 5 else "")
