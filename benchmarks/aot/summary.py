"""Tables of planned training steps: their kernels, memory, collectives and expected time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks.aot import estimate, hlo
from benchmarks.aot.collectives import Exchange, exchanges
from benchmarks.aot.estimate import Estimate
from benchmarks.aot.kernels import Kernel, executed, kernels
from benchmarks.aot.step import Compiled, Plan
from benchmarks.report import Table
from ppvit_jax.config.tuning import METHODS

# Part of a GPU's memory that JAX takes by default, and the largest part that a run can ask for.
_DEFAULT_PART = 0.75
_LARGEST_PART = 0.95

_STEPS = {
    "target": "Target",
    "batch_size": "Images a chip",
    "sharding": "Sharding",
    "tuning": "Tuning",
    "parts": "Parts",
    "kernels": "Kernels",
    "gigabytes": "GB moved",
    "teraflops": "TFLOP",
    "arguments": "Arguments GB",
    "temporary": "Temporary GB",
    "peak": "Peak GB",
    "memory": "Memory GB",
    "fits": "Fits",
    "seconds": "Step, estimated",
    "images_per_second": "images/s",
}
_KINDS = {
    "target": "Target",
    "batch_size": "Images a chip",
    "sharding": "Sharding",
    "tuning": "Tuning",
    "kind": "Kernels of",
    "kernels": "Number",
    "gigabytes": "GB moved",
    "seconds": "Time, estimated",
}
_EXCHANGES = {
    "target": "Target",
    "batch_size": "Images a chip",
    "sharding": "Sharding",
    "tuning": "Tuning",
    "op": "Collective",
    "dtype": "Dtype",
    "count": "Number",
    "megabytes": "MB",
    "sent": "MB sent by a chip",
}
_KINDS_NOTE = (
    "Bytes are those that kernels read from and write to the chip's memory. Products are cuBLAS's (gemm), attention is "
    "cuDNN's (cudnn); the other kernels are XLA's."
)
_EXCHANGE_NOTE = (
    "MB are those of the whole arrays in a step, and each chip sends its part of them in a ring: twice for an "
    "all-reduce, once for others."
)


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan and its compiled program.

    Attributes:
      plan: the plan.
      needed: bytes of memory that the step needs on each chip.
      compiled: the program, or None if the compiler could not fit it into the chip's memory.
      kernels, exchanges, time: read from the program.
      loops: how many times each loop of the program runs, 0 if nothing tells it; such a loop is counted once.
    """

    plan: Plan
    needed: float
    compiled: Compiled | None = None
    kernels: Sequence[Kernel] = ()
    exchanges: Sequence[Exchange] = ()
    time: Estimate | None = None
    loops: Sequence[int] = ()

    @property
    def fits(self) -> str:
        """Answer whether the chip's memory is large enough: "yes", "no", or the setting with which it is."""
        chip = self.plan.machine.chip
        part = self.needed / chip.memory
        if self.compiled is None or part > (1 if chip.platform == "tpu" else _LARGEST_PART):
            return "no"
        if chip.platform == "gpu" and part > _DEFAULT_PART:
            return f"with XLA_PYTHON_CLIENT_MEM_FRACTION={_LARGEST_PART}"
        return "yes"


def read(plan: Plan, compiled: Compiled) -> Planned:
    """Returns a compiled plan with everything that its program tells."""
    program = hlo.parse(compiled.text)
    launched, exchanged = kernels(program), exchanges(program)
    return Planned(
        plan=plan,
        needed=compiled.peak,
        compiled=compiled,
        # A TPU's program has operations of many kinds, and those without cycles are part of others.
        kernels=launched if plan.machine.chip.platform == "gpu" else _with_cycles(program, launched),
        exchanges=exchanged,
        time=estimate.estimate(plan.machine, program, launched, exchanged),
        loops=program.loops(),
    )


def _with_cycles(program: hlo.Program, launched: Sequence[Kernel]) -> list[Kernel]:
    names = {
        instruction.name
        for _, instruction, _ in executed(program)
        if int(instruction.find(estimate.CYCLES_PATTERN) or 0)
    }
    return [kernel for kernel in launched if kernel.name in names]


def tables(planned: Sequence[Planned]) -> list[Table]:
    """Returns the tables of plans: steps, kernels and collectives.

    The plans differ in target, batch size, sharding and tuning alone.
    """
    first = planned[0].plan
    remat = f", {first.remat} computed again" if first.remat != "none" else ""
    attention = f", attention {first.attention}" if first.attention else ""
    sums = ", gradients added up in bfloat16" if first.reduce_dtype == "bfloat16" and first.machine.count > 1 else ""
    products = f" with products of precision {first.matmul_precision}" if first.dtype == "float32" else ""
    title = (
        f"Training step of {first.model}, {first.image_size}x{first.image_size}, {first.dtype}{products}, "
        f"{first.optimizer}, encryption {first.encryption}{attention}{sums}{remat}"
    )
    is_full = all(one.plan.tuning == METHODS[0] for one in planned)

    def columns(titles: dict[str, str]) -> dict[str, str]:
        return {name: title for name, title in titles.items() if name != "tuning" or not is_full}

    notes = {"gpu": estimate.GPU_NOTE, "tpu": estimate.TPU_NOTE}
    note = " ".join(notes[platform] for platform in sorted({one.plan.machine.chip.platform for one in planned}))
    found = [
        Table(title, note, columns(_STEPS), [_step_row(one) for one in planned]),
        Table("Kernels", _KINDS_NOTE, columns(_KINDS), [row for one in planned for row in _kind_rows(one)]),
        Table(
            "Collectives", _EXCHANGE_NOTE, columns(_EXCHANGES), [row for one in planned for row in _exchange_rows(one)]
        ),
    ]
    return [table for table in found if table.rows]


def _named(one: Planned) -> dict[str, Any]:
    return {
        "target": one.plan.machine.name,
        "batch_size": one.plan.batch_size,
        "sharding": one.plan.sharding,
        "tuning": one.plan.tuning,
    }


def _step_row(one: Planned) -> dict[str, Any]:
    machine = one.plan.machine
    row = _named(one) | {"parts": one.plan.parts, "peak": one.needed / 1e9}
    row |= {"memory": machine.chip.memory / 1e9, "fits": one.fits}
    if one.compiled is None or one.time is None:
        return row
    seconds = one.time.seconds
    row |= {
        "kernels": sum(kernel.times for kernel in one.kernels),
        "arguments": one.compiled.arguments / 1e9,
        "temporary": one.compiled.temporary / 1e9,
        "seconds": seconds,
        "seconds_of_kernels": one.time.kernels,
        "seconds_of_collectives": one.time.exchanges,
        "images_per_second": one.plan.batch_size * machine.count / seconds,
    }
    if machine.chip.platform == "gpu":
        row["gigabytes"] = sum(kernel.times * kernel.bytes for kernel in one.kernels) / 1e9
        row["teraflops"] = sum(kernel.times * kernel.flops for kernel in one.kernels) / 1e12
    elif not one.loops:
        # XLA counts the body of a loop once.
        row |= {"gigabytes": one.compiled.moved / 1e9, "teraflops": one.compiled.flops / 1e12}
    return row


def _kind_rows(one: Planned) -> list[dict[str, Any]]:
    if one.plan.machine.chip.platform != "gpu":
        return []
    rows: dict[str, dict[str, Any]] = {}
    for kernel in one.kernels:
        row = rows.setdefault(kernel.kind, _named(one) | {"kind": kernel.kind, "kernels": 0, "gigabytes": 0.0})
        row["kernels"] += kernel.times
        row["gigabytes"] += kernel.times * kernel.bytes / 1e9
        if kernel.kind != "collective":
            seconds = estimate.kernel_seconds(
                kernel.bytes, kernel.flops, kernel.precision, one.plan.machine.chip.bandwidth
            )
            row["seconds"] = row.get("seconds", 0.0) + kernel.times * seconds
    return sorted(rows.values(), key=lambda row: -row["gigabytes"])


def _exchange_rows(one: Planned) -> list[dict[str, Any]]:
    return [
        _named(one)
        | {
            "op": exchange.op,
            "dtype": exchange.dtype,
            "count": exchange.count,
            "megabytes": exchange.bytes / 1e6,
            "sent": exchange.sent(one.plan.machine.count) / 1e6,
        }
        for exchange in one.exchanges
    ]
