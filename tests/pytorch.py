"""PyTorch and what stands on it, the independent references: `from pytorch import timm, torch, transformers`.

torchvision, which timm needs, cannot be imported beside a build of PyTorch that its compiled operators were not
made for (one for processors alone beside one for CUDA). No model here uses these operators, so that naming them is
enough.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import torch

_spec = importlib.util.find_spec("torchvision")
try:
    import torchvision  # noqa: F401
except RuntimeError:
    assert _spec is not None and _spec.origin is not None
    _source = Path(_spec.origin).with_name("_meta_registrations.py").read_text()
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in set(re.findall(r'register_fake\("torchvision::(\w+)"\)', _source)):
        _library.define(f"{_name}(Tensor x) -> Tensor")

import timm as _timm  # noqa: E402
import timm.data  # noqa: E402
import transformers as _transformers  # noqa: E402

# Their types are looser than their use.
timm: Any = _timm
transformers: Any = _transformers

__all__ = ["timm", "torch", "transformers"]
