"""The report of a run: report.html in its workdir, a page that needs no network and no other file."""

from importlib import resources
from pathlib import Path

from ppvit_jax.errors import UserError, print_warning
from ppvit_jax.files import write_text
from ppvit_jax.training.public_settings import public_settings
from ppvit_jax.training.report import calibration, classes, curves, facts, run_files
from ppvit_jax.training.report.markup import Html, element, section
from ppvit_jax.training.report.run_files import RunFiles

NAME = "report.html"


def write(workdir: Path, output: Path | None = None) -> Path:
    """Writes the report of a complete run.

    Args:
      workdir: folder of the run.
      output: the file (default: report.html in the workdir).

    Returns:
      The path of the file.

    Raises:
      UserError: the folder holds no complete run, or one of its files is damaged.
    """
    output, run = output or workdir / NAME, run_files.read(workdir)
    try:
        text = page(run)
    # A field that is missing, or has a value of another type.
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"cannot describe the run in {workdir} ({error!r}): one of its files is damaged") from None
    write_text(output, text)
    return output


def write_once(workdir: Path) -> None:
    """Writes report.html unless there is one; the complete run does not depend on its success."""
    if (workdir / NAME).exists():
        return
    try:
        write(workdir)
    except Exception as error:
        print_warning(f"cannot write {NAME} ({error}): run ppvit report {workdir} to try again")


def page(run: RunFiles) -> str:
    """Returns the report as HTML."""
    title = f"{run.folder.name}: {run.result['test_accuracy']:.2%} on {run.result['dataset']}"
    style = resources.files("ppvit_jax").joinpath("assets", "report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # The page runs no program and asks for nothing, even if a part of it were not escaped.
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    parts = [
        _top(run),
        _warnings(run),
        curves.draw(run),
        classes.draw(run),
        calibration.draw(run),
        facts.draw_settings(run),
        facts.draw_environment(run),
        facts.draw_repetition(run),
    ]
    body = element("body", element("main", *parts))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def _top(run: RunFiles) -> Html:
    """Returns the heading with the result."""
    result = run.result
    adapted = ", adapted to the encryption" if result.get("adapt") else ""
    checkpoint = public_settings({"checkpoint": result["checkpoint"]})["checkpoint"]
    start = f"from {checkpoint}" if checkpoint else "from scratch"
    encrypted = "plain images" if result["encryption"] == "none" else f"images encrypted with {result['encryption']}"
    images = f"{result['train_examples']:,} {encrypted}"
    epochs = "1 epoch" if result["epochs"] == 1 else f"{result['epochs']} epochs"
    lead = (
        f"{result['model']}{adapted}, trained {start} on {result['dataset']}: {images}, {epochs}, "
        f"seed {result['seed']}."
    )
    accuracy, tested = result["test_accuracy"], "the last epoch"
    training = "" if result["train_loss"] is None else f"training {result['train_loss']:.4f}"
    best = ("Best test accuracy", f"{result['best_test_accuracy']:.2%}", "of all epochs")
    if "best_epoch" in result:
        tested = f"epoch {result['best_epoch']}"
        stopped = ", stopped early" if result.get("stopped_early") else ""
        best = (f"Best {result.get('best_by')}", f"{result.get('best_value', 0):.4f}", f"{tested}{stopped}")
    tiles = [
        ("Test accuracy", f"{accuracy:.2%}", f"{result['test_examples']:,} images, weights of {tested}"),
        best,
        ("Test loss", f"{result['test_loss']:.4f}", training),
    ]
    if result["images_per_second"]:
        tiles.append(("Speed", f"{result['images_per_second']:,.1f}", "training images per second"))
    if "seconds" in result:
        tiles.append(("Time", facts.duration(result["seconds"]), "training and evaluation"))
    if "peak_memory_bytes" in result:
        tiles.append(("Peak memory", facts.memory(result["peak_memory_bytes"]), result.get("peak_memory_of", "")))
    items = [
        element("div", element("dt", name), element("dd", value, element("small", note))) for name, value, note in tiles
    ]
    heading = element("h1", run.folder.name)
    return element("header", heading, element("p", lead, class_="lead"), element("dl", *items, class_="tiles"))


def _warnings(run: RunFiles) -> Html:
    warnings = run.result.get("warnings", [])
    if not warnings:
        return Html()
    items = element("ul", *(element("li", text) for text in warnings))
    return section("Warnings", items, id_="warnings")
