"""Independent references: `from helpers.pytorch import timm, torch, transformers`."""

import importlib
from typing import Any

import torch

from benchmarks.pytorch import import_timm

# timm comes first: `import_timm` makes torchvision importable, which transformers needs, too. Both are Any, because
# their type hints do not fit their use.
timm: Any = import_timm()
importlib.import_module("timm.data")
transformers: Any = importlib.import_module("transformers")

__all__ = ["timm", "torch", "transformers"]
