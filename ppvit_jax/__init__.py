"""Fine-tune Vision Transformers on images that are encrypted with a secret key.

The adapted model computes on encrypted images what the plain model computes on plain ones:

>>> import numpy as np
>>> import ppvit_jax as ppvit
>>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
>>> key = ppvit.generate_key()
>>> permutations = ppvit.derive_permutations(key, "bs+ps", image_size=64, block_size=8)
>>> encrypted = ppvit.encrypt(images, permutations, block_size=8)
>>> params, metadata = ppvit.load_checkpoint("embedded")
>>> adapted = ppvit.adapt(params, permutations)
>>> logits = ppvit.compute_logits(adapted, encrypted)
>>> np.allclose(logits, ppvit.compute_logits(params, images), atol=1e-4)
True

Fine-tuning is `ppvit.train(ppvit.load_config("configs/demo.py", ["--config.epochs=1"]), "runs/demo")`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppvit_jax.adaptation import adapt, fold_normalization, rekey, restore
    from ppvit_jax.checkpoint import Metadata
    from ppvit_jax.checkpoint import write as save_checkpoint
    from ppvit_jax.config import load as load_config
    from ppvit_jax.encryption import Encryption, Permutations, decrypt, derive_permutations, encrypt
    from ppvit_jax.encryption import parse as parse_encryption
    from ppvit_jax.errors import UserError
    from ppvit_jax.export.stablehlo import load_stablehlo
    from ppvit_jax.keys import SecretKey
    from ppvit_jax.keys import generate as generate_key
    from ppvit_jax.keys import load as load_key
    from ppvit_jax.keys import save as save_key
    from ppvit_jax.training.experiment import run as train
    from ppvit_jax.training.inference import compute_logits, load_checkpoint

__version__ = "0.1.0"
__all__ = [
    "Encryption",
    "Metadata",
    "Permutations",
    "SecretKey",
    "UserError",
    "adapt",
    "compute_logits",
    "decrypt",
    "derive_permutations",
    "encrypt",
    "fold_normalization",
    "generate_key",
    "load_checkpoint",
    "load_config",
    "load_key",
    "load_stablehlo",
    "parse_encryption",
    "rekey",
    "restore",
    "save_checkpoint",
    "save_key",
    "train",
]
# Modules are loaded when a name is first used, so that `import ppvit_jax` is instant and the cloud loads no keys.
_MODULES = {
    "adaptation": {
        "adapt": "adapt",
        "fold_normalization": "fold_normalization",
        "rekey": "rekey",
        "restore": "restore",
    },
    "checkpoint": {"Metadata": "Metadata", "save_checkpoint": "write"},
    "config": {"load_config": "load"},
    "encryption": {
        "Encryption": "Encryption",
        "Permutations": "Permutations",
        "decrypt": "decrypt",
        "derive_permutations": "derive_permutations",
        "encrypt": "encrypt",
        "parse_encryption": "parse",
    },
    "errors": {"UserError": "UserError"},
    "export.stablehlo": {"load_stablehlo": "load_stablehlo"},
    "keys": {"SecretKey": "SecretKey", "generate_key": "generate", "load_key": "load", "save_key": "save"},
    "training.experiment": {"train": "run"},
    "training.inference": {"compute_logits": "compute_logits", "load_checkpoint": "load_checkpoint"},
}
_NAMES = {name: (module, original) for module, names in _MODULES.items() for name, original in names.items()}


def __getattr__(name: str) -> Any:
    """Loads a name of the interface (PEP 562)."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _NAMES[name]
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), original)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
