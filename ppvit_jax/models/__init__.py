"""Models, one file per family. Nothing outside this package imports flax.linen."""

from ppvit_jax.models.families import (
    OPTIONS,
    abstract_statistics,
    build,
    family_of,
    infer_config,
    input_shape,
    model_name,
    parameter_shapes,
    parse_name,
    recognize,
    recorded_options,
    resize_positions,
    unused_layers,
)
from ppvit_jax.models.family import Family
from ppvit_jax.models.model import Model, ModelConfig, Params, Statistics, TrainOutput, leaf, replace_leaf
from ppvit_jax.models.target import REMATS, Target, retarget, set_training_mode
from ppvit_jax.models.vit import ViTConfig

__all__ = [
    "OPTIONS",
    "REMATS",
    "Family",
    "Model",
    "ModelConfig",
    "Params",
    "Statistics",
    "Target",
    "TrainOutput",
    "ViTConfig",
    "abstract_statistics",
    "build",
    "family_of",
    "infer_config",
    "input_shape",
    "leaf",
    "model_name",
    "parameter_shapes",
    "parse_name",
    "recognize",
    "recorded_options",
    "replace_leaf",
    "resize_positions",
    "retarget",
    "set_training_mode",
    "unused_layers",
]
