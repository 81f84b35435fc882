"""Estimates of memory, traffic and FLOPs for training a Vision Transformer on one or many devices."""

from ppvit_jax.training.scaling.cost import StepCost, step_cost
from ppvit_jax.training.scaling.products import forward_flops, step_flops
from ppvit_jax.training.scaling.setup import OPTIMIZER_COPIES, Setup
from ppvit_jax.training.scaling.traffic import sent_bytes

__all__ = [
    "OPTIMIZER_COPIES",
    "Setup",
    "StepCost",
    "forward_flops",
    "sent_bytes",
    "step_cost",
    "step_flops",
]
