"""The paper's Tables II and III: every method of the comparison with its model, row by row."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from ppvit_jax import config as configuration
from ppvit_jax import data
from ppvit_jax.config import Config
from ppvit_jax.errors import UserError
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.budget import Plan, make_plan
from ppvit_jax.experiments.runs import announce_runs
from ppvit_jax.files import write_json, write_text
from ppvit_jax.training import experiment
from ppvit_jax.training.workdir import read_history

PROPOSED = "Block scrambling + pixel shuffling, adapted (proposed)"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    name: of its configuration file.
    encryption, model: as the table says it.
    published: accuracy in percent by data set.
    reconstruction: what of it is not known from its source but inferred; "" for nothing that matters.
    """

    name: str
    encryption: str
    model: str
    published: dict[str, float]
    reconstruction: str = ""


def _row(name: str, encryption: str, model: str, *published: float, inferred: str = "") -> Row:
    return Row(name, encryption, model, dict(zip(("cifar10", "cifar100"), published, strict=False)), inferred)


_TRAINING = "training"
TABLES: dict[str, tuple[Row, ...]] = {
    "2": (
        _row("proposed_vit", PROPOSED, "ViT-B/16", 98.98, 92.58),
        _row("le_shakedrop", "LE", "ShakeDrop + LE-AdaptNet", 94.49, 75.48),
        _row("ele_shakedrop", "ELE", "ShakeDrop + ELE-AdaptNet", 83.06, 62.97),
        _row("pe_resnet", "PE", "ResNet-18", 92.03, inferred=_TRAINING),
        _row(
            "bs_ps_np_convmixer",
            "Block scrambling + pixel shuffling + negative-positive transform",
            "ConvMixer-512/16 + adaptive matrix",
            92.65,
            inferred="model, encryption's keys and training",
        ),
        _row("color_neuracrypt_vit", "Color-NeuraCrypt", "ViT-B/16", 96.20, inferred="encryption"),
        _row(
            "bs_pps_vit",
            "Block scrambling + pixel position shuffling",
            "ViT-B/16",
            96.64,
            84.42,
            inferred="encryption's sub-blocks",
        ),
        _row("etc_vit", "EtC", "ViT-B/16", 87.89, inferred=_TRAINING),
        _row("etc_convmixer", "EtC", "ConvMixer-256/8", 92.72, inferred="block size and parts of the training"),
        _row("plain_shakedrop", "Plain", "ShakeDrop", 96.70, 83.59),
        _row("plain_resnet", "Plain", "ResNet-18", 95.53, inferred=_TRAINING),
        _row("plain_vit", "Plain", "ViT-B/16", 99.00, 92.60),
        _row("plain_convmixer", "Plain", "ConvMixer-256/8", 96.07, inferred="parts of the training"),
    ),
    "3": tuple(
        Row(name, encryption, model, {"imagenette": published}, inferred)
        for name, encryption, model, published, inferred in (
            ("proposed_vit", PROPOSED, "ViT-B/16", 99.2, ""),
            ("etc_vit", "EtC", "ViT-B/16", 90.62, _TRAINING),
            ("etc_convmixer", "EtC", "ConvMixer-384/8", 90.11, "patch, kernel and training"),
            ("plain_vit", "Plain", "ViT-B/16", 99.2, ""),
            ("plain_convmixer", "Plain", "ConvMixer-384/8", 96.10, "patch, kernel and training"),
        )
    ),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A row's configuration, the command that repeats it, its result and its epochs."""

    config: Config
    command: str
    result: dict[str, Any]
    epochs: list[dict[str, Any]]


def run(number: str, folder: Path, overrides: list[str], output: Path, wanted: str, budget: float | None) -> None:
    """Trains the rows one after another, writing table and curves anew after each.

    Complete rows are not trained again, and a half-trained one continues; every row has a key of its own in its
    folder. A budget's plan is made once and kept in the output folder.

    Args:
      number: "2" or "3".
      folder: of the rows' configuration files.
      overrides: "--config.name=value", for every row.
      output: folder of the results.
      wanted: names of rows with commas between them; "" for all.
      budget: minutes for all rows together, to scale the runs down to; None for the whole protocol.

    Raises:
      UserError: anything that the user can put right.
    """
    rows = TABLES[number]
    names = [row.name for row in rows]
    chosen = wanted.split(",") if wanted else names
    if unknown := set(chosen) - set(names):
        raise UserError(f"unknown rows {', '.join(sorted(unknown))}: use some of {','.join(names)}")
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: run this where the project's configs are, or name it by --config"
        )
    rows = [row for row in rows if row.name in chosen]
    files = {row.name: str(folder / f"{row.name}.py") for row in rows}
    configs = {name: configuration.load(file, overrides) for name, file in files.items()}
    plan: Plan | None = None
    scaled: dict[str, list[str]] = {name: [] for name in files}
    if budget is not None:
        plan = _plan(files, overrides, output, budget)
        scaled = {name: plan.overrides(config) for name, config in configs.items()}
        # What the user says comes last, and wins.
        configs = {name: configuration.load(file, scaled[name] + overrides) for name, file in files.items()}
    trained: dict[str, Trained] = {}
    datasets: dict[str, data.Dataset] = {}
    by_name = {row.name: row for row in rows}
    for name in announce_runs("row", ((name, output / "rows" / name) for name in by_name)):
        row = by_name[name]
        config, workdir = configs[row.name], output / "rows" / row.name
        kind = json.dumps([config.data.to_dict(), config.image_size, config.seed])
        if kind not in datasets:
            datasets = {kind: data.load(config.data, config.image_size, config.seed)}
        arguments = [f"--config={files[row.name]}", *scaled[row.name], *overrides, f"--workdir={workdir}"]
        trained[row.name] = Trained(
            config,
            f"python -m ppvit_jax.main {shlex.join(arguments)}",
            experiment.run(config, workdir, datasets[kind]),
            read_history(workdir, "epoch"),
        )
        write_text(output / "table.md", markdown(number, trained, plan))
        write_json(output / "table.json", table(number, trained, plan))
        curves = {
            f"{r.encryption}, {_model(r, trained[r.name])}": trained[r.name].epochs for r in rows if r.name in trained
        }
        figures.draw_curves(curves, output / "curves.png", _described(trained, plan))
    print(f"\n{markdown(number, trained, plan)}")
    for name in ("table.md", "table.json", "curves.png"):
        print(output / name)


def table(number: str, trained: dict[str, Trained], plan: Plan | None) -> dict[str, Any]:
    """The content of table.json: each row's result beside the published one, in percent."""
    return {
        "table": int(number),
        "measured": _described(trained, plan),
        "plan": None if plan is None else dataclasses.asdict(plan),
        "rows": [
            {
                **dataclasses.asdict(row),
                "published": row.published.get(trained[row.name].result["dataset"]),
                "accuracy": 100 * trained[row.name].result["test_accuracy"],
                "best_epoch_accuracy": 100 * trained[row.name].result["best_test_accuracy"],
                "command": trained[row.name].command,
                "result": trained[row.name].result,
                "epochs": trained[row.name].epochs,
            }
            for row in TABLES[number]
            if row.name in trained
        ],
    }


def markdown(number: str, trained: dict[str, Trained], plan: Plan | None) -> str:
    """The content of table.md: measured beside published, and each row's command."""
    lines = [
        "| Encryption | Model | Measured | best epoch | Published | Inferred |",
        "|---|---|---:|---:|---:|---|",
    ]
    commands = []
    for row in TABLES[number]:
        if row.name not in trained:
            lines.append(f"| {row.encryption} | {row.model} | not run | | | {row.reconstruction} |")
            continue
        one = trained[row.name]
        published = row.published.get(one.result["dataset"])
        shown = f"{100 * one.result['test_accuracy']:.2f} | {100 * one.result['best_test_accuracy']:.2f}"
        said = f"{published:.2f}" if published else _elsewhere(row)
        lines.append(f"| {row.encryption} | {_model(row, one)} | {shown} | {said} | {row.reconstruction} |")
        commands.append(f"- {row.encryption}, {row.model}: `{one.command}`")
    origin = "Table II" if number == "2" else "Table III"
    notes = [
        "",
        *([f"**{plan.described()}**", ""] if plan else []),
        "Test accuracy in percent. Measured is after the last epoch; LE, ELE and their plain row were published as the "
        "best test epoch. Inferred is what the method's source does not say: such rows are reconstructions.",
        "",
        f"- Measured: {_described(trained, plan)}.",
        f"- Published: arXiv 2401.05126, {origin}.",
        "",
        "Each row again:",
        "",
    ]
    return "\n".join([*lines, *notes, *commands, ""])


def _model(row: Row, trained: Trained) -> str:
    """The model of a row, and whether it was another one."""
    name = trained.config.model
    return f"{name} in place of {row.model}" if name.startswith("ViT") and name != row.model else row.model


def _elsewhere(row: Row) -> str:
    """What was published, of another data set."""
    name, published = next(iter(row.published.items()))
    return f"{published:.2f} on {name}"


def _described(trained: dict[str, Trained], plan: Plan | None) -> str:
    result = next(iter(trained.values())).result
    text = f"{result['dataset']}, seed {result['seed']}, {result['test_examples']:,} test images, {result['device']}"
    if plan:
        return f"{text}, {plan.epochs} epochs of {result['train_examples']:,} training images in every row"
    return f"{text}, each row's whole protocol"


def _plan(files: dict[str, str], overrides: list[str], output: Path, budget: float) -> Plan:
    file = output / "plan.json"
    asked = {"minutes": budget, "rows": sorted(files), "overrides": overrides}
    if file.exists():
        content = json.loads(file.read_text())
        if content["asked"] != asked:
            raise UserError(
                f"{output} holds a run of another budget, rows or configuration: use another --output, or the same "
                "command to continue"
            )
        return Plan(**content["plan"])
    plan = make_plan(list(files.values()), overrides, budget)
    write_json(file, {"asked": asked, "plan": dataclasses.asdict(plan)})
    return plan
