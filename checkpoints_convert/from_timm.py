"""Models of timm, read from its safetensors and PyTorch files, with the config.json beside them if there is one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints_convert import command, naming, record, refused, tensors, timm_config
from checkpoints_convert.converted import Choices, Converted
from checkpoints_convert.foreign import Foreign, of_timm
from checkpoints_convert.names import to_google
from ppvit_jax import checkpoint
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.models.clip import FAMILY as CLIP
from ppvit_jax.models.vit import FAMILY as VIT

_ASSUMED = {
    "gelu_tanh": "the tanh form of the GELU is assumed ({}--activation gelu: exact)",
    "gelu": "the exact GELU is assumed, as timm computes it ({}--activation sets another)",
    "quick_gelu": "the quick GELU of OpenAI's models is assumed ({}--activation gelu: OpenCLIP's)",
}
# The start of Metadata.origin, before the architecture's name.
ORIGIN = "timm"


def read(path: Path, choices: Choices, weights_file: tensors.Tensors | None = None) -> Converted:
    """Reads a model of timm.

    Args:
      path: the file of weights; timm's config.json may lie beside it.
      choices: choices that the file may not record.
      weights_file: its content, if it has been read.

    Raises:
      UserError: a file cannot be read, or holds another kind of model.
    """
    where, config_file = str(path), path.parent / "config.json"
    config = timm_config.read(config_file)
    refused.refuse_architecture(config.get("architecture"), where)
    content = weights_file or tensors.read(path, choices.weights)
    mapped, foreign = _select(content, choices, where)
    num_classes = len(mapped["head.weight"]) if "head.weight" in mapped else 0
    skipped = tuple(
        entry.other for entry in foreign.names.timm if any(name.startswith(choices.skip) for name in entry.google)
    )
    kept = [name for name in mapped if not (choices.skip and naming.generic(name) in skipped)]
    state = tensors.load(tensors.Tensors(mapped, mapped=content.mapped), kept, where)
    # A record in the file itself is of these very weights; config.json may be of another file in the folder.
    if content.record or not timm_config.fits(config, num_classes=num_classes, where=str(config_file)):
        config = {}
    timm_config.check_arguments(config, foreign, str(config_file))
    recorded_heads = choices.heads if choices.heads is not None else content.heads or timm_config.heads(config)
    hidden = state["patch_embed.proj.weight"].shape[0]
    heads = command.heads_of(hidden, recorded_heads, where, foreign.sizes)
    if foreign.family is VIT:
        state = _add_class_position(state)
    arrays = to_google(state, foreign.names.timm, heads=heads, where=where)
    options, assumed = _options(content, config, foreign, choices, mapped, str(config_file))
    shape = command.check_complete(arrays, where, checkpoint.Metadata(model_options=options), choices.skip)
    if recorded_heads is None:
        print_note(
            f"{where} does not record its attention heads: {heads} are assumed, which is usual "
            f"({choices.command}--heads sets others)"
        )
    if assumed:
        print_note(f"{where} does not record its activation: {assumed.format(choices.command)}")
    own = timm_config.own_fields(
        config,
        content.settings,
        num_classes=num_classes,
        image_size=shape.image_size,
        where=str(config_file),
    )
    if content.record is None:
        own = command.add_usual_normalization(own, foreign.normalization, foreign.title, where)
        own["origin"] = ":".join(filter(None, (ORIGIN, config.get("architecture"))))
    if config:
        title = config["architecture"]
        print_note(
            f"{config_file} describes {where} as {title}: its normalization, resizing and class names are recorded"
        )
    if content.record is None or options != content.record.model_options:
        own["model_options"] = options
    return Converted(arrays, record.merge(content.record, own, where=where), shape)


def _select(content: tensors.Tensors, choices: Choices, where: str) -> tuple[dict[str, np.ndarray], Foreign]:
    """Returns the tensors by timm's names, and their family.

    Raises:
      UserError: they are not those of a family.
    """
    naming.refuse_obstacles(content.state, where=where, parts=False)
    anchors = ("cls_token", "patch_embed.proj.weight")
    names = content.state
    anchor = next((a for a in anchors if any(name == a or name.endswith(f".{a}") for name in names)), anchors[0])
    state = naming.strip_prefix(content.state, anchor, weights=choices.weights, averaged=content.averaged, where=where)
    foreign = of_timm(state)
    if foreign.family is not VIT:
        state = {name: tensor for name, tensor in state.items() if not foreign.is_unused(name)}
    known = {entry.other for entry in foreign.names.timm}
    # A model normalizes after the mean of its tokens, or every token, but not both.
    twice = {"fc_norm.weight", "fc_norm.bias"} if "norm.weight" in state else set[str]()
    unknown = [name for name in state if naming.generic(name) not in known or name in twice]
    naming.refuse_obstacles(unknown, where=where)
    if "cls_token" not in state and foreign.family is VIT:
        raise UserError(f"{where} is not a Vision Transformer of timm with a class token: it has no cls_token")
    if "blocks.0.attn.qkv.weight" in state and "blocks.0.attn.qkv.bias" not in state:
        raise UserError(
            f"{where} has no biases of queries, keys and values (qkv_bias=False), which Google's models have"
        )
    _check_patches(state, where)
    return state, foreign


def _options(
    content: tensors.Tensors,
    config: Mapping[str, Any],
    foreign: Foreign,
    choices: Choices,
    state: Mapping[str, np.ndarray],
    config_file: str,
) -> tuple[dict[str, Any], str]:
    """Returns the options that the model's arrays do not show, where they differ from the family's; and an assumption.

    The second value is the assumption about the activation, for a note; "" if there is none.
    """
    options, assumed = dict(content.record.model_options) if content.record else {}, ""
    activation = choices.activation or timm_config.activation(config, config_file)
    if activation is None and content.record is None:
        activation = timm_config.usual_activation(config, foreign)
        assumed = _ASSUMED[activation] if foreign.family in (VIT, CLIP) else ""
    if activation is not None:
        options["activation"] = activation
    if pool := timm_config.pool(config, foreign, state, config_file):
        options["pool"] = pool
    return {name: value for name, value in options.items() if value != foreign.family.options.get(name)}, assumed


def _check_patches(state: Mapping[str, np.ndarray], where: str) -> None:
    """Refuses a model by its patches and positions, before their shapes are converted."""
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4 or "pos_embed" not in state:
        raise UserError(f"{where} has no patch embedding by a convolution, or no learned position embedding")
    _, channels, height, width = kernel.shape
    if channels != 3 or height != width:
        raise UserError(
            f"{where} has patches of {height}x{width} pixels and {channels} channels, but only square patches of RGB "
            "images can be represented"
        )


def _add_class_position(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the class token the position zero in a model whose position embedding is that of the patches alone."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3 or positions.shape[1] < 2:
        return state
    if round(positions.shape[1] ** 0.5) ** 2 != positions.shape[1]:
        return state
    return {**state, "pos_embed": np.concatenate([np.zeros_like(positions[:, :1]), positions], axis=1)}
