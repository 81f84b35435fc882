"""The cost of every encryption once the model is adapted: every one of them on one model, adapted and not.

The paper adapts to its own encryption alone. Others are absorbed as exactly (see `Encryption.absorb`): here they are
trained with adaptation and without it, beside those that no model can absorb.
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
from ppvit_jax.training.workdir import Result

_MORE = ("etc:shared=True", "bs+ps+np:shared=False", "pe:keys=per_image")
_PLAIN = Arm("none", False)


# Every encryption whose output a ViT takes in place of images, also with the options that decide if it is absorbed.
SPECS = tuple(
    spec
    for name in METHODS
    if name != "neuracrypt"
    for spec in (name, *(more for more in _MORE if more.partition(":")[0] == name))
)


def is_absorbed(spec: str, image_size: int, patch_size: int) -> bool:
    """Returns True if a model absorbs an encryption exactly."""
    method = parse(spec, patch_size)
    try:
        method.absorb(SecretKey(bytes(32)), height=image_size, width=image_size)
    except UserError:
        return False
    return True


def run(config: Config, output: Path, rows: str) -> None:
    """Trains plain, and every encryption adapted, where it can be, and not; writes table and picture anew after each.

    One key serves all: `config.key_file`, or secret.key in the output folder. Complete runs are not trained again.

    Args:
      config: of a model with patches.
      output: folder of the results.
      rows: encryptions with semicolons between them; "" for all.

    Raises:
      UserError: anything that the user can put right.
    """
    patch_size = make_model(config, num_classes=1).patch_size
    if not patch_size:
        raise UserError(f"{config.model} has no patches that blocks could be: use a ViT or a ConvMixer")
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
        # Each method has a program of its own, and none is used again.
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
    """Returns the content of adaptation.md; `arms` are all that are to be run."""
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
        f"Test accuracy in percent; always saying the most frequent class gives {chance:.2f}. Where a model cannot be "
        "adapted, no patch and position embedding absorbs the encryption; the error of `ppvit adapt` says why.",
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
    text = f"with semicolons between them, such as {' ; '.join(SPECS)} (default: these)"
    parser.add_argument("--rows", default="", metavar="ENCRYPTIONS", help=text)


REPRODUCTION = Reproduction(
    "adaptation",
    "every encryption, adapted and not, on one model",
    _add_arguments,
    lambda arguments, output: run(load_config(arguments), output, arguments.rows),
)
