"""Models, one file a family; nothing outside this package imports flax.linen."""

from ppvit_jax.models.vit import (
    Model,
    ViTConfig,
    build,
    infer_config,
    model_name,
    parse_name,
    resize_position_embedding,
)

__all__ = ["Model", "ViTConfig", "build", "infer_config", "model_name", "parse_name", "resize_position_embedding"]
