"""Whole programs for other machines: a model with its weights and normalization as StableHLO or ONNX."""

from ppvit_jax.export.description import Description, describe, read_description
from ppvit_jax.export.onnx_file import write_onnx
from ppvit_jax.export.stablehlo import load_stablehlo, write_stablehlo

__all__ = ["Description", "describe", "load_stablehlo", "read_description", "write_onnx", "write_stablehlo"]
