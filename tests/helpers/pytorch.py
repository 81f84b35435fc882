"""PyTorch and what stands on it, the independent references: `from pytorch import timm, torch, transformers`."""

import importlib
from typing import Any

import torch

from benchmarks.pytorch import import_timm

# First, for it makes torchvision fit, which transformers needs too. The types of both are looser than their use.
timm: Any = import_timm()
importlib.import_module("timm.data")
transformers: Any = importlib.import_module("transformers")

__all__ = ["timm", "torch", "transformers"]
