"""Sharding of training state, images and batches across devices and processes."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ppvit_jax.data.source import ArraySource, Source, from_text

Tree = TypeVar("Tree")
# Images are kept on a device if they take at most this fraction of its memory.
_FRACTION_FOR_IMAGES = 1 / 8
# Tensors with fewer elements are not split: gathering them would cost more than splitting saves.
_MIN_SHARDED_ELEMENTS = 2**12


def make_mesh(devices: Sequence[Any] = ()) -> Mesh:
    """Arranges devices along one axis, "data"; without arguments, all devices of all processes."""
    devices = devices or jax.devices()
    # Under Explicit axes, JAX's default, the models would have to name the sharding of every value.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def shardings(mesh: Mesh | None = None) -> tuple[NamedSharding, NamedSharding]:
    """Returns two shardings over a mesh, or over all devices: replicated, and split along the batch axis."""
    mesh = mesh or make_mesh()
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def state_shardings(state: Tree, sharding: str, mesh: Mesh | None = None) -> Tree:
    """Returns the sharding of each tensor of a training state.

    Args:
      state: a tree of arrays or of their shapes.
      sharding: "data_parallel" keeps every tensor whole on each device. "fully_sharded" splits every large tensor into
        equal parts, along the longest axis whose size is a multiple of the number of devices (ZeRO stage 3,
        arXiv 1910.02054). XLA gathers a layer where it is used.
      mesh: the devices; None for all.

    Returns:
      A tree of NamedSharding with the structure of `state`.
    """
    mesh = mesh or make_mesh()

    def shard(leaf: jax.Array) -> NamedSharding:
        axis = split_axis(np.shape(leaf), mesh.size) if sharding == "fully_sharded" else None
        return NamedSharding(mesh, PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data"))

    return jax.tree.map(shard, state)


def split_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """Returns the axis along which a fully sharded tensor is split among the devices, or None if it is not split."""
    divisible = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if not divisible or math.prod(shape) < _MIN_SHARDED_ELEMENTS:
        return None
    return max(divisible, key=lambda axis: shape[axis])


def shard_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Puts a global batch on the devices; each process passes its own part of the examples."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def shard_batches(batches: Iterable[dict[str, np.ndarray]], images: jax.Array | None) -> Iterator[dict[str, jax.Array]]:
    """Puts batches on the devices, one after another.

    Args:
      batches: output of `data.train_batches` or `data.test_batches`. Each batch has "index" if `images` are on the
        devices, and "image" otherwise.
      images: uint8 [n, height, width, 3] from `replicate_images`, or None.

    Yields:
      Batches with "image": uint8 [batch, height, width, 3].
    """
    _, batch_sharded = shardings()
    for batch in batches:
        sharded = shard_batch(batch, batch_sharded)
        yield sharded if images is None else _take_images(images, sharded)


def replicate_images(source: Source, on_device: str | bool) -> jax.Array | None:
    """Copies all images of a source to every device, so that a step needs only the indices of its images.

    Args:
      source: the images. Images that are decoded on access are never copied.
      on_device: "auto", True or False. "auto" copies the images to an accelerator with enough memory.

    Returns:
      uint8 [n, height, width, 3], or None if the images come with each batch.
    """
    choice = from_text(on_device)
    if not isinstance(source, ArraySource) or not (_has_room(source) if choice == "auto" else choice):
        return None
    replicated, _ = shardings()
    return jax.device_put(source.images, replicated)


def gather_to_host(tree: Tree) -> Tree:
    """Copies arrays to the host as numpy arrays, even if they are sharded across devices of several processes."""
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
