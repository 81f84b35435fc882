"""Data sets (folders prepared by tfds, image folders, data sets in the package) and their batches, as uint8 arrays."""

from ppvit_jax.data.dataset import load
from ppvit_jax.data.loader import BatchOptions, test_batches, train_batches
from ppvit_jax.data.source import Dataset, Source

__all__ = ["BatchOptions", "Dataset", "Source", "load", "test_batches", "train_batches"]
