"""The command `ppvit benchmark`: compares speed and memory with other programs that do the same work."""

import argparse
import importlib
import shlex
import sys
from typing import Any

import jax

from benchmarks import report
from benchmarks.settings import DEVICES, Settings, describe_machine, parse_batch_sizes, select_device, split_names
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared.arguments import add_data_dir
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.output import results_folder
from ppvit_jax.commands.shared.step_arguments import add_image_size
from ppvit_jax.errors import COUNT, UserError, require

_DTYPES = ("float32", "bfloat16")
# Modules of the sections, by name.
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
    """Adds the command's arguments and description."""
    parser.epilog = (
        "With --compare on 2 cores, the sections take about these minutes: steps 9, encrypted 1, encryption 1, input "
        "1, loading 2, growth 8. Each result is written as soon as it is measured."
    )
    describe(
        parser,
        "Measures the speed and memory of training steps, encryption, input and starting on this machine. Anyone can "
        "run it, from the source tree. It needs no data, and writes tables to a folder.",
        "ppvit benchmark --compare",
        "ppvit benchmark --only encryption --batch-size 32,256 --output runs/encryption",
    )
    parser.add_argument(
        "--only",
        default=_DEFAULT,
        metavar="SECTIONS",
        help="sections to measure, separated by commas. steps: a training step of each model; encrypted: the same step "
        "with encryption; encryption: encryption alone; input: reading images; loading: reading a checkpoint, and "
        "starting; growth: time and memory by batch size, image size and number of images (default: %(default)s)",
    )
    parser.add_argument(
        "--compare", action="store_true", help="measure PyTorch with timm's models too (default: measure JAX alone)"
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="", help="kind of device to measure (default: the best that JAX finds)"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAMES",
        help="models, separated by commas, such as ViT-Ti/16,ViT-B/16 (default: those of each section)",
    )
    parser.add_argument(
        "--batch-size",
        metavar="NUMBERS",
        default="",
        help="numbers of images in a batch, separated by commas (default: those of each section and device)",
    )
    parser.add_argument(
        "--dtype",
        metavar="NAMES",
        default="",
        help=f"precisions, separated by commas, among {', '.join(_DTYPES)} (default: those of each section)",
    )
    add_image_size(parser)
    parser.add_argument(
        "--repeats",
        action=Number,
        range=COUNT,
        default=10,
        metavar="N",
        help="number of times that everything is measured in turns (default: %(default)s)",
    )
    parser.add_argument(
        "--tfds",
        default="",
        metavar="NAME",
        help="prepared data set, such as cifar10, to measure in the section input too (default: none)",
    )
    add_data_dir(parser)
    parser.add_argument(
        "--output",
        default="runs/benchmark",
        metavar="DIR",
        help="folder to write benchmark.json, benchmark.md and growth.png to (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measures the sections one after another; writes and prints each as soon as it is measured.

    Raises:
      UserError: the arguments cannot be used.
    """
    require("ppvit benchmark", "benchmark", "matplotlib", "sklearn")
    if arguments.compare:
        require("--compare", "benchmark", "torch", "timm")
    chosen = split_names(arguments.only)
    if not chosen or set(chosen) - set(_SECTIONS):
        raise UserError(
            f"--only is {arguments.only}, which names an unknown section: choose among {', '.join(_SECTIONS)}"
        )
    settings = _settings(arguments)
    machine = describe_machine()
    if settings.compare:
        from benchmarks import pytorch

        pytorch.device(settings.device)
        machine |= pytorch.describe()
    command = shlex.join(["python", "-m", "ppvit_jax", *sys.argv[1:]])
    sections: dict[str, list[report.Table]] = {}
    cache = jax.config.values["jax_enable_compilation_cache"]
    # Compilation is measured too, so no program may come from a cache.
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
    dtypes = split_names(arguments.dtype)
    if unknown := [name for name in dtypes if name not in _DTYPES]:
        raise UserError(f"--dtype is {', '.join(unknown)}: use {' or '.join(_DTYPES)}")
    settings = Settings(
        models=tuple(name for names in arguments.model or () for name in split_names(names)),
        batch_sizes=parse_batch_sizes(arguments.batch_size),
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
