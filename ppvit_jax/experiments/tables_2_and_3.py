"""Reproduction of the paper's Tables II and III: every method that the paper compares, with its own model."""

import argparse
import dataclasses
import json
import shlex
from pathlib import Path

from ppvit_jax import config as configuration
from ppvit_jax import data
from ppvit_jax.command_line import Number
from ppvit_jax.config import Config
from ppvit_jax.errors import Range, UserError
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.budget import Plan, make_plan
from ppvit_jax.experiments.reproduction import Reproduction, add_config_argument, print_written
from ppvit_jax.experiments.runs import announce_runs
from ppvit_jax.experiments.table_rows import TABLES, Row
from ppvit_jax.files import local_path, write_json, write_text
from ppvit_jax.training import experiment
from ppvit_jax.training.results import MetricsLine, Result, read_history

_ORIGINS = {2: "Table II", 3: "Table III"}


@dataclasses.dataclass(frozen=True)
class Request:
    """A user's request for a table.

    number: number of the table, 2 or 3.
    file: configuration file that takes the name of a row, such as configs/table2.py.
    overrides: arguments such as "--config.name=value", for every row.
    output: folder of the results.
    rows: names of rows, separated by commas; "" for all.
    budget: time budget in minutes for all rows together; None for the full protocol.
    """

    number: int
    file: Path
    overrides: list[str]
    output: Path
    rows: str
    budget: float | None


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained row: its configuration, the command that repeats it, its result, and metrics by epoch."""

    config: Config
    command: str
    result: Result
    epochs: list[MetricsLine]


def run(request: Request) -> None:
    """Trains the rows one after another, and updates table and curves after each.

    Complete rows are not trained again, and interrupted rows resume. Every row has its own key in its folder. The plan
    for a time budget is made once and saved in the output folder.

    Raises:
      UserError: a mistake that the user can correct.
    """
    number, output, overrides = request.number, request.output, request.overrides
    rows = _choose_rows(request)
    sources = {row.name: f"{request.file}:{row.name}" for row in rows}
    configs = {name: configuration.load(source, overrides) for name, source in sources.items()}
    plan: Plan | None = None
    scaled: dict[str, list[str]] = {name: [] for name in sources}
    if request.budget is not None:
        plan = _load_or_make_plan(sources, overrides, output, request.budget)
        scaled = {name: plan.overrides(config) for name, config in configs.items()}
        # The user's overrides come last, so they take precedence.
        configs = {name: configuration.load(source, scaled[name] + overrides) for name, source in sources.items()}
    trained: dict[str, Trained] = {}
    datasets: dict[str, data.Dataset] = {}
    for name in announce_runs("row", ((name, output / "rows" / name) for name in sources)):
        config, workdir = configs[name], output / "rows" / name
        dataset_key = json.dumps([config.data.to_dict(), config.image_size, config.seed])
        if dataset_key not in datasets:
            datasets = {dataset_key: data.load(config.data, config.image_size, config.seed)}
        arguments = [f"--config={sources[name]}", *scaled[name], *overrides, f"--workdir={workdir}"]
        trained[name] = Trained(
            config,
            f"ppvit train {shlex.join(arguments)}",
            experiment.run(config, workdir, datasets[dataset_key]),
            read_history(workdir, "epoch"),
        )
        write_text(output / "table.md", markdown(number, trained, plan))
        write_json(output / "table.json", table(number, trained, plan))
        curves = {
            f"{row.encryption}, {_describe_model(row, trained[row.name])}": trained[row.name].epochs
            for row in rows
            if row.name in trained
        }
        figures.draw_curves(curves, output / "curves.png", _describe(trained, plan))
    print(f"\n{markdown(number, trained, plan)}")
    print_written(output, "table.md", "table.json", "curves.png")


def table(number: int, trained: dict[str, Trained], plan: Plan | None) -> dict[str, object]:
    """Returns the content of table.json: measured and published accuracies of each row, in percent."""
    return {
        "table": number,
        "measured": _describe(trained, plan),
        "plan": None if plan is None else dataclasses.asdict(plan),
        "rows": [
            {
                "name": row.name,
                "encryption": row.encryption,
                "model": row.model,
                "published": row.published.get(trained[row.name].result["dataset"]),
                "reconstruction": row.inferred,
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


def markdown(number: int, trained: dict[str, Trained], plan: Plan | None) -> str:
    """Returns the content of table.md: measured and published accuracies, and the command of each row."""
    lines = [
        "| Encryption | Model | Measured | best epoch | Published | Inferred |",
        "|---|---|---:|---:|---:|---|",
    ]
    commands = []
    for row in TABLES[number]:
        if row.name not in trained:
            lines.append(f"| {row.encryption} | {row.model} | not run | | | {row.inferred} |")
            continue
        run_of_row = trained[row.name]
        result = run_of_row.result
        measured = f"{100 * result['test_accuracy']:.2f} | {100 * result['best_test_accuracy']:.2f}"
        model = _describe_model(row, run_of_row)
        published = _describe_published(row, result["dataset"])
        lines.append(f"| {row.encryption} | {model} | {measured} | {published} | {row.inferred} |")
        commands.append(f"- {row.encryption}, {row.model}: `{run_of_row.command}`")
    notes = [
        "",
        *([f"**{plan.described()}**", ""] if plan else []),
        "Test accuracy in percent. Measured is the accuracy after the last epoch; the published values of LE, ELE and "
        "their plain row are those of the best test epoch. Inferred lists choices that the method's source does not "
        "state: such rows are reconstructions.",
        "",
        f"- Measured: {_describe(trained, plan)}.",
        f"- Published: arXiv 2401.05126, {_ORIGINS[number]}.",
        "",
        "To repeat a row:",
        "",
    ]
    return "\n".join([*lines, *notes, *commands, ""])


def _choose_rows(request: Request) -> list[Row]:
    names = [row.name for row in TABLES[request.number]]
    chosen = request.rows.split(",") if request.rows else names
    if unknown := set(chosen) - set(names):
        raise UserError(f"unknown rows {', '.join(sorted(unknown))}: choose from {','.join(names)}")
    configuration.find_file(str(request.file))
    return [row for row in TABLES[request.number] if row.name in chosen]


def _describe_model(row: Row, trained: Trained) -> str:
    """Returns the model of a row, and mentions if it replaces the paper's model."""
    name = trained.config.model
    return f"{name} in place of {row.model}" if name.startswith("ViT") and name != row.model else row.model


def _describe_published(row: Row, dataset: str) -> str:
    """Returns the published accuracy on the data set, or on another data set with its name."""
    if dataset in row.published:
        return f"{row.published[dataset]:.2f}"
    other, accuracy = next(iter(row.published.items()))
    return f"{accuracy:.2f} on {other}"


def _describe(trained: dict[str, Trained], plan: Plan | None) -> str:
    result = next(iter(trained.values())).result
    text = f"{result['dataset']}, seed {result['seed']}, {result['test_examples']:,} test images, {result['device']}"
    if plan:
        return f"{text}, {plan.epochs} epochs of {result['train_examples']:,} training images in every row"
    return f"{text}, full protocol of each row"


def _load_or_make_plan(sources: dict[str, str], overrides: list[str], output: Path, budget: float) -> Plan:
    """Loads the plan from the output folder, or makes it on the first run."""
    file = output / "plan.json"
    asked = {"minutes": budget, "rows": sorted(sources), "overrides": overrides}
    if file.exists():
        try:
            content = json.loads(file.read_bytes())
            before, plan = content["asked"], Plan(**content["plan"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError(f"{file} is damaged, or another program's: use another --output") from None
        if before != asked:
            raise UserError(
                f"{output} holds a run with another budget, rows or configuration: use another --output, or the "
                "original command to resume"
            )
        return plan
    plan = make_plan(list(sources.values()), overrides, budget)
    write_json(file, {"asked": asked, "plan": dataclasses.asdict(plan)})
    return plan


def _declare(number: int, description: str) -> Reproduction:
    default = f"configs/table{number}.py"

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_config_argument(parser, f"configuration file that takes the name of a row (default: {default})")
        text = (
            f"rows to train, separated by commas, among {', '.join(row.name for row in TABLES[number])} (default: all)"
        )
        parser.add_argument("--rows", default="", metavar="NAMES", help=text)
        parser.add_argument(
            "--budget",
            action=Number,
            range=Range(above=0),
            metavar="MINUTES",
            help="scale all rows together down to this time (default: as published)",
        )

    def run_request(arguments: argparse.Namespace, output: Path) -> None:
        file = local_path(arguments.config or default)
        run(Request(number, file, arguments.overrides, output, arguments.rows, arguments.budget))

    return Reproduction(f"table{number}", description, add_arguments, run_request)


REPRODUCTIONS = (
    _declare(2, "the paper's Table II: every method with its model on CIFAR-10"),
    _declare(3, "the paper's Table III: some of the methods on Imagenette"),
)
