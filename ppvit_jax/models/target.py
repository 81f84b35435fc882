"""Target of a compiled program: the devices for which a model's functions are compiled."""

import dataclasses
from typing import TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppvit_jax.errors import UserError

ConfigT = TypeVar("ConfigT")
# Parts of a model whose values the backward pass may compute again.
REMATS = ("none", "blocks")


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices for which a model's functions are compiled; they need not be those of this machine.

    The functions compute the same on all devices, in ways that are fast on each.

    Attributes:
      platform: "cpu", "gpu" or "tpu", as `jax.Device.platform` names it; or "any", for one program that runs on all
        and takes a batch of any size.
      devices: number of devices among which a batch is divided.
      mesh: the devices among which parameters are divided; None if each device has all of them.
      reduce_dtype: dtype in which devices add up their gradients of kernels: "float32", or "bfloat16" for half the
        traffic if the operands of the products are bfloat16 as well.
    """

    platform: str
    devices: int = 1
    mesh: Mesh | None = None
    reduce_dtype: str = "float32"

    @property
    def is_cpu(self) -> bool:
        """True if the functions are compiled for a CPU."""
        return self.platform == "cpu"

    def gather(self, parameter: jax.Array) -> jax.Array:
        """Returns a parameter that is whole on each device, for use in one layer."""
        if self.mesh is None:
            return parameter
        return jax.lax.with_sharding_constraint(parameter, NamedSharding(self.mesh, PartitionSpec()))

    def divide_batch(self, x: jax.Array) -> jax.Array:
        """Returns values whose first axis, the examples, is divided among the devices."""
        if self.mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*self.mesh.axis_names)))


def default_target() -> Target:
    """Returns the target of programs that run on all devices of JAX's default platform."""
    return Target(jax.default_backend(), jax.device_count())


def set_training_mode(config: ConfigT, *, drop_path: float, remat: str) -> ConfigT:
    """Returns a model's shape whose training mode drops branches, or computes values again; see `ViTConfig`.

    Args:
      config: the shape, a frozen dataclass.
      drop_path: share of images for which a branch of the last block is left out.
      remat: one of REMATS.

    Raises:
      UserError: the family has no encoder blocks.
    """
    fields: dict = getattr(config, "__dataclass_fields__", {})
    for name, value, default in (("drop_path", drop_path, 0), ("remat", remat, "none")):
        if value != default and name not in fields:
            raise UserError(f"config.{name}={value} needs a Vision Transformer: use {default} with other models")
    changed = {"drop_path": drop_path, "remat": remat}
    return dataclasses.replace(config, **changed) if changed.keys() <= fields.keys() else config  # type: ignore[type-var]


def retarget(config: ConfigT, target: Target) -> ConfigT:
    """Returns a model's shape whose functions are compiled for other devices.

    Args:
      config: the shape, a frozen dataclass. Families whose programs are the same for all devices lack the field
        `target`; their shapes are returned unchanged.
      target: the devices.
    """
    fields: dict = getattr(config, "__dataclass_fields__", {})
    return dataclasses.replace(config, target=target) if "target" in fields else config  # type: ignore[type-var]
