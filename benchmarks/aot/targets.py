"""Targets: GPUs and TPUs for which a program is compiled on a machine that has none."""

import contextlib
import dataclasses
import os
import re
import string
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from ppvit_jax.errors import UserError, is_installed

_INSTALL = "run pip install --editable '.[aot]' in the clone, in an environment of its own"
_FIRST_PYTHON = (3, 12)
# The cuDNN of the description in hopper.txtpb, as cuDNN writes it.
_CUDNN = 91_000
_COMPUTE_CAPABILITY = (9, 0)
# The TPU's compiler asks the machine for its TPU, and waits for a server of Google's cloud, unless these say otherwise.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """One GPU or TPU chip.

    Attributes:
      name: the name in `--target`.
      title: the maker's name.
      platform: "gpu" or "tpu".
      memory: bytes of its memory.
      bandwidth: bytes that its memory reads or writes in a second, by the maker's data sheet.
      link: bytes that it sends to its neighbors in a second, by the data sheet.
      modules: modules with its compiler; one is enough.
      package: the package that installs the compiler.
      counts: numbers of chips that can be compiled for; empty for all.
    """

    name: str
    title: str
    platform: str
    memory: int
    bandwidth: float
    link: float
    modules: tuple[str, ...]
    package: str
    counts: tuple[int, ...] = ()


_CUDA = {"platform": "gpu", "modules": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "package": "jax-cuda12-plugin"}
# Memory of the GPUs as their driver reports it. Other figures are those of NVIDIA's data sheets (NVLink: half of the
# 900 GB/s of both directions) and of Google's page on v5e (1,600 Gbit/s between chips; XLA leaves 15.75 GiB of 16).
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("h100", "NVIDIA H100 80GB", memory=84_942_979_072, bandwidth=3.352e12, link=450e9, **_CUDA),
        Chip("h200", "NVIDIA H200 141GB", memory=151_397_597_184, bandwidth=4.8e12, link=450e9, **_CUDA),
        Chip(
            "v5e",
            "Google TPU v5e",
            platform="tpu",
            memory=int(15.75 * 2**30),
            bandwidth=819e9,
            link=200e9,
            modules=("libtpu",),
            package="libtpu",
            counts=(1, 4, 8),
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Chips of one kind, in one machine.

    Attributes:
      chip: the kind.
      count: the number of chips.
    """

    chip: Chip
    count: int

    @property
    def name(self) -> str:
        """Name of the machine, as `--target` takes it."""
        return self.chip.name if self.count == 1 else f"{self.chip.name}-{self.count}"

    @property
    def compiler_options(self) -> dict[str, int | bool]:
        """Options of XLA. Without a GPU it cannot measure which products are fast, and its own would be slow."""
        return {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False} if self.chip.platform == "gpu" else {}


def parse(text: str) -> Machine:
    """Reads a target such as "h200" or "v5e-4".

    Raises:
      UserError: the target is unknown, or cannot have this number of chips.
    """
    found = re.fullmatch(r"(\w+?)(?:-(\d{1,4}))?", text)
    chip = CHIPS.get(found[1]) if found else None
    if found is None or chip is None:
        raise UserError(f"--target is {text!r}: use {', '.join(CHIPS)}, with a number of chips as in v5e-4")
    count = int(found[2] or 1)
    if count < 1 or (chip.counts and count not in chip.counts):
        numbers = ", ".join(map(str, chip.counts)) or "at least 1"
        raise UserError(f"--target is {text}, with {count} chips: {chip.name} has {numbers}")
    return Machine(chip, count)


def missing(machine: Machine) -> str:
    """Returns the reason for which nothing can be compiled for a machine, and the remedy; empty if it can."""
    if sys.version_info[:2] < _FIRST_PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        wanted = ".".join(map(str, _FIRST_PYTHON))
        return f"compiling for {machine.name} needs Python {wanted} or later, and this is {version}: use a later one"
    if not any(map(is_installed, machine.chip.modules)):
        return f"compiling for {machine.name} needs {machine.chip.package}: {_INSTALL}"
    return ""


def prepare_process() -> None:
    """Makes JAX use this machine's processor, and its TPU compiler look for no TPU.

    Call it before JAX looks for devices.
    """
    os.environ.update(TPU_ENVIRONMENT)
    # A program for a device that is not here can be kept in JAX's cache, but not read from it.
    settings = {"jax_platforms": "cpu", "jax_enable_compilation_cache": False}
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def devices(machine: Machine) -> Sequence[Any]:
    """Returns devices to compile for, in the form of `jax.devices()`; nothing runs on them.

    Raises:
      UserError: the compiler is missing, or does not know the chip.
    """
    if reason := missing(machine):
        raise UserError(reason)
    from jax.experimental import topologies

    chip = machine.chip
    try:
        if chip.platform == "gpu":
            text = string.Template((Path(__file__).parent / "hopper.txtpb").read_text())
            description = text.substitute(bandwidth=int(chip.bandwidth), memory=chip.memory, title=chip.title)
            # Slices, hosts of a slice, GPUs of a host.
            layout = f"1x1x{machine.count}"
            found = topologies.get_topology_desc(platform="cuda", topology=layout, target_config=description)
        else:
            grid = {1: "1x1", 4: "2x2", 8: "2x4"}[machine.count]
            single: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if machine.count == 1 else {}
            found = topologies.get_topology_desc(f"{chip.name}:{grid}", platform="tpu", **single)
    except (RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the compiler of {machine.name} does not start ({reason}): {_INSTALL}") from None
    return found.devices


@contextlib.contextmanager
def assuming_cudnn() -> Iterator[None]:
    """Answers JAX's questions after this machine's cuDNN and GPU with those of a Hopper GPU, while the context lasts.

    JAX asks this machine even when it lowers attention for a GPU of another one, and refuses if there is none. Nothing
    else is replaced: the answers choose no other program than a machine with the GPU would compile.
    """
    from jax._src.cudnn import fused_attention_stablehlo as attention

    def is_capable(capability: str) -> bool:
        return tuple(int(number) for number in capability.split(".")) <= _COMPUTE_CAPABILITY

    with (
        mock.patch.object(attention, "check_cudnn_version", lambda: _CUDNN),
        mock.patch.object(attention, "check_compute_capability", is_capable),
    ):
        yield
