"""Adaptation table: the accuracy of one model under every encryption, adapted and not adapted.

The paper adapts models to its own encryption only. A model can absorb (be adapted exactly to) several others as well,
see `Encryption.absorb`. This experiment trains with and without adaptation; encryptions that cannot be absorbed are
trained without it.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from ppvit_jax import data
from ppvit_jax.config import Config, make_model
from ppvit_jax.encryption import METHODS, parse
from ppvit_jax.errors import UserError
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.reproduction import Reproduction, add_config_argument, load_config, print_written
from ppvit_jax.experiments.runs import announce_runs
from ppvit_jax.experiments.table1 import Arm, train_arm
from ppvit_jax.files import write_json, write_text
from ppvit_jax.keys import SecretKey
from ppvit_jax.training.results import Result

_MORE = ("etc:shared=True", "bs+ps+np:shared=False", "pe:keys=per_image")
_PLAIN = Arm("none", False)


# Every encryption whose output a ViT accepts in place of images, also with options that change if it can be absorbed.
SPECS = tuple(
    spec
    for name in METHODS
    if name != "neuracrypt"
    for spec in (name, *(more for more in _MORE if more.partition(":")[0] == name))
)


def is_absorbed(spec: str, image_size: int, patch_size: int) -> bool:
    """Returns True if a model can be adapted exactly to an encryption.

    Args:
      spec: the encryption, such as "etc:shared=True".
      image_size: side of the images in pixels.
      patch_size: side of the model's patches, and of the encryption's blocks, in pixels.
    """
    method = parse(spec, patch_size)
    try:
        method.absorb(SecretKey(bytes(32)), height=image_size, width=image_size)
    except UserError:
        return False
    return True


def run(config: Config, output: Path, rows: str) -> None:
    """Trains on plain images, and on every encryption not adapted and, if possible, adapted.

    Table and picture are updated after each run. All runs share one key: `config.key_file`, or secret.key in the output
    folder. Complete runs are not trained again.

    Args:
      config: configuration of the runs, with a model that has patches.
      output: folder of the results.
      rows: encryptions, separated by semicolons; "" for all.

    Raises:
      UserError: a mistake that the user can correct.
    """
    patch_size = make_model(config, num_classes=1).patch_size
    if not patch_size:
        raise UserError(f"{config.model} has no patches to use as blocks: choose a ViT or a ConvMixer")
    chosen = rows.split(";") if rows else list(SPECS)
    arms = [_PLAIN]
    for spec in chosen:
        if is_absorbed(spec, config.image_size, patch_size):
            arms.append(Arm(spec, True))
        arms.append(Arm(spec, False))
    dataset = data.load(config.data, config.image_size, config.seed)
    chance = 100 * np.bincount(dataset.test.labels).max() / len(dataset.test)
    results: dict[Arm, Result] = {}
    by_name = {arm.name: arm for arm in arms}
    for name in announce_runs("run", ((name, output / "arms" / name) for name in by_name)):
        arm = by_name[name]
        results[arm] = train_arm(config, arm, output, dataset)
        # Every encryption compiles its own program, which later runs do not use.
        jax.clear_caches()
        described = _describe(results[_PLAIN])
        write_text(output / "adaptation.md", markdown(results, arms, chance, described))
        write_json(
            output / "adaptation.json",
            {
                "measured": described,
                "chance": chance,
                "runs": [
                    {"run": a.name, "encryption": a.encryption, "adapted": a.adapt, "accuracy": 100 * _accuracy(r)}
                    | {"result": r}
                    for a, r in results.items()
                ],
            },
        )
        accuracies = {arm: 100 * _accuracy(result) for arm, result in results.items()}
        bars = [
            (spec, accuracies.get(Arm(spec, True)), accuracies.get(Arm(spec, False)))
            for spec in dict.fromkeys(arm.encryption for arm in results if arm != _PLAIN)
        ]
        if bars:
            figures.draw_adaptation(bars, accuracies[_PLAIN], chance, output / "adaptation.png", described)
    print(f"\n{(output / 'adaptation.md').read_text()}")
    print_written(output, "adaptation.md", "adaptation.json", "adaptation.png")


def markdown(results: dict[Arm, Result], arms: list[Arm], chance: float, described: str) -> str:
    """Returns the content of adaptation.md; `arms` includes those that have not run yet."""
    plain = 100 * _accuracy(results[_PLAIN])
    lines = [
        "| Encryption | `--encryption` | Adapted | difference to plain | Not adapted | difference to plain |",
        "|---|---|---:|---:|---:|---:|",
        f"| Plain | `none` | | | {plain:.2f} | |",
    ]
    for spec in dict.fromkeys(arm.encryption for arm in arms if arm != _PLAIN):
        cells = []
        for arm in (Arm(spec, True), Arm(spec, False)):
            if arm in results:
                value = 100 * _accuracy(results[arm])
                cells += [f"{value:.2f}", f"{value - plain:+.2f}"]
            else:
                cells += ["not run" if arm in arms else "cannot be adapted", ""]
        lines.append(f"| {METHODS[spec.partition(':')[0]].title} | `{spec}` | {' | '.join(cells)} |")
    notes = [
        "",
        f"Test accuracy in percent; always predicting the most frequent class gives {chance:.2f}. A model cannot be "
        "adapted if no change of its patch and position embedding undoes the encryption; `ppvit adapt` prints why.",
        "",
        f"- Measured: {described}.",
        "",
    ]
    return "\n".join([*lines, *notes])


def _accuracy(result: Result) -> float:
    return result["test_accuracy"]


def _describe(result: Result) -> str:
    size = result["image_size"]
    return (
        f"{result['dataset']}, {result['model']}, {size}x{size}, epochs: {result['epochs']} of "
        f"{result['train_examples']:,} images, seed {result['seed']}, {result['test_examples']:,} test images"
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    text = f"encryptions to try, separated by semicolons (default: {' ; '.join(SPECS)})"
    parser.add_argument("--rows", default="", metavar="ENCRYPTIONS", help=text)


REPRODUCTION = Reproduction(
    "adaptation",
    "a table of one model under every encryption, adapted and not",
    _add_arguments,
    lambda arguments, output: run(load_config(arguments), output, arguments.rows),
    ("--config", "configs/demo.py"),
)
