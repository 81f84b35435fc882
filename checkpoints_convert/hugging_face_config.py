"""Types of models of Hugging Face that can be read, and what their config.json leaves out."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from checkpoints_convert import refused
from checkpoints_convert.foreign import FOREIGN, HALF, IMAGENET, OPENAI, Foreign, Normalization
from ppvit_jax.errors import UserError
from ppvit_jax.models import ViTConfig
from ppvit_jax.models.dinov3 import FAMILY as DINOV3
from ppvit_jax.models.encoder import ROTARY_BASE
from ppvit_jax.models.rotary import grid_angles

_Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ModelType:
    """Type of models, with the values that a config.json without a field means.

    Attributes:
      name: `model_type` in config.json.
      foreign: the family.
      architectures: the classes whose files can be read.
      anchor: the name of a tensor that all models of the type have.
      patch_size, image_size, heads, activation, epsilon: values of absent fields.
      nested: the field that holds the image encoder's configuration; "" if it is not nested.
      has_mlp_ratio: True if config.json has the MLP's size as a multiple of the hidden size.
      normalization: mean and standard deviation of its image processor by default.
      complete: (our arrays, config.json) -> the arrays with those that the files do not have.
    """

    name: str
    foreign: Foreign
    architectures: tuple[str, ...]
    anchor: str
    patch_size: int = 16
    image_size: int = 224
    heads: int = 12
    activation: str = "gelu"
    epsilon: float = 1e-12
    nested: str = ""
    has_mlp_ratio: bool = False
    normalization: Normalization = HALF
    complete: Callable[[_Arrays, Mapping[str, Any]], _Arrays] = lambda arrays, config: arrays

    def pool(self, names: Collection[str]) -> str:
        """Returns the features that the classifier takes; "" for the family's usual ones, and without a classifier."""
        if "classifier.weight" not in names:
            return ""
        return {"DeiT": "token", "DINOv2": "token_mean", "SigLIP": "norm_mean"}.get(self.foreign.title, "")


def _add_angles(arrays: _Arrays, config: Mapping[str, Any]) -> _Arrays:
    """Adds the angles of the rotary positions to the arrays of a DINOv3.

    Raises:
      UserError: the frequencies have another base than those of the published models.
    """
    if config.get("rope_theta", ROTARY_BASE) != ROTARY_BASE:
        raise UserError(f"the model has rope_theta={config['rope_theta']!r}, but only {ROTARY_BASE} can be converted")
    patch, _, _, _ = arrays["embedding/kernel"].shape
    head_size = arrays["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias"].shape[1]
    grid = config.get("image_size", 224) // patch
    return arrays | {DINOV3.positions: grid_angles(grid, head_size, ROTARY_BASE)[None]}


_DINOV2: dict[str, Any] = {
    "foreign": FOREIGN["dinov2"],
    "anchor": "dinov2.embeddings.cls_token",
    "patch_size": 14,
    "epsilon": 1e-6,
    "has_mlp_ratio": True,
    "normalization": IMAGENET,
}
_SIGLIP: dict[str, Any] = {
    "foreign": FOREIGN["siglip"],
    "anchor": "vision_model.embeddings.patch_embedding.weight",
    "activation": "gelu_pytorch_tanh",
    "epsilon": 1e-6,
}
_CLIP: dict[str, Any] = {
    "foreign": FOREIGN["clip"],
    "anchor": "vision_model.embeddings.class_embedding",
    "patch_size": 32,
    "activation": "quick_gelu",
    "epsilon": 1e-5,
    "normalization": OPENAI,
}
_VIT: dict[str, Any] = {"foreign": FOREIGN["vit"], "anchor": "vit.embeddings.cls_token"}

TYPES = {
    kind.name: kind
    for kind in (
        ModelType("vit", architectures=("ViTForImageClassification", "ViTModel"), **_VIT),
        ModelType("vit_mae", architectures=("ViTMAEForPreTraining", "ViTMAEModel"), normalization=IMAGENET, **_VIT),
        ModelType(
            "deit",
            FOREIGN["deit"],
            ("DeiTForImageClassification", "DeiTForImageClassificationWithTeacher", "DeiTModel"),
            "deit.embeddings.cls_token",
            normalization=IMAGENET,
        ),
        ModelType("dinov2", architectures=("Dinov2ForImageClassification", "Dinov2Model"), **_DINOV2),
        ModelType(
            "dinov2_with_registers",
            architectures=("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersModel"),
            **_DINOV2,
        ),
        ModelType(
            "dinov3_vit",
            FOREIGN["dinov3"],
            ("DINOv3ViTModel",),
            "dinov3.embeddings.cls_token",
            epsilon=1e-5,
            normalization=IMAGENET,
            complete=_add_angles,
        ),
        ModelType(
            "siglip", architectures=("SiglipForImageClassification", "SiglipModel"), nested="vision_config", **_SIGLIP
        ),
        ModelType("siglip_vision_model", architectures=("SiglipVisionModel",), **_SIGLIP),
        ModelType("clip", architectures=("CLIPForImageClassification", "CLIPModel"), nested="vision_config", **_CLIP),
        ModelType("clip_vision_model", architectures=("CLIPVisionModel", "CLIPVisionModelWithProjection"), **_CLIP),
    )
}


def find_type(config: Mapping[str, Any], where: str) -> ModelType:
    """Returns the type of a model by its config.json.

    Raises:
      UserError: such models cannot be read; the message has the type, and the reason if it is known.
    """
    if "model_type" not in config and isinstance(config.get("architecture"), str):
        raise UserError(f"{where} is a folder of timm: give the file of weights in it to ppvit convert timm-to-npz")
    name = config.get("model_type")
    if isinstance(name, str) and name in TYPES:
        return TYPES[name]
    reason = refused.reason(name) if isinstance(name, str) else ""
    shown = ", ".join(repr(known) for known in TYPES)
    raise UserError(
        f"{where} is a model of type {name!r}, but only {shown} can be converted{f': {reason}' if reason else ''}"
    )


def vision_config(config: Mapping[str, Any], kind: ModelType) -> dict[str, Any]:
    """Returns the configuration of the image encoder, with the classes and labels of the whole model."""
    if not kind.nested:
        return dict(config)
    shared = ("architectures", "id2label", "num_labels", "problem_type", "quantization_config")
    nested = config.get(kind.nested)
    return (nested if isinstance(nested, dict) else {}) | {name: config[name] for name in shared if name in config}


def check_shape(config: Mapping[str, Any], kind: ModelType, shape: ViTConfig, where: str) -> None:
    """Compares the configuration with the shapes of the tensors.

    Raises:
      UserError: they differ; the message has both values.
    """
    from checkpoints_convert.hugging_face import side

    stated = {
        "hidden_size": (config.get("hidden_size", 768), shape.hidden_size),
        "num_hidden_layers": (config.get("num_hidden_layers", 12), shape.layers),
        "patch_size": (side(config, "patch_size", kind.patch_size, where), shape.patch_size),
        "image_size": (side(config, "image_size", kind.image_size, where), shape.image_size),
    }
    if not kind.has_mlp_ratio:
        stated["intermediate_size"] = (config.get("intermediate_size", 3072), shape.mlp_size)
    labels = config.get("id2label")
    if shape.num_classes and (labels or isinstance(config.get("num_labels"), int)):
        stated["num_labels"] = (len(labels) if labels else config["num_labels"], shape.num_classes)
    for name, (configured, actual) in stated.items():
        if configured != actual:
            raise UserError(
                f"{where} has {name}={configured} in config.json, but its weights have {actual}: "
                "use the config.json that was saved with the weights"
            )
