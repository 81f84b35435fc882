"""Estimate of a step's time on a machine, from its compiled program alone.

On a GPU, kernels run one after another, and each takes

    max(bytes / bandwidth, operations / rate) + launch.

The three numbers were fitted to the training step of ViT-B/16 in bfloat16 on one NVIDIA H200 (jax 0.11.2): to four
steps that were measured (96.2, 75.2, 52.0 and 15.1 ms, at batch 256, 256, 128 and 32), and to four more whose times, 56
to 68 ms, were estimated from measured kernels. They reproduce all eight within 2 %. The rate of TF32 was fitted to one
measured step in float32 (28.2 ms at batch 32).

On a TPU, XLA writes into the program how many cycles it expects each operation to take. Nothing was measured on a TPU.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from benchmarks.aot.collectives import Exchange
from benchmarks.aot.hlo import Program
from benchmarks.aot.kernels import Kernel, executed
from benchmarks.aot.targets import Machine

# Part of the data sheet's bandwidth that the kernels of a step reach: 3.74 of 4.8 TB/s. A copy reaches 4.3.
_BANDWIDTH_REACHED = 0.78
# Floating-point operations of products in a second, on an H100 or H200. A product of 8192 reaches 758e12 in bfloat16.
# The rate of float32 is three quarters of the data sheet's, and was not measured.
_PRODUCT_RATES = {"bfloat16": 605e12, "tf32": 205e12, "float32": 50e12}
_LAUNCH_SECONDS = 1.5e-6
# 197 TFLOP/s of the data sheet are four arrays of 128 x 128 multipliers at this clock.
_TPU_CLOCK = 1.5e9

# XLA's note beside an operation of a TPU's program.
CYCLES_PATTERN = r'"estimated_cycles":"(\d+)"'

GPU_NOTE = (
    "Every time is an estimate, and nothing ran. Each kernel takes the longer of its bytes at 78 % of the data sheet's "
    "bandwidth and its products at 605 TFLOP/s in bfloat16 (205 in TF32), and 1.5 µs. These numbers were fitted on one "
    "H200, with ViT-B/16 at batch 32 to 256, and reproduce its steps within 2 %; nothing was measured on an H100. "
    "Collectives take their bytes at the data sheet's rate, as if nothing ran beside them."
)
TPU_NOTE = (
    "Every time is an estimate, and nothing ran. It is the sum of the cycles that XLA expects, at 1.5 GHz. XLA's model "
    "is good for comparing programs; nothing was measured on a TPU."
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Expected time of a step.

    Attributes:
      kernels: seconds of the kernels; on a TPU, of the whole step.
      exchanges: seconds of the collectives if nothing runs beside them; 0 on a TPU, where `kernels` has them.
    """

    kernels: float
    exchanges: float

    @property
    def seconds(self) -> float:
        """Seconds of the step, if no collective runs beside a kernel."""
        return self.kernels + self.exchanges


def estimate(machine: Machine, program: Program, kernels: Sequence[Kernel], exchanges: Iterable[Exchange]) -> Estimate:
    """Returns the expected time of a step.

    Args:
      machine: the machine for which the program was compiled.
      program: the program.
      kernels: its kernels.
      exchanges: its collectives.
    """
    if machine.chip.platform == "tpu":
        return Estimate(cycles(program) / _TPU_CLOCK, 0.0)
    work = [kernel for kernel in kernels if kernel.kind != "collective"]
    seconds = sum(
        kernel.times * kernel_seconds(kernel.bytes, kernel.flops, kernel.precision, machine.chip.bandwidth)
        for kernel in work
    )
    sent = sum(exchange.sent(machine.count) for exchange in exchanges)
    return Estimate(seconds, sent / machine.chip.link)


def kernel_seconds(moved: float, flops: float, precision: str, bandwidth: float) -> float:
    """Returns the expected time of one kernel on a GPU.

    Args:
      moved: bytes that it reads and writes.
      flops: floating-point operations of its products.
      precision: see `Kernel`.
      bandwidth: bytes in a second by the data sheet.
    """
    products = flops / _PRODUCT_RATES[precision] if flops else 0.0
    return max(moved / (_BANDWIDTH_REACHED * bandwidth), products) + _LAUNCH_SECONDS


def cycles(program: Program) -> int:
    """Returns the cycles that XLA expects a TPU's program to take; loops count as often as they run."""
    return sum(times * int(instruction.find(CYCLES_PATTERN) or 0) for _, instruction, times in executed(program))
