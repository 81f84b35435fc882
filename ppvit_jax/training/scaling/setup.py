"""Setup of a training step whose cost is estimated."""

import dataclasses

from ppvit_jax.config import REDUCE_DTYPES, SHARDINGS, default_config
from ppvit_jax.config.tuning import METHODS
from ppvit_jax.errors import UserError
from ppvit_jax.models import REMATS

# Copies of the parameters in the optimizer state: momentum, or first and second moment.
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}
ELEMENT_BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
# Bytes per element of parameters, gradients and optimizer state, for every compute dtype.
FLOAT32_BYTES = 4
_TUNING = default_config().tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Setup of a training step.

    Attributes:
      batch_size: images in a global batch, over all devices and all parts of an accumulation.
      devices: number of devices that share the batch.
      sharding: "data_parallel": every device keeps all parameters. "fully_sharded": every large tensor of parameters,
        gradients and optimizer state is split among the devices (ZeRO stage 3, arXiv 1910.02054).
      reduce_dtype: dtype in which devices add up their gradients of kernels: "float32" or "bfloat16".
      optimizer: a key of OPTIMIZER_COPIES.
      accumulation: number of parts of a batch that are computed one after another.
      remat: as config.remat.
      tuning, rank, tuned_layers: method, rank and layers of config.tuning.
      ema_decay: as config.ema_decay; 0 for no average of the weights.

    Raises:
      UserError: a name is unknown, a number is below 1, or the batch size is not a multiple of devices times
        accumulation.
    """

    batch_size: int
    devices: int = 1
    sharding: str = SHARDINGS[0]
    reduce_dtype: str = REDUCE_DTYPES[0]
    optimizer: str = "sgd"
    accumulation: int = 1
    remat: str = REMATS[0]
    tuning: str = METHODS[0]
    rank: int = _TUNING.rank
    tuned_layers: tuple[str, ...] = tuple(_TUNING.layers)
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        choices = (
            ("sharding", self.sharding, SHARDINGS),
            ("optimizer", self.optimizer, tuple(OPTIMIZER_COPIES)),
            ("remat", self.remat, REMATS),
            ("tuning", self.tuning, METHODS),
        )
        for field, value, allowed in choices:
            if value not in allowed:
                raise UserError(f"unknown {field} {value!r}: use {', '.join(allowed[:-1])} or {allowed[-1]}")
        if min(self.batch_size, self.devices, self.accumulation, self.rank) < 1:
            raise UserError("batch size, devices, accumulation and rank must be at least 1")
        if self.batch_size % (self.devices * self.accumulation):
            raise UserError(
                f"a batch of {self.batch_size} cannot be shared by {self.devices} devices in {self.accumulation} "
                f"parts: use a multiple of {self.devices * self.accumulation}"
            )

    @property
    def is_divided(self) -> bool:
        """True if several devices share the training state."""
        return self.sharding == "fully_sharded" and self.devices > 1

    @property
    def images(self) -> int:
        """Images that a device computes at a time."""
        return self.batch_size // (self.devices * self.accumulation)
