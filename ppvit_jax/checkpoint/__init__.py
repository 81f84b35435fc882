"""Checkpoints for exchange with other programs: Google's `.npz` layout <-> params."""

from ppvit_jax.checkpoint.delta import BaseDigest, Delta, digest_base
from ppvit_jax.checkpoint.metadata import Metadata
from ppvit_jax.checkpoint.notes import (
    check_record,
    complete_record,
    describe_images,
    describe_normalization,
    describe_resize,
    list_assumptions,
)
from ppvit_jax.checkpoint.npz import EMBEDDED, check_finite, is_delta, is_remote, read, resolve, write
from ppvit_jax.checkpoint.params import check_statistics, join, split, to_params
from ppvit_jax.checkpoint.published import (
    is_checkpoint,
    is_from_elsewhere,
    open_checkpoint,
    weights_file,
    write_folder,
)

__all__ = [
    "EMBEDDED",
    "BaseDigest",
    "Delta",
    "Metadata",
    "check_finite",
    "check_record",
    "check_statistics",
    "complete_record",
    "describe_images",
    "describe_normalization",
    "describe_resize",
    "digest_base",
    "is_checkpoint",
    "is_delta",
    "is_from_elsewhere",
    "is_remote",
    "join",
    "list_assumptions",
    "open_checkpoint",
    "read",
    "resolve",
    "split",
    "to_params",
    "weights_file",
    "write",
    "write_folder",
]
