"""Content of a folder that Hugging Face's `AutoModelForImageClassification` loads."""

import dataclasses
import json
from typing import Any

import numpy as np

from checkpoints_convert.foreign_files import Files
from checkpoints_convert.hugging_face import ACTIVATIONS, make_processor
from checkpoints_convert.hugging_face_config import ModelType
from checkpoints_convert.names import from_google, with_prefix
from checkpoints_convert.tensors import FIELD
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.errors import UserError
from ppvit_jax.models import ViTConfig


@dataclasses.dataclass(frozen=True)
class _Target:
    """Classes of transformers for a type of models.

    Attributes:
      model_type: the type that is written, which is another one for MAE's encoder.
      classifiers: the class for each pooling whose features its classifier takes.
      bare: the class of a model without a head.
      bare_type: the type of a model without a head; "" for `model_type`.
    """

    model_type: str
    classifiers: dict[str, str]
    bare: str
    bare_type: str = ""


_VIT = _Target("vit", {"token": "ViTForImageClassification"}, "ViTModel")
_SIGLIP = _Target("siglip", {"norm_mean": "SiglipForImageClassification"}, "SiglipVisionModel", "siglip_vision_model")
_TARGETS = {
    "vit": _VIT,
    "vit_mae": _VIT,
    "deit": _Target(
        "deit",
        {"token": "DeiTForImageClassification", "distilled": "DeiTForImageClassificationWithTeacher"},
        "DeiTModel",
    ),
    # The classifier takes the class token and the mean of the patches; a head on the token alone has zeros there.
    **{
        name: _Target(name, dict.fromkeys(("token", "token_mean"), f"{title}ForImageClassification"), f"{title}Model")
        for name, title in (("dinov2", "Dinov2"), ("dinov2_with_registers", "Dinov2WithRegisters"))
    },
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "clip": _Target("clip_vision_model", {}, "CLIPVisionModel"),
    "clip_vision_model": _Target("clip_vision_model", {}, "CLIPVisionModel"),
}


def make(kind: ModelType, arrays: dict[str, np.ndarray], shape: ViTConfig, metadata: Metadata) -> Files:
    """Returns the content of a folder for Hugging Face's transformers.

    Args:
      kind: the type of the model that ours came from.
      arrays: our arrays by name.
      shape: the model's shape.
      metadata: the record.

    Raises:
      UserError: transformers has no class that computes such a model.
    """
    target, pool, has_head = _TARGETS[kind.name], shape.layout.pool, "head/kernel" in arrays
    if has_head and pool not in target.classifiers:
        others = " or ".join(target.classifiers) or "features before the last normalization"
        raise UserError(
            f"the head takes features that are pooled by {pool!r}, but Hugging Face's classifier of the type "
            f"{target.model_type!r} takes {others}"
        )
    table = kind.foreign.names.hugging_face
    if kind.name == "dinov2_with_registers":
        table = with_prefix(table, "dinov2.", "dinov2_with_registers.")
    state = from_google(arrays, table, layers=shape.layers, shape=shape)
    prefix = "" if not kind.name.startswith("dinov2") else f"{kind.name}."
    if prefix:
        # A vector that training by masks needs.
        state[f"{prefix}embeddings.mask_token"] = np.zeros((1, shape.hidden_size), np.float32)
        if has_head and pool == "token":
            weight = state["classifier.weight"]
            state["classifier.weight"] = np.concatenate([weight, np.zeros_like(weight)], axis=1)
    architecture = target.classifiers[pool] if has_head else target.bare
    model_type = target.model_type if has_head else target.bare_type or target.model_type
    config = {"architectures": [architecture], "model_type": model_type, "dtype": "float32"}
    encoder = _encoder_config(kind, shape)
    config |= {"vision_config": {"model_type": target.bare_type, **encoder}} if model_type == "siglip" else encoder
    if has_head:
        names = metadata.class_names or tuple(f"LABEL_{number}" for number in range(shape.num_classes))
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    config[FIELD] = json.loads(metadata.to_json())
    processor = make_processor(metadata, shape.image_size)
    loader = "AutoModelForImageClassification" if has_head else "AutoModel"
    note = f"load it by transformers.{loader}.from_pretrained('FOLDER')"
    return Files(state, {"config.json": config, "preprocessor_config.json": processor}, note)


def _encoder_config(kind: ModelType, shape: ViTConfig) -> dict[str, Any]:
    layout = shape.layout
    config: dict[str, Any] = {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_act": ACTIVATIONS[shape.activation][0],
        "layer_norm_eps": shape.epsilon,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "num_channels": 3,
    }
    if not kind.has_mlp_ratio:
        config["intermediate_size"] = shape.mlp_size
    else:
        config |= {"mlp_ratio": _mlp_ratio(shape), "use_swiglu_ffn": layout.gated, "qkv_bias": True}
    if kind.name == "dinov2_with_registers":
        config["num_register_tokens"] = layout.registers
    if kind.foreign.title == "SigLIP":
        config["vision_use_head"] = layout.pool == "map"
    return config


def _mlp_ratio(shape: ViTConfig) -> int:
    """Returns the ratio from which transformers computes the size of the MLP; SwiGLU's size is two thirds of it."""
    for ratio in range(1, 17):
        size = ratio * shape.hidden_size
        if (size if not shape.layout.gated else (int(size * 2 / 3) + 7) // 8 * 8) == shape.mlp_size:
            return ratio
    raise UserError(f"Hugging Face's DINOv2 has no MLP of the size {shape.mlp_size} for {shape.hidden_size} features")
