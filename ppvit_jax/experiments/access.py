"""Access control: the accuracy of a fine-tuned model with the right key, with wrong keys, and without a key.

The paper mentions this application (its reference [17]) but has no such table. A model that was adapted and fine-tuned
on encrypted images is accurate for the holder of the key. This experiment tests it on plain images, and on images that
are encrypted with another key, or with only the block or the pixel permutation of its own key.
"""

import argparse
import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppvit_jax import checkpoint, data, keys
from ppvit_jax.command_line import Number
from ppvit_jax.config import Config, make_model
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import Permutations, derive_permutations
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.errors import COUNT, UserError
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.reproduction import Reproduction, add_config_argument, load_config, print_written
from ppvit_jax.experiments.table1 import ARMS, train_arm
from ppvit_jax.files import write_json, write_text
from ppvit_jax.training import experiment
from ppvit_jax.training.step import compile_steps

ENCRYPTION = "bs+ps"
_ADAPTED, _PLAIN = f"{ENCRYPTION}-adapted", "plain"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A model, the images it is tested on, and the accuracies in percent, one for each set of permutations."""

    model: str
    images: str
    accuracies: tuple[float, ...]


def run(config: Config, output: Path, wrong_keys: int) -> None:
    """Trains the plain and the adapted model, tests them, and writes access.md, access.json and access.png.

    Models that Table I has trained in the same folder are reused. Every accuracy is over all test images. The wrong
    keys are derived from `config.seed`, so that the table is reproducible; they are for this experiment only.

    Args:
      config: configuration of the runs; its encryption and adaptation are ignored.
      output: folder of the results.
      wrong_keys: number of wrong keys to try, at least 1.

    Raises:
      UserError: a mistake that the user can correct.
    """
    if wrong_keys < 1:
        raise UserError(f"--wrong-keys is {wrong_keys}: give at least 1")
    dataset = data.load(config.data, config.image_size, config.seed)
    arms = {arm.name: arm for arm in ARMS}
    results = {name: train_arm(config, arms[name], output, dataset) for name in (_PLAIN, _ADAPTED)}
    right = experiment.open_key(config, output)
    wrong = [wrong_key(config.seed, number) for number in range(wrong_keys)]
    with experiment.compute_precision(config):
        rows = _measure(config, output, dataset, right, wrong)
    chance = 100 * np.bincount(dataset.test.labels).max() / len(dataset.test)
    result = next(iter(results.values()))
    described = (
        f"{result['dataset']}, {config.model}, {config.image_size}x{config.image_size}, epochs: {config.epochs} of "
        f"{result['train_examples']:,} images, seed {config.seed}, {len(dataset.test):,} test images, "
        f"{wrong_keys} wrong keys"
    )
    text = markdown(rows, chance, described)
    write_text(output / "access.md", text)
    write_json(
        output / "access.json",
        {
            "measured": described,
            "right_key": right.fingerprint,
            "wrong_keys": [key.fingerprint for key in wrong],
            "chance": chance,
            "rows": [dataclasses.asdict(row) for row in rows],
            "results": results,
        },
    )
    figures.draw_access(
        [(row.model, row.images, row.accuracies) for row in rows], chance, output / "access.png", described
    )
    print(f"\n{text}")
    print_written(output, "access.md", "access.json", "access.png")


def wrong_key(seed: int, number: int) -> keys.SecretKey:
    """Returns a wrong key. It is for this experiment only, because anyone can derive it."""
    return keys.SecretKey(hashlib.sha256(f"ppvit access control, seed {seed}, wrong key {number}".encode()).digest())


def markdown(rows: list[Measurement], chance: float, described: str) -> str:
    """Returns the content of access.md."""
    lines = ["| Model | Images | Accuracy (mean) | lowest | highest |", "|---|---|---:|---:|---:|"]
    for row in rows:
        values = (sum(row.accuracies) / len(row.accuracies), min(row.accuracies), max(row.accuracies))
        lines.append(f"| {row.model} | {row.images} | {' | '.join(f'{value:.2f}' for value in values)} |")
    lines += ["", f"Test accuracy in percent; always predicting the most frequent class gives {chance:.2f}.", ""]
    return "\n".join([*lines, f"- Measured: {described}.", ""])


def _measure(
    config: Config, output: Path, dataset: data.Dataset, right_key: keys.SecretKey, wrong_keys: list[keys.SecretKey]
) -> list[Measurement]:
    model_config = make_model(config, len(dataset.class_names))
    size, patch = config.image_size, model_config.patch_size
    right, *wrong = (
        derive_permutations(key, ENCRYPTION, image_size=size, block_size=patch) for key in (right_key, *wrong_keys)
    )
    identity = Permutations()
    tests = [
        (_ADAPTED, "encrypted with the right key", [right]),
        (_ADAPTED, "right blocks, wrong pixels", [Permutations(right.block, other.pixel) for other in wrong]),
        (_ADAPTED, "wrong blocks, right pixels", [Permutations(other.block, right.pixel) for other in wrong]),
        (_ADAPTED, "encrypted with a wrong key", wrong),
        (_ADAPTED, "plain", [identity]),
        (_PLAIN, "plain", [identity]),
        (_PLAIN, "encrypted", [right]),
    ]
    config = config.copy_and_resolve_references()
    config.encryption, config.block_size = ENCRYPTION, patch
    eval_step = compile_steps(model_config, config, total_steps=1).eval_step
    progress = Progress("testing", sum(len(tried) for _, _, tried in tests), "tests")
    rows, done = [], 0
    for arm, images, tried in tests:
        path = output / "arms" / arm / "checkpoint.npz"
        arrays, _ = checkpoint.read(path)
        params = jax.device_put(checkpoint.to_params(arrays, model_config, keep_head=True, where=str(path)))
        accuracies = []
        for permutations in tried:
            # Plain images use the identity, so that one compiled program computes all tests.
            secret = jax.device_put(make_secret(permutations, size, size, patch))
            sums: list[Any] = [
                eval_step(params, {}, batch, secret)
                for batch in data.test_batches(dataset.test, data.BatchOptions(config.eval_batch_size))
            ]
            correct, count = (
                math.fsum(float(batch_sums[name]) for batch_sums in sums) for name in ("correct", "count")
            )
            accuracies.append(100 * correct / count)
            progress.update(done := done + 1)
        rows.append(Measurement("adapted" if arm == _ADAPTED else "plain", images, tuple(accuracies)))
    progress.close()
    return rows


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument(
        "--wrong-keys",
        action=Number,
        range=COUNT,
        default=10,
        metavar="N",
        help="number of wrong keys to try (default: %(default)s)",
    )


REPRODUCTION = Reproduction(
    "access",
    "a table of a tuned model's accuracy with the right key, wrong keys and none",
    _add_arguments,
    lambda arguments, output: run(load_config(arguments), output, arguments.wrong_keys),
    ("--config", "configs/demo.py"),
)
