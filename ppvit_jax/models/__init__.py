"""Models, one file a family; nothing outside this package imports flax.linen."""

from ppvit_jax.models.families import OPTIONS, build, input_shape, parameter_shapes, parse_name
from ppvit_jax.models.model import Model, ModelConfig, Params, Statistics, TrainOutput
from ppvit_jax.models.vit import ViTConfig, infer_config, model_name, resize_position_embedding

__all__ = [
    "OPTIONS",
    "Model",
    "ModelConfig",
    "Params",
    "Statistics",
    "TrainOutput",
    "ViTConfig",
    "build",
    "infer_config",
    "input_shape",
    "model_name",
    "parameter_shapes",
    "parse_name",
    "resize_position_embedding",
]
