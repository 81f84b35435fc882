"""Deltas: checkpoints that hold the trained tensors of a run alone, and the record of the base that they belong to.

Adaptation permutes the tensors of a model that touch the image, and a run may rewrite these for another normalization
or image size. The digest of a base covers all others, so that a plain model and its adapted one have the same digest.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppvit_jax.models import Family

# Two sums of the same numbers in another order differ by less than this.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class BaseDigest:
    """Identity of a base model.

    Attributes:
      sha256: SHA-256, in hexadecimal, of all tensors but the head and those that touch the image.
      image_sha256: SHA-256 of the tensors that touch the image, adapted or not.
      image_norms: norm of each of these tensors, which no permutation changes.
    """

    sha256: str
    image_sha256: str
    image_norms: tuple[float, ...]

    def has_norms_of(self, other: "BaseDigest") -> bool:
        """Returns True if the tensors that touch the image have the same norms."""
        pairs = list(zip(self.image_norms, other.image_norms, strict=False))
        same = len(self.image_norms) == len(other.image_norms)
        return same and all(math.isclose(one, two, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for one, two in pairs)


@dataclasses.dataclass(frozen=True)
class Delta:
    """Record of a delta.

    Attributes:
      method: "lora" or "probe"; see `config.tuning`.
      base: name of the checkpoint that was tuned, without its folder.
      digest: identity of its parameters as the run began with them.
      rank, alpha, layers: as `config.tuning`; 0 and empty for the linear probe.
      representation_size: width of the base's `pre_logits` layer; 0 if the run did not use one.
    """

    method: str
    base: str
    digest: BaseDigest
    rank: int = 0
    alpha: float = 0.0
    layers: tuple[str, ...] = ()
    representation_size: int = 0

    @property
    def title(self) -> str:
        """Description of the method, such as "LoRA of rank 8 and alpha 16, layers query and value"."""
        if self.method == "lora":
            return f"LoRA of rank {self.rank} and alpha {self.alpha:g}, layers {' and '.join(self.layers)}"
        return "linear probe"

    @classmethod
    def from_fields(cls, fields: Any) -> "Delta":
        """Reads the fields that `dataclasses.asdict` writes.

        Raises:
          ValueError: they are not such fields.
        """
        try:
            digest = BaseDigest(**{**fields["digest"], "image_norms": tuple(fields["digest"]["image_norms"])})
            delta = cls(**{**fields, "digest": digest, "layers": tuple(fields["layers"])})
            texts = (delta.base, digest.sha256, digest.image_sha256, *delta.layers)
            numbers = (delta.rank, delta.alpha, delta.representation_size, *digest.image_norms)
            whole = isinstance(delta.rank, int) and isinstance(delta.representation_size, int)
            valid = whole and delta.method in ("lora", "probe") and all(0 <= number < math.inf for number in numbers)
            if valid and all(isinstance(text, str) and text.isprintable() for text in texts):
                return delta
        except (KeyError, TypeError):
            pass
        raise ValueError("the metadata has the field delta with an impossible value")


def digest_base(arrays: Mapping[str, np.ndarray], family: Family) -> BaseDigest:
    """Returns the identity of a base model.

    Args:
      arrays: all parameters by name, of any floating-point dtype; their values count, and not their dtype.
      family: the model's family.
    """
    touched = (family.patch_kernel, family.patch_bias, family.positions, family.mixing_matrix)
    others, image, norms = hashlib.sha256(), hashlib.sha256(), []
    for name in sorted(arrays):
        if name.startswith(family.heads):
            continue
        array = np.ascontiguousarray(arrays[name], dtype=np.float64)
        digest = image if name in touched else others
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.data)
        if name in touched:
            norms.append(float(np.linalg.norm(array)))
    return BaseDigest(others.hexdigest(), image.hexdigest(), tuple(norms))


def refusal(path: Any, delta: Delta, encryption: str) -> str:
    """Words a message about a delta where a whole model is needed."""
    merge = f"ppvit merge --base {delta.base} --delta {path} --output whole.npz"
    restore = f", or ppvit restore --key KEY --base {delta.base} --checkpoint {path} --output tuned.npz"
    return (
        f"{path} is a delta ({delta.title}), which holds the trained tensors alone: make a whole model by {merge}"
        f"{restore if encryption != 'none' else ''}"
    )
