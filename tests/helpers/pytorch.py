"""Independent references: `from helpers.pytorch import timm, torch, transformers`."""

import importlib
from typing import Any

import torch

from benchmarks.pytorch import import_timm

# timm comes first: `import_timm` fixes the import of torchvision, which transformers needs, too.
timm: Any = import_timm()
importlib.import_module("timm.data")
transformers: Any = importlib.import_module("transformers")

__all__ = ["timm", "torch", "transformers"]
