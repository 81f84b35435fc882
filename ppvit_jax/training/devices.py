"""Sharding of training state, images and batches across devices and processes."""

import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ppvit_jax.data.source import ArraySource, Source, from_text

Tree = TypeVar("Tree")
# Images that take up to this fraction of a device's memory may lie there.
_FRACTION_FOR_IMAGES = 1 / 8
# Tensors of fewer elements stay whole: gathering them would take longer than they save.
_MIN_SHARDED_ELEMENTS = 2**12


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """Returns the two shardings of a run on all devices: replicated, and with the batch axis sharded."""
    mesh = _mesh()
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def state_shardings(state: Tree, sharding: str) -> Tree:
    """Returns the sharding of each tensor of a training state: a tree of NamedSharding like `state`.

    Args:
      state: a tree of arrays or their shapes.
      sharding: "data_parallel", whole on each device; or "fully_sharded", every large tensor in equal parts along the
        longest axis that the devices divide (arXiv 1910.02054, stage 3; XLA gathers a layer where it is used).
    """
    mesh = _mesh()

    def shard(leaf: jax.Array) -> NamedSharding:
        axis = split_axis(np.shape(leaf), mesh.size) if sharding == "fully_sharded" else None
        return NamedSharding(mesh, PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data"))

    return jax.tree.map(shard, state)


def split_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """Returns the axis along which a fully sharded tensor is split among the devices, None if it stays whole."""
    divisible = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if not divisible or math.prod(shape) < _MIN_SHARDED_ELEMENTS:
        return None
    return max(divisible, key=lambda axis: shape[axis])


def shard_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Puts a batch on the devices, from this process's share of it."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def shard_batches(batches: Iterable[dict[str, np.ndarray]], images: jax.Array | None) -> Iterator[dict[str, jax.Array]]:
    """Puts batches on the devices, one after another.

    Args:
      batches: from `data.train_batches` or `data.test_batches`: with "index" if there are images on the devices, else
        with "image".
      images: uint8 [n, height, width, 3], from `replicate_images`.

    Yields:
      Batches with "image": uint8 [batch, height, width, 3].
    """
    _, batch_sharded = shardings()
    for batch in batches:
        sharded = shard_batch(batch, batch_sharded)
        yield sharded if images is None else _take_images(images, sharded)


def replicate_images(source: Source, on_device: str | bool) -> jax.Array | None:
    """Puts all images of a source on every device, so that a step is sent the indices of its images alone.

    Args:
      source: the images.
      on_device: "auto", True or False. "auto" puts images on an accelerator with enough memory. Images that are
        decoded on access stay where they are.

    Returns:
      uint8 [n, height, width, 3], or None where batches bring the images.
    """
    choice = from_text(on_device)
    if not isinstance(source, ArraySource) or not (_has_room(source) if choice == "auto" else choice):
        return None
    replicated, _ = shardings()
    return jax.device_put(source.images, replicated)


def gather_to_host(tree: Tree) -> Tree:
    """Returns a tree of numpy arrays, from arrays that may be sharded over the devices of several processes."""
    replicated, _ = shardings()
    return jax.device_get(jax.jit(lambda arrays: arrays, out_shardings=replicated)(tree))


@jax.jit
def _take_images(images: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    others = {name: array for name, array in batch.items() if name != "index"}
    return {"image": images[batch["index"]], **others}


def _has_room(source: ArraySource) -> bool:
    device = jax.local_devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform != "cpu" else 0
    return source.images.nbytes <= _FRACTION_FOR_IMAGES * memory


def _mesh() -> Mesh:
    # Explicit axes, the default, refuse the class token's concatenation.
    return jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))
