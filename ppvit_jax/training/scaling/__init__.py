"""Estimates of memory, traffic and FLOPs for training a Vision Transformer on one or many devices."""

from ppvit_jax.training.scaling.activations import activation_bytes, attention_weight_bytes
from ppvit_jax.training.scaling.cost import StepCost, step_cost
from ppvit_jax.training.scaling.products import forward_flops, step_flops
from ppvit_jax.training.scaling.setup import OPTIMIZER_COPIES, Setup
from ppvit_jax.training.scaling.tensors import find_tensors, kept_parameters, parameter_count
from ppvit_jax.training.scaling.traffic import sent_bytes

__all__ = [
    "OPTIMIZER_COPIES",
    "Setup",
    "StepCost",
    "activation_bytes",
    "attention_weight_bytes",
    "find_tensors",
    "forward_flops",
    "kept_parameters",
    "parameter_count",
    "sent_bytes",
    "step_cost",
    "step_flops",
]
