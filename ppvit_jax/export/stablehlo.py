"""A model as one StableHLO program for CPUs, NVIDIA GPUs and TPUs, in a zip archive with its description.

The program is what `jax.export` serializes (https://docs.jax.dev/en/latest/export/export.html), and has the weights as
constants. A later JAX reads it for at least six months.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from ppvit_jax import models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.errors import UserError
from ppvit_jax.export.description import DESCRIPTION, PROGRAM, Description, describe
from ppvit_jax.files import local_path, written_aside
from ppvit_jax.models import Params, Statistics, Target
from ppvit_jax.training.compiler import fix_precision

PLATFORMS = ("cpu", "cuda", "tpu")
# The serialization is a FlatBuffer, whose offsets have 31 bits. The rest is for the program itself.
LARGEST_WEIGHTS = 2**31 - 2**26


def write_stablehlo(
    path: Path, shape: models.ModelConfig, params: Params, statistics: Statistics, metadata: Metadata
) -> None:
    """Writes a model as a StableHLO program, whole or not at all.

    Args:
      path: the file, which is replaced if it exists.
      shape: the model's shape. With the compute dtype bfloat16, the kernels are stored in it as well.
      params: its parameters.
      statistics: its statistics.
      metadata: the record of its checkpoint.

    Raises:
      UserError: the weights are too large for one file.
    """
    params = jax.tree.map_with_path(lambda name, value: _store(name, value, shape.dtype), params)
    size = sum(array.nbytes for array in jax.tree.leaves(params))
    if size > LARGEST_WEIGHTS:
        fits_in_half = shape.dtype == "float32" and size / 2 < LARGEST_WEIGHTS
        advice = "give --dtype bfloat16, or " if fits_in_half else ""
        raise UserError(
            f"the weights have {size / 1e9:.1f} GB, but a StableHLO file takes at most "
            f"{LARGEST_WEIGHTS / 1e9:.1f} GB: {advice}give --output a name that ends with .onnx"
        )
    program = export_program(shape, params, statistics, metadata).serialize()
    description = {**describe(shape, metadata), "platforms": list(PLATFORMS)}
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        # Without the time, the same model gives the same file.
        archive.writestr(zipfile.ZipInfo(DESCRIPTION), json.dumps(description, indent=2) + "\n")
        archive.writestr(zipfile.ZipInfo(PROGRAM), program)


def export_program(
    shape: models.ModelConfig, params: Params, statistics: Statistics, metadata: Metadata
) -> jax_export.Exported:
    """Returns the program for all PLATFORMS: uint8 [batch, size, size, 3] -> float32 logits [batch, classes].

    The batch size is symbolic, so that the program takes any.
    """
    apply = models.build(models.retarget(shape, Target("any"))).apply
    mean, std = metadata.normalization

    def compute_logits(images: jax.Array) -> jax.Array:
        # A conversion by numpy would store the kernels in float32.
        widened = jax.tree.map(lambda array: jax.lax.convert_element_type(array, jnp.float32), params)
        return apply(widened, normalize_images(images, mean, std, shape.dtype), statistics).astype(jnp.float32)

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *models.input_shape(shape)), jnp.uint8)
    compiled = jax.jit(fix_precision(compute_logits, shape.dtype))
    with _without_source_paths():
        return jax_export.export(compiled, platforms=PLATFORMS)(images)


def load_stablehlo(path: str | os.PathLike) -> tuple[Callable[[jax.Array | np.ndarray], jax.Array], Description]:
    """Reads the StableHLO program that `ppvit export` has written.

    Args:
      path: the file.

    Returns:
      A function of images, uint8 [batch, size, size, 3], to logits, float32 [batch, classes]; and the description. JAX
      compiles the function for its default device, once for each size of a batch.

    Raises:
      UserError: the file is damaged or of another kind.
      OSError: the file cannot be read.
    """
    file = local_path(path)
    try:
        with zipfile.ZipFile(file) as archive:
            description = json.loads(archive.read(DESCRIPTION))
            exported = jax_export.deserialize(bytearray(archive.read(PROGRAM)))
    except OSError:
        raise
    except Exception:
        # A damaged program raises errors of many classes.
        raise UserError(f"{file} is no StableHLO file of ppvit export, or is damaged: export the model again") from None
    return jax.jit(exported.call), description


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Keeps paths of this machine, such as that of a home folder, out of the programs that are lowered inside."""
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, limit)


def _store(name: tuple, value: np.ndarray | jax.Array, dtype: str) -> np.ndarray:
    """Returns a parameter in the dtype of the file: kernels in the compute dtype, and all others in float32."""
    is_kernel = getattr(name[-1], "key", "") == "kernel"
    return np.asarray(value).astype(jnp.dtype(dtype) if is_kernel else np.float32, copy=False)
