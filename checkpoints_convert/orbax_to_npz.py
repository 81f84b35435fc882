"""Converts the Orbax checkpoint of a run's workdir to Google's `.npz` layout.

Command:  python -m checkpoints_convert.orbax_to_npz runs/cifar10 model.npz [--step N]

Use it for a run that is not complete; a complete run has a checkpoint.npz. It needs no key and no optimizer.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from checkpoints_convert import command
from ppvit_jax import checkpoint
from ppvit_jax.checkpoint.metadata import STANDARD
from ppvit_jax.command_line import Number
from ppvit_jax.errors import COUNT, UserError
from ppvit_jax.training.workdir import reading_state


def convert(arguments: argparse.Namespace) -> None:
    """Reads the workdir `arguments.source` and writes `arguments.target`.

    Raises:
      UserError: the folder is not a workdir, or has no checkpoint of the step.
    """
    workdir: Path = arguments.source
    metadata = _read_record(workdir)
    folder = workdir.absolute() / "checkpoints"
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    if not steps:
        raise UserError(f"{workdir} has no checkpoint yet: let the run reach its first one")
    step = arguments.step or steps[-1]
    if step not in steps:
        raise UserError(f"{workdir} has no checkpoint of step {step}: choose among {', '.join(map(str, steps))}")
    checkpoint.write(arguments.target, _restore(folder / str(step) / "default"), metadata)


def _read_record(workdir: Path) -> checkpoint.Metadata:
    """Returns the metadata for the run's checkpoint; earlier versions did not record a normalization other than 0.5."""
    try:
        content = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        metadata = checkpoint.Metadata.from_json(json.dumps(content["metadata"]))
        mean, std = (tuple(map(float, content["config"].get(name, STANDARD))) for name in ("mean", "std"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{workdir} is not the workdir of a run: it has no valid config.json") from None
    if metadata.mean or (mean, std) == (STANDARD, STANDARD):
        return metadata
    return dataclasses.replace(metadata, mean=mean, std=std)


def _restore(path: Path) -> Any:
    """Returns the tree that `checkpoint.write` takes, as numpy arrays, whatever devices it was saved from."""
    # Orbax warns about items that a checkpoint of its manager does not have.
    logging.set_verbosity(logging.ERROR)
    with reading_state(path), ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        if metadata is None:
            raise ValueError("its list of arrays cannot be read")
        item = {name: metadata.tree[name] for name in ("params", "statistics") if metadata.tree.get(name)}
        restore_args = _map(item, lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray))
        restored = checkpointer.restore(
            path, args=ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
        )
    return checkpoint.join(restored["params"], restored.get("statistics", {}))


def _map(tree: Any, function: Any) -> Any:
    return {name: _map(leaf, function) for name, leaf in tree.items()} if isinstance(tree, dict) else function(tree)


CONVERTER = command.Converter(
    name="orbax_to_npz",
    description="Converts the checkpoint of an unfinished run to Google's .npz layout. It needs no key.",
    source="workdir of the run",
    target="checkpoint to write in Google's layout, a .npz that is new",
    example="runs/cifar10 model.npz",
    convert=convert,
    add_options=lambda parser: parser.add_argument(
        "--step",
        action=Number,
        range=COUNT,
        metavar="N",
        help="step whose checkpoint to convert (default: the last one)",
    ),
)

if __name__ == "__main__":
    command.main(CONVERTER)
