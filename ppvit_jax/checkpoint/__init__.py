"""Checkpoints for exchange with other programs: Google's `.npz` layout <-> params."""

from ppvit_jax.checkpoint.metadata import Metadata
from ppvit_jax.checkpoint.npz import EMBEDDED, check_finite, read, resolve, write
from ppvit_jax.checkpoint.params import check_statistics, join, split, to_params

__all__ = [
    "EMBEDDED",
    "Metadata",
    "check_finite",
    "check_statistics",
    "join",
    "read",
    "resolve",
    "split",
    "to_params",
    "write",
]
