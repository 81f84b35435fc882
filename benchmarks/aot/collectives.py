"""Collective operations of a compiled program: the data that its devices exchange in a step."""

import dataclasses
from collections.abc import Iterable

from benchmarks.aot.hlo import Array, Computation, Instruction, Program
from benchmarks.aot.kernels import COLLECTIVES

# A TPU scatters a sum by a fusion of this name around an all-reduce.
_SCATTERED_SUM = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Collectives of one operation and one dtype.

    Attributes:
      op: the operation, such as "all-reduce".
      dtype: XLA's name of the dtype.
      count: collectives in a step. XLA combines the arrays of several into one.
      bytes: whole arrays in a step, on one device: the results of a gathering, the operands of others.
    """

    op: str
    dtype: str
    count: int
    bytes: float

    def sent(self, devices: int) -> float:
        """Returns the bytes that each device sends in a step, in a ring of n devices.

        An all-reduce sends 2 (n - 1) / n of its bytes (Patarasuk and Yuan, 2009), a permutation all, and the other
        collectives (n - 1) / n.
        """
        if self.op == "collective-permute":
            return self.bytes
        return (2 if self.op == "all-reduce" else 1) * self.bytes * (devices - 1) / devices


def exchanges(program: Program) -> list[Exchange]:
    """Returns the collectives of a program by operation and dtype, those of most bytes first.

    A collective that runs beside other work stands in several computations of a TPU's program; it is counted once. The
    collectives of a loop are counted as often as it runs.
    """
    times = program.times()
    seen: dict[tuple[str, str], tuple[int, dict[str, float]]] = {}
    for name, computation in program.computations.items():
        for instruction in computation.values():
            op = instruction.op.removesuffix("-start")
            if op not in COLLECTIVES or name not in times:
                continue
            op = "reduce-scatter" if name.startswith(_SCATTERED_SUM) else op
            identity = op, instruction.find(r"channel_id=(\d+)") or instruction.name
            counted = max(times[name], seen.get(identity, (0, {}))[0])
            seen[identity] = counted, _whole_bytes(computation, instruction)
    table: dict[tuple[str, str], tuple[int, float]] = {}
    for (op, _), (count, sizes) in seen.items():
        for dtype, size in sizes.items():
            before = table.get((op, dtype), (0, 0.0))
            table[op, dtype] = before[0] + count, before[1] + count * size
    rows = [Exchange(op, dtype, count, size) for (op, dtype), (count, size) in table.items()]
    return sorted(rows, key=lambda row: -row.bytes)


def _whole_bytes(computation: Computation, instruction: Instruction) -> dict[str, float]:
    """Returns the bytes of the whole arrays by dtype: the results of a gathering, the operands of the others."""
    operands = _by_dtype(
        array for name in instruction.operands if name in computation for array in computation[name].arrays
    )
    if not instruction.op.startswith("all-gather"):
        return operands
    results = _by_dtype(instruction.arrays)
    # The start of a gathering returns its operands beside its results.
    returned = operands if instruction.op.endswith("-start") else {}
    return {dtype: size - returned.get(dtype, 0.0) for dtype, size in results.items()}


def _by_dtype(arrays: Iterable[Array]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for array in arrays:
        sizes[array.dtype] = sizes.get(array.dtype, 0.0) + array.bytes
    return sizes
