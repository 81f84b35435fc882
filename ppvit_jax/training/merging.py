"""Whole models, made of a base and the delta of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ppvit_jax import adaptation, checkpoint, models
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import low_rank

_SHOWN_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Merged:
    """A whole model.

    Attributes:
      params: the parameters.
      metadata: the delta's record, without its part about the base.
      shape: the model's shape.
      is_plain: True if the delta is of an adapted model, and the base is the plain model before adaptation, so that
        `params` take plain images.
      image_sha256: digest of the tensors that touch the image, as the run began with them.
    """

    params: models.Params
    metadata: checkpoint.Metadata
    shape: models.ModelConfig
    is_plain: bool = False
    image_sha256: str = ""

    def adapt(self, permutations: Permutations, base: Path) -> models.Params:
        """Returns the parameters adapted to the permutations, for a model that `is_plain`.

        Args:
          permutations: those of the key and encryption that the delta names.
          base: name of the base, for the message.

        Raises:
          UserError: the tensors are not those with which the run began.
        """
        params = adaptation.adapt(self.params, permutations)
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        if checkpoint.digest_base(flat, models.family_of(self.shape)).image_sha256 != self.image_sha256:
            raise UserError(
                f"the base {base}, adapted with this key, is not the model that was trained: give the adapted model as "
                "--base"
            )
        return params


def merge(path: Path, base: Path, dtype: str = "") -> Merged:
    """Makes a whole model of a delta and its base.

    The base is prepared as the run prepared it: without its head, with the positions of the run's image size, and for
    the run's normalization.

    Args:
      path: the delta.
      base: the model that the run started from, in any form that can be read. For the delta of an adapted model, it may
        also be the plain model before adaptation.
      dtype: the compute dtype; "" for float64 if the delta or the base has that, and float32 otherwise.

    Raises:
      UserError: a file cannot be read, `path` is no delta, or the delta was made with another base.
    """
    arrays, metadata = checkpoint.read(path, delta=True)
    delta = metadata.delta
    if delta is None:
        raise UserError(f"{path} is a whole model, and no delta: use it as it is")
    stored, record = checkpoint.open_checkpoint(base)
    record = checkpoint.complete_record(base, record)
    stored, _ = checkpoint.split(stored)
    wide = any(array.dtype == np.float64 for array in (*arrays.values(), *stored.values()))
    shape = _infer_shape(path, base, stored, metadata, arrays, dtype or ("float64" if wide else "float32"))
    params = checkpoint.to_params(stored, shape, keep_head=False, where=str(base))
    if record.mean and metadata.mean:
        params = adaptation.fold_normalization(params, record.normalization, metadata.normalization)
    is_plain = _check_base(path, base, params, metadata, record)
    _check_trained(path, params, arrays, models.family_of(shape).heads)
    whole = replace_trained(params, arrays, delta)
    flat: dict[str, Any] = flatten_dict(whole, sep="/")
    checkpoint.check_record(path, metadata, flat)
    return Merged(whole, dataclasses.replace(metadata, delta=None), shape, is_plain, delta.digest.image_sha256)


def replace_trained(params: models.Params, arrays: dict[str, np.ndarray], delta: checkpoint.Delta) -> models.Params:
    """Returns a base's parameters with the trained tensors of a delta.

    Args:
      params: all parameters of the base, numpy arrays.
      arrays: the delta's arrays by name.
      delta: its record.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    dtypes = {name: array.dtype for name, array in flat.items()}
    factors = {name: array.astype(np.float64) for name, array in arrays.items() if low_rank.is_factor(name)}
    flat |= {name: array for name, array in arrays.items() if name not in factors}
    merged = low_rank.merge_factors(unflatten_dict(flat, sep="/"), unflatten_dict(factors, sep="/"), delta.alpha)
    flat = flatten_dict(merged, sep="/")
    return unflatten_dict({name: flat[name].astype(dtype, copy=False) for name, dtype in dtypes.items()}, sep="/")


def _infer_shape(
    path: Path,
    base: Path,
    stored: dict[str, np.ndarray],
    metadata: checkpoint.Metadata,
    arrays: dict[str, np.ndarray],
    dtype: str,
) -> Any:
    """Returns the shape of the run's model.

    Raises:
      UserError: the base's shape cannot be inferred, or the delta is damaged.
    """
    shape: Any = models.infer_config(
        stored, where=str(base), dtype=dtype, image_size=metadata.image_size, options=metadata.model_options
    )
    head = arrays.get(f"{models.family_of(shape).head}/bias")
    if head is None or head.ndim != 1:
        raise UserError(f"the delta {path} has no head: it is damaged, so get it again")
    width = metadata.delta.representation_size if metadata.delta else 0
    return dataclasses.replace(
        shape, image_size=metadata.image_size, num_classes=len(head), representation_size=width or None
    )


def _check_trained(path: Path, params: models.Params, arrays: dict[str, np.ndarray], heads: tuple[str, ...]) -> None:
    """Checks that a delta has a whole head and pairs of factors, and nothing else.

    Raises:
      UserError: it has more or less; the message names one such tensor.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    wanted = {name for name in flat if name.startswith(heads)}
    for name in filter(low_rank.is_factor, arrays):
        wanted |= {f"{name.rpartition('/')[0]}/{factor}" for factor in low_rank.FACTORS}
    wrong = wanted ^ arrays.keys()
    wrong |= {name for name in arrays.keys() & flat.keys() if arrays[name].shape != flat[name].shape}
    wrong |= {name for name in arrays if low_rank.is_factor(name) and arrays[name].ndim != 2}
    if wrong:
        raise UserError(
            f"the delta {path} lacks {min(wrong)}, or has it in another shape or without need: it is damaged, so get "
            "it again"
        )


def _check_base(
    path: Path, base: Path, params: models.Params, metadata: checkpoint.Metadata, record: checkpoint.Metadata
) -> bool:
    """Checks that a delta belongs to a base.

    Args:
      path: the delta.
      base: the base.
      params: the base's parameters, prepared as for the run.
      metadata: the delta's record.
      record: the base's record.

    Returns:
      True if the base is the plain model before the adaptation to which the delta belongs.

    Raises:
      UserError: it was made with another base, or with the same one adapted to another key.
    """
    delta: Any = metadata.delta
    family: Any = models.recognize(params)
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    digest, wanted = checkpoint.digest_base(flat, family), delta.digest
    if digest.sha256 != wanted.sha256 or not digest.has_norms_of(wanted):
        differs = digest.sha256 != wanted.sha256
        pair = [value.sha256[:_SHOWN_DIGITS] for value in (wanted, digest)]
        detail = (
            f"SHA-256 {pair[0]}..., not {pair[1]}..." if differs else "its embedding of patches and positions differs"
        )
        raise UserError(
            f"{path} is a delta for another base than {base} ({detail}): give {delta.base}, from which it was made"
        )
    if digest.image_sha256 == wanted.image_sha256:
        return False
    ours, theirs = (metadata.encryption, metadata.key_fingerprint), (record.encryption, record.key_fingerprint)
    if ours == theirs:
        return False
    if record.encryption == "none":
        return True
    raise UserError(
        f"{path} is a delta of a model {_describe(*ours)}, and the base {base} is {_describe(*theirs)}: give the model "
        "that it was made from"
    )


def _describe(encryption: str, fingerprint: str | None) -> str:
    if encryption == "none":
        return "that is plain"
    return f"adapted to {encryption!r} (key fingerprint {fingerprint})"
