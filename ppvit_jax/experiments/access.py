"""Access control: what a tuned model is worth with the right key, with a wrong one, and with none.

The paper has no such table; it names the use (its reference [17]). A model that was adapted and tuned on encrypted
images answers those who hold the key. Here it is asked by those who hold another, or only a part of it.
"""

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppvit_jax import checkpoint, data, keys, models
from ppvit_jax.config import Config, make_model
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import Permutations
from ppvit_jax.encryption.blockwise import gather
from ppvit_jax.errors import UserError
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.table_1 import ARMS, train_arm
from ppvit_jax.files import write_json, write_text
from ppvit_jax.training import experiment
from ppvit_jax.training.step import compile_steps

ENCRYPTION = "bs+ps"
_ADAPTED, _PLAIN = f"{ENCRYPTION}-adapted", "plain"


@dataclasses.dataclass(frozen=True)
class Row:
    """One question asked of a model: the accuracies in percent, one for each set of permutations tried."""

    model: str
    images: str
    accuracies: tuple[float, ...]


def run(config: Config, output: Path, wrong_keys: int) -> None:
    """Trains the two models, as far as Table I in the same folder has not, asks, and writes table and picture.

    Every model is asked about every test image once. Wrong keys follow from `config.seed`, so that the table
    repeats; they are for this experiment alone.

    Raises:
      UserError: anything that the user can put right.
    """
    if wrong_keys < 1:
        raise UserError(f"--wrong-keys is {wrong_keys}: give at least 1")
    dataset = data.load(config.data, config.image_size, config.seed)
    arms = {arm.name: arm for arm in ARMS}
    results = {name: train_arm(config, arms[name], output, dataset) for name in (_PLAIN, _ADAPTED)}
    model_config = make_model(config, len(dataset.class_names))
    right = experiment.open_key(config, output)
    wrong = [wrong_key(config.seed, number) for number in range(wrong_keys)]
    rows = _ask(config, output, dataset, model_config, right, wrong)
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
    for name in ("access.md", "access.json", "access.png"):
        print(output / name)


def wrong_key(seed: int, number: int) -> keys.SecretKey:
    """A key that anybody can derive: for this experiment alone, and never the right one."""
    return keys.SecretKey(hashlib.sha256(f"ppvit access control, seed {seed}, wrong key {number}".encode()).digest())


def markdown(rows: list[Row], chance: float, described: str) -> str:
    """The content of access.md."""
    lines = ["| Model | Images | Accuracy (mean) | lowest | highest |", "|---|---|---:|---:|---:|"]
    for row in rows:
        values = (sum(row.accuracies) / len(row.accuracies), min(row.accuracies), max(row.accuracies))
        lines.append(f"| {row.model} | {row.images} | {' | '.join(f'{value:.2f}' for value in values)} |")
    lines += ["", f"Test accuracy in percent; always saying the most frequent class gives {chance:.2f}.", ""]
    return "\n".join([*lines, f"- Measured: {described}.", ""])


def _ask(
    config: Config,
    output: Path,
    dataset: data.Dataset,
    model_config: models.ModelConfig,
    right: keys.SecretKey,
    wrong: list[keys.SecretKey],
) -> list[Row]:
    size, patch = config.image_size, model_config.patch_size

    def permutations(key: keys.SecretKey) -> Permutations:
        return key.permutations(ENCRYPTION, image_size=size, patch_size=patch)

    known = permutations(right)
    others = [permutations(key) for key in wrong]
    nothing = Permutations()
    questions = [
        (_ADAPTED, "encrypted with the right key", [known]),
        (_ADAPTED, "right blocks, wrong pixels", [Permutations(known.block, other.pixel) for other in others]),
        (_ADAPTED, "wrong blocks, right pixels", [Permutations(other.block, known.pixel) for other in others]),
        (_ADAPTED, "encrypted with a wrong key", others),
        (_ADAPTED, "plain", [nothing]),
        (_PLAIN, "plain", [nothing]),
        (_PLAIN, "encrypted", [known]),
    ]
    config = config.copy_and_resolve_references()
    config.encryption, config.block_size = ENCRYPTION, patch
    eval_step = compile_steps(model_config, config, total_steps=1).eval_step
    progress = Progress("asking", sum(len(tried) for _, _, tried in questions), "times")
    rows, done = [], 0
    for arm, images, tried in questions:
        path = output / "arms" / arm / "checkpoint.npz"
        arrays, _ = checkpoint.read(path)
        params = jax.device_put(checkpoint.to_params(arrays, model_config, keep_head=True, where=str(path)))
        accuracies = []
        for one in tried:
            # Also for plain images, so that everything is computed by one program.
            secret = jax.device_put(gather(one, size, size, patch))
            sums: list[Any] = [
                eval_step(params, {}, batch, secret)
                for batch in data.test_batches(dataset.test, batch_size=config.eval_batch_size)
            ]
            correct, count = (math.fsum(float(part[name]) for part in sums) for name in ("correct", "count"))
            accuracies.append(100 * correct / count)
            progress.update(done := done + 1)
        rows.append(Row("adapted" if arm == _ADAPTED else "plain", images, tuple(accuracies)))
    progress.close()
    return rows
