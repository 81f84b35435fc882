"""The training step of a run, compiled for devices that this machine does not have."""

import contextlib
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, SingleDeviceSharding

from benchmarks.aot import targets
from ppvit_jax import keys, models
from ppvit_jax.config import Config, default_config, make_encryption
from ppvit_jax.config.tuning import METHODS
from ppvit_jax.errors import UserError
from ppvit_jax.training.devices import make_mesh, shardings, state_shardings
from ppvit_jax.training.parts import count_parts
from ppvit_jax.training.step import compile_steps

# XLA's message: "Used 26.33G of 15.75G hbm".
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A training step, and the machine that shall run it.

    Attributes:
      machine: the chips.
      batch_size: images on each chip.
      model, dtype, matmul_precision, image_size: as the fields of the configuration.
      encryption, sharding, reduce_dtype, accumulation: as well.
      optimizer: name of the optimizer, as config.optimizer.name.
      remat: as config.remat.
      attention: as config.model_options.attention; empty for the default.
      classes: outputs of the head.
      layers: number of encoder blocks; 0 for that of the model.
      tuning: as config.tuning.method; the other fields of config.tuning have their defaults.
    """

    machine: targets.Machine
    batch_size: int
    model: str = "ViT-B/16"
    dtype: str = "bfloat16"
    matmul_precision: str = "highest"
    image_size: int = 224
    encryption: str = "none"
    sharding: str = "data_parallel"
    reduce_dtype: str = "float32"
    accumulation: int = 0
    optimizer: str = "sgd"
    remat: str = "none"
    attention: str = ""
    classes: int = 10
    layers: int = 0
    tuning: str = METHODS[0]

    @property
    def parts(self) -> int:
        """Number of parts in which the step computes its batch."""
        return count_parts(self.accumulation, self.model_config(), self.machine.chip.platform, self.batch_size)

    def config(self) -> Config:
        """Returns the configuration of the run."""
        config = default_config()
        config.model, config.dtype, config.image_size = self.model, self.dtype, self.image_size
        config.encryption, config.sharding, config.accumulation = self.encryption, self.sharding, self.accumulation
        config.optimizer.name, config.matmul_precision = self.optimizer, self.matmul_precision
        config.remat, config.tuning.method = self.remat, self.tuning
        config.reduce_dtype = self.reduce_dtype
        config.batch_size = self.batch_size * self.machine.count
        return config

    def model_config(self) -> models.ModelConfig:
        """Returns the shape of the model.

        Raises:
          UserError: the model or an option is unknown, or the image size does not fit.
        """
        config: Any = models.parse_name(
            self.model,
            image_size=self.image_size,
            num_classes=self.classes,
            dtype=self.dtype,
            options={"attention": self.attention} if self.attention else {},
        )
        config = dataclasses.replace(config, layers=self.layers) if self.layers else config
        return models.retarget(config, models.Target(self.machine.chip.platform, self.machine.count))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
      text: the optimized program.
      arguments, temporary, peak: bytes on one device; the peak has results, too, that replace no argument.
      flops, moved: floating-point operations on one device, and bytes that they read and write, as XLA counts them; 0
        on a GPU, where it does not.
    """

    text: str
    arguments: int
    temporary: int
    peak: int
    flops: float
    moved: float


class OutOfMemoryError(UserError):
    """The compiler could not fit the program into the chip's memory.

    Attributes:
      needed: bytes that the program needs.
    """

    def __init__(self, message: str, needed: float):
        super().__init__(message)
        self.needed = needed

    @classmethod
    def read(cls, plan: Plan, error: RuntimeError) -> "OutOfMemoryError | None":
        """Returns the compiler's error as one of this class, or None if it is about something else."""
        if (found := _OUT_OF_MEMORY.search(str(error))) is None:
            return None
        message = (
            f"{plan.model} with {plan.batch_size} images a chip does not fit the memory of {plan.machine.name} "
            f"({found[0]}): use a smaller --batch-size, more --accumulation, or more chips"
        )
        return cls(message, float(found[1]) * _UNITS[found[2]])


def compile_step(plan: Plan) -> Compiled:
    """Compiles the training step of a run.

    Raises:
      OutOfMemoryError: the compiler says that the chip's memory is too small.
      UserError: the plan is impossible, or the compiler is missing.
    """
    if plan.batch_size % plan.parts:
        raise UserError(
            f"--batch-size {plan.batch_size} is not a multiple of --accumulation {plan.accumulation}: choose another"
        )
    with targets.assuming_cudnn() if plan.machine.chip.platform == "gpu" else contextlib.nullcontext():
        lowered = _lower(plan, make_mesh(targets.devices(plan.machine)))
        try:
            options: Any = plan.machine.compiler_options or None
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if (refused := OutOfMemoryError.read(plan, error)) is None:
                raise
            raise refused from None
    memory: Any = compiled.memory_analysis()
    costs: Any = compiled.cost_analysis() if plan.machine.chip.platform == "tpu" else None
    return Compiled(
        text=compiled.as_text() or "",
        arguments=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        peak=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        flops=(costs or {}).get("flops", 0.0),
        moved=(costs or {}).get("bytes accessed", 0.0),
    )


def _lower(plan: Plan, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers the step with the shapes and shardings of a run's arguments."""
    config, model_config = plan.config(), plan.model_config()
    steps = compile_steps(model_config, config, total_steps=1, mesh=mesh)
    replicated, batch_sharded = shardings(mesh) if mesh.size > 1 else [SingleDeviceSharding(mesh.devices.flat[0])] * 2

    def shaped(shape: tuple[int, ...], dtype: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    params = unflatten_dict(
        {
            name: jax.ShapeDtypeStruct(shape, jnp.float32)
            for name, shape in models.parameter_shapes(model_config).items()
        },
        sep="/",
    )
    statistics = models.abstract_statistics(model_config)
    state: Any = jax.eval_shape(steps.init_state, params, statistics)
    layout = (
        state_shardings(state, plan.sharding, mesh) if mesh.size > 1 else jax.tree.map(lambda leaf: replicated, state)
    )
    state = jax.tree.map(lambda leaf, sharding: shaped(leaf.shape, leaf.dtype, sharding), state, layout)
    images, size = plan.batch_size * mesh.size, plan.image_size
    batch = {
        "image": shaped((images, size, size, 3), jnp.uint8, batch_sharded),
        "label": shaped((images,), jnp.int32, batch_sharded),
        "number": shaped((images,), jnp.uint32, batch_sharded),
    }
    rng = jax.eval_shape(lambda: jax.random.key(0))
    method = make_encryption(config, model_config)
    secret = None
    if method is not None:
        # The program takes the secret as an argument, so that it is the same for every key.
        key, patch_size = keys.SecretKey(bytes(32)), model_config.patch_size
        secret = method.derive_in_blocks(key, height=size, width=size, block_size=patch_size)
    train_step: Any = steps.train_step
    return train_step.lower(
        state,
        batch,
        shaped(rng.shape, rng.dtype, replicated),
        jax.tree.map(lambda leaf: shaped(jnp.shape(leaf), jnp.result_type(leaf), replicated), secret),
    )
