"""Content of a folder that timm loads."""

from typing import Any

import numpy as np

from checkpoints_convert import timm_config
from checkpoints_convert.foreign import of_config
from checkpoints_convert.foreign_files import Files
from checkpoints_convert.names import from_google
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.errors import UserError
from ppvit_jax.models import ViTConfig
from ppvit_jax.models.siglip import FAMILY as SIGLIP


def make(architecture: str, arrays: dict[str, np.ndarray], shape: ViTConfig, metadata: Metadata) -> Files:
    """Returns the content of a folder for timm.

    Args:
      architecture: the name of timm's architecture; "" if it is not known, and then there is no config.json.
      arrays: our arrays by name.
      shape: the model's shape.
      metadata: the record.

    Raises:
      UserError: timm has no such model.
    """
    state = make_state(arrays, shape)
    arguments = _arguments(shape)
    mean, std = metadata.normalization
    pretrained: dict[str, Any] = {
        "input_size": [3, shape.image_size, shape.image_size],
        "mean": list(mean),
        "std": list(std),
        "num_classes": shape.num_classes,
    }
    if metadata.resize:
        pretrained |= {"crop_pct": 1.0, "crop_mode": "squash" if metadata.resize == "squash" else "center"}
    if metadata.class_names:
        pretrained["label_names"] = list(metadata.class_names)
    config = {
        "architecture": architecture,
        "num_classes": shape.num_classes,
        "model_args": arguments,
        "pretrained_cfg": pretrained,
    }
    line = timm_config.create_model_line(shape, architecture)
    note = (
        f"load it by timm.create_model({architecture or 'NAME'!r}, {line}, "
        f"checkpoint_path='FOLDER/model.safetensors'); its images have mean {tuple(mean)} and std {tuple(std)}"
    )
    return Files(state, {"config.json": config} if architecture else {}, note)


def make_state(arrays: dict[str, np.ndarray], shape: ViTConfig) -> dict[str, np.ndarray]:
    """Returns the tensors of timm's model.

    Raises:
      UserError: timm has no such model.
    """
    layout, foreign = shape.layout, of_config(shape)
    if not foreign.names.timm:
        raise UserError(f"models of {foreign.title} can be read from timm's files, but not written to them")
    if layout.pool == "token_mean":
        raise UserError("timm has no model whose head takes the class token and the mean of the patches (token_mean)")
    if layout.distillation_token and layout.pool != "distilled" and "head/kernel" in arrays:
        if layout.pool != "token":
            raise UserError(f"timm's DeiT has a head for each of two tokens, and not for pooling by {layout.pool}")
        # timm takes the mean of two heads: twice ours, and zeros.
        for name in ("kernel", "bias"):
            head = arrays[f"head/{name}"]
            arrays = {**arrays, f"head/{name}": 2 * head, f"head_dist/{name}": np.zeros_like(head)}
    positions = foreign.family.positions
    if layout.registers and layout.prefix_rows:
        # The class token of timm's models with registers contains its position.
        rows = arrays[positions]
        arrays = {**arrays, "cls": arrays["cls"] + rows[:, :1], positions: rows[:, 1:]}
    return from_google(arrays, foreign.names.timm, layers=shape.layers, shape=shape)


def _arguments(shape: ViTConfig) -> dict[str, Any]:
    """Returns the arguments of timm's model, all that the shape decides."""
    layout, mlp_size = shape.layout, shape.mlp_size * (2 if shape.layout.gated else 1)
    arguments: dict[str, Any] = {
        "img_size": shape.image_size,
        "patch_size": shape.patch_size,
        "embed_dim": shape.hidden_size,
        "depth": shape.layers,
        "num_heads": shape.heads,
        # timm rounds the product down.
        "mlp_ratio": (mlp_size + 0.5) / shape.hidden_size,
        **timm_config.pool_arguments(shape),
    }
    if not layout.gated:
        arguments["act_layer"] = shape.activation
    if layout.class_token and not layout.distillation_token:
        arguments["no_embed_class"] = layout.prefix_rows == 0 or layout.registers > 0
    if of_config(shape).family is SIGLIP:
        arguments["class_token"] = False
    return arguments
