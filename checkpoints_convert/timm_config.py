"""Configuration that timm publishes beside weights (config.json), and the arguments that its training program saves."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from checkpoints_convert.foreign import Foreign, of_config
from checkpoints_convert.record import is_normalization
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.models import ViTConfig, family_of
from ppvit_jax.models.activations import ACTIVATIONS
from ppvit_jax.models.clip import FAMILY as CLIP
from ppvit_jax.models.siglip import FAMILY as SIGLIP
from ppvit_jax.models.vit import FAMILY as VIT

# Arguments of a model that its tensors do not show, with the values that Google's models have.
_FIXED = {
    "norm_layer": ("layernorm", "LayerNorm"),
    "in_chans": (3,),
    "qkv_bias": (True,),
}
# Tags of weights that were trained by Google's programs, which compute the tanh form of the GELU.
_GOOGLES = re.compile(r"augreg|orig|sam_|goog|webli|v2_webli|jft|i18n")


def read(path: Path) -> dict[str, Any]:
    """Reads a config.json of timm; {} if there is none, or if it is another program's.

    Returns:
      `architecture`, `num_classes`, `label_names`, and mean, std, input_size, crop_pct, interpolation and so on of its
      `pretrained_cfg`, in one dictionary, with the model's arguments as `model_args`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        return {}
    nested = content.get("pretrained_cfg")
    return {**(nested if isinstance(nested, dict) else {}), **content}


def own_fields(
    config: Mapping[str, Any], settings: Mapping[str, Any], *, num_classes: int, image_size: int, where: str
) -> dict[str, Any]:
    """Returns the fields of the metadata record that timm's own files decide.

    Args:
      config: the result of `read`.
      settings: arguments of timm's training program, whose mean and std are None by default.
      num_classes: outputs of the head; 0 for none.
      image_size: side of the model's images in pixels.
      where: the name of config.json, for messages.

    Raises:
      UserError: a value cannot be represented; the message has the value.
    """
    fields: dict[str, Any] = {}
    normalization = {name: _three(settings.get(name)) or _three(config.get(name)) for name in ("mean", "std")}
    if all(normalization.values()):
        if not is_normalization(**normalization):
            raise UserError(
                f"{where}, or the file itself, has mean {normalization['mean']} and std {normalization['std']}, which "
                "are no normalization of values from 0 to 1: give --mean and --std"
            )
        fields |= normalization
    labels = config.get("label_names") or config.get("labels")
    if isinstance(labels, list) and num_classes and len(labels) == num_classes:
        fields["class_names"] = tuple(str(label) for label in labels)
    if "crop_pct" in config or "crop_mode" in config:
        fields["resize"] = "squash" if config.get("crop_mode") == "squash" else "centre_crop"
        _note_preprocessing(config, image_size, where)
    return fields


def fits(config: Mapping[str, Any], *, num_classes: int, where: str) -> bool:
    """Returns True if a config.json can belong to weights, by the number of classes; prints a note otherwise."""
    stated = config.get("num_classes")
    if not config or not isinstance(stated, int) or stated == num_classes:
        return bool(config)
    print_note(
        f"{where} is of a model with {stated} classes, but the weights have {num_classes}: it is left out of account"
    )
    return False


def check_arguments(config: Mapping[str, Any], foreign: Foreign, where: str) -> None:
    """Refuses a model by its arguments.

    Raises:
      UserError: an argument has a value that models of the family do not have.
    """
    arguments = _arguments(config)
    for size in (config.get("input_size"), arguments.get("img_size"), arguments.get("patch_size")):
        if isinstance(size, list) and len(set(size[-2:])) > 1:
            raise UserError(f"{where} has the size {size}, but only square images and patches can be represented")
    tokens = foreign.family is not SIGLIP
    for name, values in (*_FIXED.items(), ("pre_norm", (foreign.family is CLIP,)), ("class_token", (tokens,))):
        value = arguments.get(name)
        if value is not None and value not in values:
            raise _refusal(where, name, value, foreign, values[0])


def pool(config: Mapping[str, Any], foreign: Foreign, state: Collection[str], where: str) -> str:
    """Returns the features that the head takes, one of `ppvit_jax.models.layout.POOLS`; "" for the family's usual ones.

    Args:
      config: the result of `read`.
      foreign: the model's family.
      state: names of the model's tensors.
      where: the name of config.json, for messages.

    Raises:
      UserError: config.json names others, or it contradicts the tensors.
    """
    if "fc_norm.weight" in state:
        return "mean"
    arguments = _arguments(config)
    theirs, pools_by_attention = arguments.get("global_pool"), "attn_pool.latent" in state
    usual = "map" if pools_by_attention else "avg" if foreign.family is SIGLIP else "token"
    if theirs in (None, usual):
        return "norm_mean" if usual == "avg" else ""
    # Without this argument, timm normalizes after it averages, by a layer of another name.
    if theirs == "avg" and not pools_by_attention and arguments.get("fc_norm") is False:
        return "norm_mean"
    raise _refusal(where, "global_pool", theirs, foreign, usual)


def usual_activation(config: Mapping[str, Any], foreign: Foreign) -> str:
    """Returns the activation of a model whose arguments do not name one."""
    architecture, tag = str(config.get("architecture", "")), str(config.get("tag", ""))
    if foreign.family is CLIP:
        return "quick_gelu" if not architecture or "quickgelu" in architecture else "gelu"
    if foreign.family is not VIT:
        return str(foreign.family.options["activation"])
    # timm has no argument of its own for the models of Google, and published them with the exact form.
    if not architecture.startswith("deit") and (not tag or _GOOGLES.search(tag)):
        return str(VIT.options["activation"])
    return "gelu"


def _refusal(where: str, name: str, value: object, foreign: Foreign, usual: object) -> UserError:
    owner = "Google's Vision Transformers have" if foreign.family is VIT else f"a {foreign.family.title} has"
    return UserError(f"{where} has {name}={value!r}, but {owner} {usual!r}: it cannot be converted")


def activation(config: Mapping[str, Any], where: str) -> str | None:
    """Returns our name of the activation that config.json records, or None.

    Raises:
      UserError: it is not a form of the GELU.
    """
    theirs = _arguments(config).get("act_layer")
    # timm has our names of them.
    if theirs is not None and theirs not in ACTIVATIONS:
        raise UserError(f"{where} has act_layer={theirs!r}, but only {', '.join(ACTIVATIONS)} can be converted")
    return theirs


def heads(config: Mapping[str, Any]) -> int | None:
    """Returns the number of attention heads that config.json records, or None."""
    value = _arguments(config).get("num_heads")
    return value if isinstance(value, int) else None


def create_model_line(shape: ViTConfig, architecture: str = "") -> str:
    """Returns the arguments of timm.create_model for a model, as a note shows them."""
    options: dict[str, Any] = {"num_classes": shape.num_classes, "img_size": shape.image_size, **pool_arguments(shape)}
    shown = [f"{name}={value!r}" for name, value in options.items()]
    usual = usual_activation({"architecture": architecture}, of_config(shape))
    if shape.activation != ("gelu" if usual == "gelu_tanh" else usual) and not shape.layout.gated:
        shown.append(f"act_layer={shape.activation!r}")
    if shape.epsilon != family_of(shape).options["epsilon"]:
        shown.append(f"norm_layer=functools.partial(torch.nn.LayerNorm, eps={shape.epsilon:g})")
    return ", ".join(shown)


def pool_arguments(shape: ViTConfig) -> dict[str, Any]:
    """Returns timm's arguments for a pooling that is not the family's usual one."""
    if shape.pool == "mean":
        return {"global_pool": "avg", "fc_norm": True}
    return {"global_pool": "avg", "fc_norm": False} if shape.pool == "norm_mean" else {}


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    arguments = config.get("model_args")
    pool = {"global_pool": config["global_pool"]} if isinstance(config.get("global_pool"), str) else {}
    return {**pool, **(arguments if isinstance(arguments, dict) else {})}


def _three(value: Any) -> tuple[float, ...]:
    """Returns three numbers, from three or one; () for anything else."""
    values = [value] if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) and abs(v) < 1e6 for v in values):
        return ()
    values = list(values) * 3 if len(values) == 1 else values
    return tuple(map(float, values)) if len(values) == 3 else ()


def _note_preprocessing(config: Mapping[str, Any], image_size: int, where: str) -> None:
    differences = []
    share = config.get("crop_pct", 1.0)
    if share != 1.0:
        differences.append(f"crops {share} of the resized side (crop_pct)")
    if (filter_name := config.get("interpolation", "bilinear")) != "bilinear":
        differences.append(f"resizes by the {filter_name} filter")
    if config.get("crop_mode") == "border":
        differences.append("pads images by a border")
    size = config.get("input_size")
    if isinstance(size, list) and size[1:] != [image_size, image_size]:
        differences.append(f"has images of {'x'.join(map(str, size[1:]))} pixels, not {image_size}x{image_size}")
    if differences:
        print_note(
            f"{where} {', '.join(differences)}: this program crops the whole shorter side and resizes bilinearly"
        )
