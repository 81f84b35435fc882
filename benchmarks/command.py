"""The command `ppvit benchmark`: speed and memory, against what else could do the same work."""

import argparse
import importlib
import shlex
import sys
from typing import Any

import jax

from benchmarks import report
from benchmarks.settings import DEVICES, Settings, describe_machine, select_device
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.errors import UserError, require

_DTYPES = ("float32", "bfloat16")
# The module of each section.
_SECTIONS = {
    "steps": "training",
    "encrypted": "encrypted_step",
    "encryption": "encryption",
    "input": "input_path",
    "loading": "loading",
    "growth": "growth",
}
_DEFAULT = "steps,encrypted,encryption,input,loading"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.epilog = (
        "About, in minutes on 2 cores, with --compare: steps 9, encrypted 1, encryption 1, input 1, loading 2, "
        "growth 8. Results are written as soon as they are measured."
    )
    parser.add_argument(
        "--only",
        default=_DEFAULT,
        metavar="SECTIONS",
        help="steps: a training step of each model; encrypted: the same step with encryption; encryption: encryption "
        "alone; input: reading images; loading: reading a checkpoint, and starting; growth: against batch size, image "
        "size and number of images (default: %(default)s)",
    )
    parser.add_argument("--compare", action="store_true", help="measure PyTorch with timm's models too")
    parser.add_argument("--device", choices=DEVICES, default="", help="(default: the best that JAX finds)")
    parser.add_argument(
        "--model", action="append", metavar="NAMES", help="such as ViT-Ti/16,ViT-B/16 (default: as fits a section)"
    )
    parser.add_argument(
        "--batch-size", metavar="NUMBERS", default="", help="such as 32,128,256 (default: as fits a section and device)"
    )
    parser.add_argument(
        "--dtype", metavar="NAMES", default="", help=f"of {','.join(_DTYPES)} (default: as fits a section)"
    )
    parser.add_argument("--image-size", type=int, default=224, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="turns of everything (default: %(default)s)")
    parser.add_argument("--tfds", default="", metavar="NAME", help="input: a prepared data set too, such as cifar10")
    parser.add_argument("--data-dir", default="", metavar="DIR", help="folder of such data sets (default: tfds' own)")
    parser.add_argument(
        "--output",
        default="runs/benchmark",
        metavar="DIR",
        help="for benchmark.json, benchmark.md and growth.png (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measures the sections one after another, and writes and prints each as it is measured.

    Raises:
      UserError: anything that the user can put right.
    """
    require("ppvit benchmark", "benchmark", "matplotlib", "sklearn")
    if arguments.compare:
        require("--compare", "benchmark", "torch", "timm")
    chosen = _split(arguments.only)
    if not chosen or set(chosen) - set(_SECTIONS):
        raise UserError(f"--only {arguments.only}: there is no such section, choose of {', '.join(_SECTIONS)}")
    settings = _settings(arguments)
    machine = describe_machine()
    if settings.compare:
        from benchmarks import pytorch

        pytorch.device(settings.device)
        machine |= pytorch.describe()
    command = shlex.join(["python", "-m", "ppvit_jax", *sys.argv[1:]])
    sections: dict[str, list[report.Table]] = {}
    cache = jax.config.values["jax_enable_compilation_cache"]
    # Compilation is measured too, so that no program may come from a cache.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        for number, name in enumerate(chosen, start=1):
            print(f"section {number} of {len(chosen)}: {name}", file=sys.stderr, flush=True)
            module: Any = importlib.import_module(f"benchmarks.{_SECTIONS[name]}")
            for sections[name] in module.run(settings):
                report.write(settings.output, command, machine, sections)
            print("\n".join(report.body(sections[name])), flush=True)
    finally:
        jax.config.update("jax_enable_compilation_cache", cache)


def _settings(arguments: argparse.Namespace) -> Settings:
    dtypes = _split(arguments.dtype)
    if unknown := [name for name in dtypes if name not in _DTYPES]:
        raise UserError(f"--dtype {', '.join(unknown)}: use {' or '.join(_DTYPES)}")
    try:
        batch_sizes = tuple(int(number) for number in _split(arguments.batch_size))
    except ValueError:
        raise UserError(f"--batch-size {arguments.batch_size}: give whole numbers, such as 32,128") from None
    if min(batch_sizes, default=1) < 1 or arguments.repeats < 1:
        raise UserError("--batch-size and --repeats need at least 1")
    settings = Settings(
        models=tuple(name for names in arguments.model or () for name in _split(names)),
        batch_sizes=batch_sizes,
        dtypes=dtypes,
        image_size=arguments.image_size,
        repeats=arguments.repeats,
        compare=arguments.compare,
        device=select_device(arguments.device),
        data=arguments.tfds,
        data_dir=arguments.data_dir,
        output=results_folder(arguments.output),
    )
    for name in settings.models or ("ViT-Ti/16",):
        settings.model_config(name)
    return settings


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
