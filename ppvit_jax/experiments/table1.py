"""The paper's Table I with its figures 4 and 6, arm by arm."""

import argparse
import dataclasses
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ppvit_jax import checkpoint, data
from ppvit_jax.config import Config, make_model
from ppvit_jax.data.preprocess import preprocess
from ppvit_jax.encryption import derive_permutations, encrypt
from ppvit_jax.errors import UserError
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.reproduction import Reproduction, add_config_argument, load_config, print_written
from ppvit_jax.experiments.runs import announce_runs
from ppvit_jax.files import write_json, write_text
from ppvit_jax.training import experiment
from ppvit_jax.training.results import MetricsLine, Result, read_history


@dataclasses.dataclass(frozen=True)
class Arm:
    """One run of a table: an encryption, adapted or not, with the paper's accuracy in percent, NaN beyond Table I."""

    encryption: str
    adapt: bool
    paper_accuracy: float = dataclasses.field(default=math.nan, compare=False)

    @property
    def name(self) -> str:
        """Name of the arm's folder, and of the arm in --arms, such as "bs+ps-adapted"."""
        if self.encryption == "none":
            return "plain"
        encryption = re.sub("[:=,]", "-", self.encryption)
        return f"{encryption}-{'adapted' if self.adapt else 'not-adapted'}"


# In the order of running.
ARMS = (
    Arm("none", False, 99.00),
    Arm("bs+ps", True, 98.98),
    Arm("bs+ps", False, 72.86),
    Arm("ps", True, 99.05),
    Arm("ps", False, 97.78),
    Arm("bs", True, 98.93),
    Arm("bs", False, 94.25),
)
# The paper's main comparison.
DEFAULT_ARMS = ARMS[:3]
_ROWS = (("Pixel shuffling", "ps"), ("Block scrambling", "bs"), ("Block scrambling + pixel shuffling", "bs+ps"))
_PAPER = "CIFAR-10, ViT-B/16 pre-trained on ImageNet-21k, 224x224, 15 epochs (arXiv 2401.05126, Table I)"


def select_arms(text: str) -> list[str]:
    """Returns the names of the arms that --arms selects: "all", or names with commas between them.

    Raises:
      UserError: there is no such arm.
    """
    known = [arm.name for arm in ARMS]
    names = known if text == "all" else text.split(",")
    if unknown := sorted(set(names) - set(known)):
        raise UserError(f"unknown arms {', '.join(unknown)}: use all, or some of {','.join(known)}")
    return names


def run(config: Config, output: Path, names: list[str]) -> None:
    """Trains the named arms one after another, and updates table and figures after each.

    All arms share one key: `config.key_file`, or secret.key in the output folder. Complete arms are not trained again,
    and interrupted arms resume. `samples.png` shows plain images beside encrypted ones, which reveals the key. Keep it
    with the owner.

    Raises:
      UserError: a mistake that the user can correct.
    """
    arms = {arm.name: arm for arm in ARMS if arm.name in names}
    if len(arms) < len(ARMS):
        print(f"{len(arms)} of {len(ARMS)} arms: --arms=all trains the paper's whole table", flush=True)
    dataset = data.load(config.data, config.image_size, config.seed)
    draw_samples(config, output, dataset)
    results: dict[Arm, Result] = {}
    histories: dict[Arm, list[MetricsLine]] = {}
    for name in announce_runs("arm", ((name, output / "arms" / name) for name in arms)):
        arm = arms[name]
        results[arm] = train_arm(config, arm, output, dataset)
        histories[arm] = read_history(output / "arms" / arm.name, "epoch")
        write_text(output / "table.md", markdown(results))
        write_json(output / "table.json", table(results, histories))
        figures.draw_curves(_compared(histories), output / "curves.png", _describe(results))
    print(f"\n{markdown(results)}")
    print_written(output, "table.md", "table.json", "curves.png", "samples.png")


def train_arm(config: Config, arm: Arm, output: Path, dataset: data.Dataset) -> Result:
    """Trains an arm in output/arms/NAME, unless it is complete there, and returns the content of its `result.json`."""
    config = config.copy_and_resolve_references()
    config.encryption, config.adapt = arm.encryption, arm.adapt
    return experiment.run(config, output / "arms" / arm.name, dataset, key_folder=output)


def draw_samples(config: Config, output: Path, dataset: data.Dataset) -> None:
    """Writes samples.png: one test image of each of three classes, plain and in the three encryptions.

    Raises:
      UserError: a key file that cannot be used.
    """
    patch_size = make_model(config, num_classes=1).patch_size
    key = experiment.open_key(config, output)
    labels = dataset.test.labels
    rows = []
    for index in (int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:3]):
        plain = np.asarray(preprocess(jnp.asarray(dataset.test.fetch(index))[None], config.image_size))[0]
        columns = {"plain": plain}
        for encryption in ("ps", "bs", "bs+ps"):
            permutations = derive_permutations(key, encryption, image_size=config.image_size, block_size=patch_size)
            columns[encryption] = encrypt(plain, permutations, patch_size)
        rows.append((dataset.class_names[labels[index]], columns))
    figures.draw_samples(rows, output / "samples.png", block_size=patch_size)


def table(results: dict[Arm, Result], histories: dict[Arm, list[MetricsLine]]) -> dict[str, object]:
    """Returns the content of table.json: each arm's result and accuracy by epoch beside the paper's, in percent."""
    plain = next((result for arm, result in results.items() if arm.name == "plain"), None)
    return {
        "table": 1,
        "measured": _describe(results),
        "paper": _PAPER,
        "arms": [
            {
                "arm": arm.name,
                "accuracy": 100 * result["test_accuracy"],
                "paper_accuracy": arm.paper_accuracy,
                "difference_to_plain": plain and 100 * (result["test_accuracy"] - plain["test_accuracy"]),
                "result": result,
                "epochs": histories[arm],
            }
            for arm, result in results.items()
        ],
    }


def markdown(results: dict[Arm, Result]) -> str:
    """Returns the content of table.md: the layout of the paper's Table I, measured beside the paper's.

    Encryptions without a trained arm are left out.
    """
    cells = {
        (arm.encryption, arm.adapt): (
            f"{100 * results[arm]['test_accuracy']:.2f}" if arm in results else "not run",
            f"{arm.paper_accuracy:.2f}",
        )
        for arm in ARMS
    }
    lines = [
        "| Encryption | Adapted: measured | paper | Not adapted: measured | paper |",
        "|---|---:|---:|---:|---:|",
    ]
    trained = {arm.encryption for arm in results}
    for label, encryption in _ROWS:
        if encryption not in trained:
            continue
        values = cells[encryption, True] + cells[encryption, False]
        lines.append(f"| {label} | {' | '.join(values)} |")
    if "none" in trained:
        lines.append(f"| Plain (baseline) | {' | '.join(cells['none', False])} | | |")
    return "\n".join(
        [
            *lines,
            "",
            "Test accuracy in percent.",
            "",
            f"- Measured: {_describe(results)}.",
            f"- Paper: {_PAPER}.",
            "",
        ]
    )


def _describe(results: dict[Arm, Result]) -> str:
    result = next(iter(results.values()))
    size = result["image_size"]
    origin = "from scratch"
    if result["checkpoint"]:
        name = result["checkpoint"]
        origin = f"from {name if checkpoint.is_remote(name) else checkpoint.resolve(name).name}"
    return (
        f"{result['dataset']}, {result['model']} {origin}, {size}x{size}, epochs: {result['epochs']} of "
        f"{result['train_examples']:,} images, seed {result['seed']}, {result['test_examples']:,} test images"
    )


def _compared(histories: dict[Arm, list[MetricsLine]]) -> dict[str, list[MetricsLine]]:
    """Returns Figure 6's three curves where they are trained already, or else those of all trained arms."""
    labels = {"plain": "plain", "bs+ps-adapted": "encrypted, adapted", "bs+ps-not-adapted": "encrypted, not adapted"}
    chosen = {labels[arm.name]: history for arm, history in histories.items() if arm.name in labels}
    return chosen or {arm.name: history for arm, history in histories.items()}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument(
        "--arms",
        default=",".join(arm.name for arm in DEFAULT_ARMS),
        metavar="NAMES",
        help=f"runs to train, separated by commas, among {', '.join(arm.name for arm in ARMS)} (default: the first "
        "three); all trains the paper's whole table. Complete runs are not trained again",
    )


REPRODUCTION = Reproduction(
    "table1",
    "the paper's Table I with Figures 4 and 6: plain and encrypted images, adapted and not",
    _add_arguments,
    lambda arguments, output: run(load_config(arguments), output, select_arms(arguments.arms)),
    ("--config", "configs/demo.py"),
)
