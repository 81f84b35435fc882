"""Text of a compiled program: XLA's optimized HLO, read into instructions."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

# Bytes of an element, by XLA's names of dtypes. Tokens and opaque values hold no data.
_ELEMENT_BYTES = {
    "pred": 1.0,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1.0,
    "u8": 1.0,
    "s16": 2.0,
    "u16": 2.0,
    "bf16": 2.0,
    "f16": 2.0,
    "s32": 4.0,
    "u32": 4.0,
    "f32": 4.0,
    "s64": 8.0,
    "u64": 8.0,
    "f64": 8.0,
    "c64": 8.0,
    "c128": 16.0,
}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")
# The condition of a loop is no work.
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)|(?:branch|called)_computations=\{([^}]*)\}")
_TRIPS = r'"known_trip_count":\{"n":"(\d+)"'


@dataclasses.dataclass(frozen=True)
class Array:
    """Dtype and shape of one array of an instruction's result."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Size without the padding of a device's layout."""
        return self.elements * _ELEMENT_BYTES.get(self.dtype, 1.0)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: the name, which is unique in the program.
      op: the operation, such as "fusion".
      arrays: the arrays of the result; a tuple has several.
      operands: names of the instructions whose results it takes.
      value: the value of a constant, as text; empty for other operations.
      attributes: the text after the operands.
    """

    name: str
    op: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    value: str
    attributes: str

    @property
    def bytes(self) -> float:
        """Size of the result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that the instruction applies."""
        names = []
        for single, several in _CALLED.findall(self.attributes):
            names += [single] if single else [name.strip().removeprefix("%") for name in several.split(",")]
        return tuple(names)

    @property
    def target(self) -> str:
        """Name of the library function of a custom call; empty for other operations."""
        return self.find(r'custom_call_target="([^"]+)"')

    @property
    def op_name(self) -> str:
        """Place in the program's source, as JAX names it."""
        return self.find(r'op_name="([^"]*)"')

    def find(self, pattern: str) -> str:
        """Returns the first group of a pattern in the attributes, or an empty text."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


# Instructions of a computation by name, in the order of the text.
Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations of a compiled program.

    Attributes:
      computations: all computations, by name.
      entry: the name of the one that runs.
    """

    computations: dict[str, Computation]
    entry: str

    def instructions(self) -> Iterator[Instruction]:
        """Yields every instruction, also those inside fusions."""
        for computation in self.computations.values():
            yield from computation.values()

    def times(self) -> dict[str, int]:
        """Returns how many times the program runs each computation, by name; loops run theirs several times."""
        times: dict[str, int] = {}
        waiting = [(self.entry, 1)]
        while waiting:
            name, count = waiting.pop()
            if name not in self.computations or times.get(name, 0) >= count:
                continue
            times[name] = count
            for instruction in self.computations[name].values():
                waiting += [(called, count * (self.trips(instruction) or 1)) for called in instruction.called]
        return times

    def trips(self, instruction: Instruction) -> int:
        """Returns how many times an instruction runs what it applies: 1 unless it is a loop, 0 if nothing tells it.

        XLA notes the number for a GPU or CPU. For a TPU it does not, and the number is the one with which the loop's
        condition compares its counter, because JAX's loops count from 0.
        """
        if instruction.op != "while":
            return 1
        if noted := instruction.find(_TRIPS):
            return int(noted)
        condition = self.computations.get(instruction.find(r"condition=%?([\w.\-]+)"), {})
        bounds = [one.value for one in condition.values() if one.op == "constant" and one.value.isdecimal()]
        return int(bounds[0]) if len(bounds) == 1 else 0

    def loops(self) -> list[int]:
        """Returns how many times each loop runs, 0 if nothing tells it."""
        return [self.trips(instruction) for instruction in self.instructions() if instruction.op == "while"]

    def arrays(self) -> Counter[Array]:
        """Returns the arrays that instructions outside fusions produce, with how often."""
        inside = {name for one in self.instructions() if one.op == "fusion" for name in one.called}
        return Counter(
            array
            for name, computation in self.computations.items()
            if name not in inside
            for instruction in computation.values()
            for array in instruction.arrays
        )


def parse(text: str) -> Program:
    """Reads a program from its text, as `jax.stages.Compiled.as_text` returns it.

    Raises:
      ValueError: the text has no computation that runs.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if (head := _COMPUTATION.match(line)) is not None:
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (instruction := _parse_instruction(line)) is not None:
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("the text has no ENTRY computation")
    return Program(computations, entry)


def parse_arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a shape, such as "(f32[8,2]{1,0}, s8[4]{0})"; values without data are left out."""
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(text)
        if dtype in _ELEMENT_BYTES or dtype.startswith("f8")
    )


def _parse_instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(_COMMENT.sub("", line))
    if found is None:
        return None
    name, shape, op, rest = found.groups()
    end = _closing(rest)
    return Instruction(
        name=name,
        op=op,
        arrays=parse_arrays(shape),
        operands=tuple(re.findall(r"%([\w.\-]+)", rest[:end])),
        value=rest[:end] if op == "constant" else "",
        attributes=rest[end + 1 :],
    )


def _closing(text: str) -> int:
    """Returns the place of the parenthesis that closes the one before the text."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return place
    return len(text)
