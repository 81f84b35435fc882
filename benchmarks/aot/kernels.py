"""Kernels of a compiled program: the memory that each reads and writes, and its floating-point operations."""

import dataclasses
import math
import re
from collections.abc import Iterator

from benchmarks.aot.hlo import Computation, Instruction, Program

# Operations that move no data.
_FREE = frozenset(("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "opt-barrier"))
_CONTROL = frozenset(("call", "while", "conditional"))
COLLECTIVES = frozenset(
    ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
)
_DIMENSIONS = r'"%s_contracting_dimensions":\[([^\]]*)\]'


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch of a program on its device.

    Attributes:
      name: the name of the instruction.
      kind: "gemm", "cudnn", "collective", "transpose", "reduce", "copy", "loop", "input", "triton", "custom:NAME", or
        the name of another operation.
      times: number of times that it runs in one execution of the program.
      read, written: bytes of each run, without those that a cache holds.
      flops: floating-point operations of the products in each run.
      precision: "bfloat16" (16 bits), "tf32" or "float32" for the operands of the products; empty without products.
      transposes: number of transpositions inside.
      gathers: number of gathers inside.
      op_name: place in the program's source.
    """

    name: str
    kind: str
    times: int
    read: float
    written: float
    flops: float
    precision: str
    transposes: int
    gathers: int
    op_name: str

    @property
    def bytes(self) -> float:
        """Bytes that each run reads and writes."""
        return self.read + self.written


def kernels(program: Program) -> list[Kernel]:
    """Returns the kernels of a program in their order; the body of a loop stands once, with its number of runs.

    A kernel reads each operand once, except constants, and writes its result once. A workspace of cuBLAS is no
    traffic.
    """
    return [
        _kernel(program, computation, instruction, times)
        for computation, instruction, times in executed(program)
        if instruction.op not in _FREE | _CONTROL and not instruction.op.endswith("-done")
    ]


def executed(program: Program) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yields the instructions that a program runs, those of calls and loops among them, and how often it runs each.

    The bodies of fusions are left out: a fusion is one instruction.
    """
    return _executed(program, program.entry, 1)


def _executed(program: Program, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
    computation = program.computations.get(name, {})
    for instruction in computation.values():
        yield computation, instruction, times
        if instruction.op in _CONTROL:
            for called in instruction.called:
                yield from _executed(program, called, times * (program.trips(instruction) or 1))


def _kernel(program: Program, computation: Computation, instruction: Instruction, times: int) -> Kernel:
    operands = [computation[name] for name in dict.fromkeys(instruction.operands) if name in computation]
    written = instruction.bytes
    if "cublas" in instruction.target:
        written -= sum(array.bytes for array in instruction.arrays if array.dtype == "s8" and len(array.shape) == 1)
    inside = [instruction, *_body(program, instruction)]
    return Kernel(
        name=instruction.name,
        kind=_kind(program, instruction),
        times=times,
        read=sum(operand.bytes for operand in operands if operand.op != "constant"),
        written=written,
        flops=flops(program, computation, instruction),
        precision=_precision(program, computation, instruction),
        transposes=sum(one.op == "transpose" for one in inside),
        gathers=sum(one.op == "gather" for one in inside),
        op_name=instruction.op_name,
    )


def _body(program: Program, instruction: Instruction) -> list[Instruction]:
    if instruction.op != "fusion":
        return []
    return [one for name in instruction.called for one in program.computations.get(name, {}).values()]


def _precision(program: Program, computation: Computation, instruction: Instruction) -> str:
    """Returns the precision of the first product in an instruction."""
    if instruction.op == "fusion":
        bodies = [program.computations.get(name, {}) for name in instruction.called]
        found = (_precision(program, body, one) for body in bodies for one in body.values())
        return next(filter(None, found), "")
    if instruction.op != "dot" and not re.search("cublas|fmha", instruction.target):
        return ""
    dtype = computation[instruction.operands[0]].arrays[0].dtype
    if dtype in ("bf16", "f16"):
        return "bfloat16"
    # A GPU rounds float32 operands to TF32 unless the program forbids it.
    return "float32" if re.search("highest", instruction.attributes, re.IGNORECASE) else "tf32"


def _kind(program: Program, instruction: Instruction) -> str:
    if instruction.op.removesuffix("-start") in COLLECTIVES or instruction.op.startswith("async"):
        return "collective"
    if instruction.op == "custom-call":
        return _kind_of_call(instruction.target)
    if instruction.op != "fusion":
        return "copy" if instruction.op.startswith("copy") else instruction.op
    body = _body(program, instruction)
    operations = {one.op for one in body}
    calls = [one.target for one in body if one.op == "custom-call"]
    fused = instruction.find(r"kind=(\w+)")
    if operations & {"dot", "convolution"}:
        return "gemm"
    if calls and fused == "kCustom":
        return _kind_of_call(calls[0])
    if operations & COLLECTIVES:
        return "collective"
    if fused == "kCustom":
        return "triton"
    if "transpose" in instruction.name:
        return "transpose"
    if fused == "kInput" and "reduce" in operations:
        return "reduce"
    return {"kLoop": "loop", "kInput": "input"}.get(fused, fused)


def _kind_of_call(target: str) -> str:
    return "gemm" if "cublas" in target else "cudnn" if "cudnn" in target else f"custom:{target}"


def flops(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Returns the floating-point operations of the products in an instruction; 2 m n k for each product.

    Attention by cuDNN counts its two products of the forward pass, and five of the backward pass, which computes the
    weights again (arXiv 2205.14135, algorithms 1 and 4).
    """
    if instruction.op == "fusion":
        bodies = [program.computations.get(name, {}) for name in instruction.called]
        return sum(flops(program, body, one) for body in bodies for one in body.values())
    if instruction.op == "dot":
        return _product(computation, instruction, instruction.find(r"lhs_contracting_dims=\{([\d,]*)\}"))
    if "cublas" in instruction.target:
        return _product(computation, instruction, instruction.find(_DIMENSIONS % "lhs"))
    if "fmha" in instruction.target:
        return _attention(instruction)
    return 0.0


def _product(computation: Computation, instruction: Instruction, contracted: str) -> float:
    left = computation[instruction.operands[0]].arrays[0].shape
    summed = math.prod(left[int(axis)] for axis in re.findall(r"\d+", contracted))
    return 2.0 * summed * instruction.arrays[0].elements


def _attention(instruction: Instruction) -> float:
    weights = instruction.find(r'"intermediate_tensor_shape": ?\{"element_type": ?"\w+", ?"dimensions": ?\[([^\]]*)\]')
    features = instruction.arrays[0].shape[-1] if instruction.arrays else 0
    products = 5 if instruction.target.endswith("Backward") else 2
    return 2.0 * products * features * math.prod(int(size) for size in re.findall(r"\d+", weights))
