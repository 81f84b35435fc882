"""How the arrays of a run lie on its devices, of one process or many."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ppvit_jax.data.source import ArraySource, PlaceSource, Source, from_text

SHARDINGS = ("data_parallel", "fully_sharded")
# Images that fit in this part of a device's memory may lie there.
_PART_FOR_IMAGES = 1 / 8
# Tensors of fewer elements stay whole: gathering them would take longer than they save.
_MIN_SHARDED_ELEMENTS = 2**12


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """How a run's arrays lie on all devices: whole on each, and by example."""
    mesh = _mesh()
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def state_shardings(state: Any, sharding: str) -> Any:
    """How a training state lies on all devices: a tree like `state`.

    Args:
      state: a tree of arrays or their shapes.
      sharding: "data_parallel", whole on each device; or "fully_sharded", every large tensor in equal parts along the
        longest axis that the devices divide (arXiv 1910.02054, stage 3; XLA gathers a layer where it is used).
    """
    mesh = _mesh()

    def lies(leaf: Any) -> NamedSharding:
        axis = split_axis(np.shape(leaf), mesh.size) if sharding == "fully_sharded" else None
        return NamedSharding(mesh, PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data"))

    return jax.tree.map(lies, state)


def split_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """The axis along which a tensor is split among the devices, if it is fully sharded; None if it stays whole."""
    fitting = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if not fitting or math.prod(shape) < _MIN_SHARDED_ELEMENTS:
        return None
    return max(fitting, key=lambda axis: shape[axis])


def place(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """A batch on the devices, from this process' part of it."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def whole(tree: Any) -> Any:
    """A tree of numpy arrays, from arrays that may lie in parts on the devices of several processes."""
    everywhere, _ = shardings()
    return jax.device_get(jax.jit(lambda arrays: arrays, out_shardings=everywhere)(tree))


def feed(source: Source, on_device: str | bool) -> tuple[Source, Callable[[Iterator[Any]], Iterator[Any]]]:
    """Decides where images lie, and brings batches to the devices.

    Args:
      source: the images.
      on_device: "auto", True or False: whether images that are in memory lie on every device as a whole, so that a
        step is sent the places of its images alone. "auto" does so on an accelerator with enough memory.

    Returns:
      The source to draw batches from, and what turns these batches into arrays on the devices.
    """
    everywhere, by_example = shardings()
    chosen = from_text(on_device)
    if not (isinstance(source, ArraySource) and (_has_room(source) if chosen == "auto" else chosen)):
        return source, lambda batches: (place(batch, by_example) for batch in batches)
    images = jax.device_put(source.images, everywhere)

    @jax.jit
    def take(images: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return batch | {"image": images[batch["image"]]}

    return (
        PlaceSource(source.labels, source.image_shape),
        lambda batches: (take(images, place(batch, by_example)) for batch in batches),
    )


def _has_room(source: ArraySource) -> bool:
    device = jax.local_devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform != "cpu" else 0
    return source.images.nbytes <= _PART_FOR_IMAGES * memory


def _mesh() -> Mesh:
    # Explicit axes, the default, refuse the class token's concatenation.
    return jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))
