import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from helpers.command import run_ppvit
from helpers.finished_run import write_run
from PIL import Image

from ppvit_jax import config as configuration
from ppvit_jax.config import default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import report, results, usage
from ppvit_jax.training.public_settings import public_settings
from ppvit_jax.training.report import charts, facts, run_files
from ppvit_jax.training.report.markup import element, escape, table

NAMES = ("airplane", "bird", "cat")
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&amp;b", "\x00\x1b[31m\udcff", "é" * 300)
VOID = {"meta", "img"}


class Parser(html.parser.HTMLParser):
    """Collects the elements of a page, and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _page(folder):
    return Parser(report.write(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "cifar10", NAMES, seconds=3725.0, peak_memory_bytes=3 * 2**29)


def test_the_page_has_every_part_in_order(folder):
    page = _page(folder)
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["curves", "evaluation", "calibration", "settings", "environment", "repeat"]
    tiles = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert tiles == {
        "Test accuracy": "50.00%",
        "Best test accuracy": "62.50%",
        "Test loss": "0.2500",
        "Speed": "100.5",
        "Time": "1 h 02 min",
        "Peak memory": "1.5 GiB",
    }
    assert page.texts["figcaption"] == [
        "Loss",
        "Accuracy",
        "Learning rate",
        "Images per second",
        "Accuracy by confidence",
    ]
    assert page.texts["title"][0] == "cifar10: 50.00% on noise"
    lead = next(text for text in page.texts["p"] if text.startswith("ViT-B/16"))
    assert lead.endswith("1,280 images encrypted with bs+ps, 3 epochs, seed 0.")


def test_what_a_run_lacks_is_left_out(tmp_path):
    page = _page(write_run(tmp_path / "old", NAMES, evaluated=False, epochs=1, images_per_second=None))
    assert [attributes["id"] for attributes in page.all("section")] == ["curves", "settings", "environment", "repeat"]
    assert page.texts["dt"] == ["Test accuracy", "Best test accuracy", "Test loss"]
    page = _page(write_run(tmp_path / "doubtful", NAMES, warnings=["the loss <did> not move"]))
    assert page.all("section")[0]["id"] == "warnings" and "the loss <did> not move" in page.texts["li"]


def test_a_run_with_validation_images_shows_them_and_the_choice_of_weights(tmp_path):
    chosen = {"best_by": "val_accuracy", "best_value": 0.5, "best_epoch": 2, "stopped_early": True}
    page = _page(write_run(tmp_path, NAMES, part="val", **chosen))
    assert "validation from 0.75 to 0.25" in next(text for text in page.texts["title"] if text.startswith("Loss"))
    assert page.texts["dt"][:2] == ["Test accuracy", "Best val_accuracy"] and page.texts["dd"][1] == "0.5000"
    notes = page.texts["small"][:2]
    assert notes == ["120 images, weights of epoch 2", "epoch 2, stopped early"]
    assert {"Validation loss", "Validation accuracy"} <= {*page.texts["th"]}


def test_the_page_asks_nothing_of_the_network(folder):
    page = _page(folder)
    text = (folder / "report.html").read_text()
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:)", text) and "@import" not in text
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.elements}
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")


def test_names_of_classes_and_folders_are_text(tmp_path):
    page = _page(write_run(tmp_path / "<b>run", HOSTILE, dataset="<i>noise", warnings=["</ul><script>"]))
    assert not {"script", "b", "i"} & {tag for tag, _ in page.elements if tag != "i"} and not page.all("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    headings = page.texts["th"]
    assert {*HOSTILE[:3], "\\x00\\x1b[31m\\udcff", "é" * 59 + "…"} <= {*headings, *page.texts["span"]}
    assert "<b>run" in page.texts["h1"]


@pytest.mark.slow
def test_tables_and_pictures_can_be_read_aloud(folder, tmp_path):
    many = write_run(tmp_path / "many", tuple(f"class {i}" for i in range(50)))
    for page in (_page(folder), _page(many)):
        tables = page.all("table")
        assert len(page.texts["caption"]) == len(tables) > 6
        assert all(attributes["scope"] in ("row", "col") for attributes in page.all("th"))
        assert all(attributes["alt"] for attributes in page.all("img"))
        charts = page.all("svg")
        assert {attributes["role"] for attributes in charts} == {"img"}
        assert page.all("html") == [{"lang": "en"}]
        described = [attributes["aria-labelledby"] for attributes in page.all("section")]
        assert set(described) <= {attributes["id"] for attributes in page.all("h2")}
    loss = next(text for text in _page(folder).texts["title"] if text.startswith("Loss"))
    assert loss == "Loss: training from 2 to 0.1667; test from 0.75 to 0.25"


@pytest.mark.slow
def test_the_page_shows_the_matrix_as_numbers_or_as_a_picture(folder, tmp_path):
    text = report.write(folder).read_text()
    counts = run_files.read(folder).confusion
    rows = re.findall(r'<tr><th scope="row">(?:airplane|bird|cat)</th>(<td(?:(?!</tr>).)*)</tr>', text)[:3]
    cells = [[int(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<td.*?</td>", row)] for row in rows]
    np.testing.assert_array_equal(cells, counts)
    many = write_run(tmp_path / "many", tuple(f"class {i}" for i in range(50)))
    (image,) = _page(many).all("img")
    picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition("base64,")[2])))
    pixels, counts = np.asarray(picture), run_files.read(many).confusion
    assert counts is not None
    np.testing.assert_array_equal(pixels[..., 3] > 0, counts > 0)
    blue = np.eye(50, dtype=bool)
    assert (pixels[blue, 2] > pixels[blue, 0]).all() and (pixels[~blue, 0] > pixels[~blue, 2]).all()


def test_worst_classes_come_first_with_what_they_are_mistaken_for(folder):
    text = report.write(folder).read_text()
    part = text.partition("Classes with the lowest accuracy (3 of 3)")[2].partition("</table>")[0]
    names = re.findall(r'<th scope="row">(\w+)</th>', part)
    counts = run_files.read(folder).confusion
    assert counts is not None
    accuracies = np.diagonal(counts) / counts.sum(axis=1)
    assert names == [NAMES[index] for index in np.argsort(accuracies, kind="stable")]
    worst = NAMES.index(names[0])
    wrong = {name: count for name, count in zip(NAMES, counts[worst], strict=True) if name != names[0]}
    first = max(wrong, key=lambda name: wrong[name])
    assert f"<bdi>{first}</bdi> ({wrong[first]})" in part


@pytest.mark.slow
def test_many_classes_have_a_chart_of_their_accuracies(folder, tmp_path):
    many = write_run(tmp_path / "many", tuple(f"class {i}" for i in range(30)))
    text, counts = report.write(many).read_text(), run_files.read(many).confusion
    assert counts is not None
    accuracies = np.sort(np.diagonal(counts) / counts.sum(axis=1))[::-1]
    assert f"Accuracy of all classes (median {np.median(accuracies):.1%})" in text
    part = text.partition("Accuracy of all classes")[2].partition("</figure>")[0]
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', part)]
    np.testing.assert_allclose(heights, accuracies * 204, atol=0.11)
    assert "of all classes" not in report.write(folder).read_text()


def test_the_page_repeats_the_run_but_names_no_key(folder, tmp_path):
    text = report.write(folder).read_text()
    assert "owners_folder" not in text and "00ff" in text
    run = run_files.read(folder)
    (tmp_path / "repeat.py").write_text(facts.configuration_file(run))
    repeated = configuration.load(str(tmp_path / "repeat.py"))
    assert public_settings(json.loads(repeated.to_json())) == public_settings(run.record["config"])
    assert repeated.key_file == "" and repeated.freeze == ("head/.*",)
    assert "ppvit train --config=repeat.py --workdir=runs/repeat --config.key_file=KEY_FILE" in text


def test_settings_that_differ_from_the_defaults_come_first(folder):
    part = report.write(folder).read_text().partition('id="settings"')[2]
    changed, _, same = part.partition("settings at their defaults")
    names = re.findall(r'<th scope="row">([\w.]+)</th>', changed)
    assert names == ["optimizer.learning_rate", "freeze"]
    assert "batch_size" in same and "0.001" in changed


def test_the_command_writes_the_page(folder, tmp_path, capsys):
    assert run_ppvit("report", folder, f"--output={tmp_path / 'page.html'}") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").read_text() == report.write(folder).read_text()
    for arguments, message in (
        ([tmp_path], "has no config.json: give the workdir of a run"),
        ([folder, f"--output={tmp_path}/no/page.html"], f"there is no folder {tmp_path}/no: create it, or choose"),
    ):
        assert run_ppvit("report", *arguments) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_run_that_is_not_complete_or_is_damaged_is_refused(tmp_path):
    write_run(tmp_path, NAMES)
    (tmp_path / "result.json").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"is not complete: run its command again to finish it first$"):
        report.write(tmp_path)
    (tmp_path / "kept").rename(tmp_path / "result.json")
    (tmp_path / "confusion.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"cannot read .*confusion\.csv"):
        report.write(tmp_path)


def test_results_of_earlier_versions_are_shown_as_far_as_they_go(tmp_path):
    result = json.loads((write_run(tmp_path, NAMES) / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({name: result[name] for name in results._REQUIRED}))
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: record[name] for name in ("config", "metadata")}))
    page = _page(tmp_path)
    assert page.texts["dt"] == ["Test accuracy", "Best test accuracy", "Test loss"]
    (tmp_path / "result.json").write_text(json.dumps({**result, "test_accuracy": "high"}))
    with pytest.raises(UserError, match=r"cannot describe the run in .*: one of its files is damaged$"):
        report.write(tmp_path)


def test_a_page_that_cannot_be_written_costs_a_warning(tmp_path, capsys):
    write_run(tmp_path, NAMES)
    (tmp_path / "evaluation.json").write_text("{")
    report.write_once(tmp_path)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: cannot write report.html (") and f"run ppvit report {tmp_path}" in warning
    write_run(tmp_path, NAMES)
    report.write_once(tmp_path)
    before = (tmp_path / "report.html").stat().st_mtime_ns
    report.write_once(tmp_path)
    assert (tmp_path / "report.html").stat().st_mtime_ns == before


def test_elements_escape_what_is_no_html():
    assert element("p", "<&>", title='"') == '<p title="&quot;">&lt;&amp;&gt;</p>'
    assert element("p", element("b", 3), class_="x", hidden=None) == '<p class="x"><b>3</b></p>'
    assert element("img", alt="a", aria_hidden="true") == '<img alt="a" aria-hidden="true">'
    assert escape("a\x00\ud800\n") == "a\\x00\\ud800\n"
    assert '<th scope="row">1</th><td>&lt;</td>' in table("t", ["a", "b"], [[1, "<"]])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 15, [0, 5, 10, 15]),
        (0.31, 0.39, [0.3, 0.32, 0.34, 0.36, 0.38, 0.4]),
        (5, 5, [5, 6]),
        (0, 0, [0, 0.2]),
        (-3, 1000, [-500, 0, 500, 1000]),
    ],
)
def test_labels_of_an_axis_are_round_and_enclose_its_values(low, high, expected):
    ticks = charts._ticks(low, high, 5)
    assert ticks == expected and ticks[0] <= low and ticks[-1] >= high


def test_a_chart_draws_its_points_in_their_places():
    text = charts.line_chart("Loss", [charts.Series("a", "first", [(0, 0), (1, 10), (2, 5)])], x_title="epoch")
    (points,) = re.findall(r'points="([^"]*)"', text)
    places = np.array([pair.split(",") for pair in points.split()], float)
    left, right, top, bottom = 58, 460 - 22, 10, 250 - 36
    np.testing.assert_allclose(places, [[left, bottom], [(left + right) / 2, top], [right, (top + bottom) / 2]])
    long = charts.Series("a", "first", [(i, i % 7) for i in range(100_001)])
    (points,) = re.findall(r'points="([^"]*)"', charts.line_chart("Loss", [long], x_title="epoch"))
    assert 300 < len(points.split()) <= 602 and points.split()[-1].startswith("438,")


def test_a_constant_is_shown_by_its_distance_from_zero():
    for value, labels in ((0.003, ["0", "0.001", "0.002", "0.003"]), (0, ["0", "0.2"])):
        text = charts.line_chart("Rate", [charts.Series("a", "first", [(0, value), (1, value)])], x_title="epoch")
        assert re.findall(r'text-anchor="end">([^<]*)<', text) == labels


def test_time_and_memory_are_those_of_all_processes(monkeypatch):
    monkeypatch.setattr(usage, "peak_memory", lambda: (2**20, "process"))
    second = usage.Usage()
    second.resume([{"seconds": 5.0}, {}])
    measured = second.measure()
    assert 5 <= (measured["seconds"] or 0) < 6 and measured["peak_memory_bytes"] == 2**20
    result: dict = {}
    second.add_to(result, [{"seconds": 5.0, "peak_memory_bytes": 2**21}, measured])  # pyright: ignore[reportArgumentType]
    assert result == {"seconds": measured["seconds"], "peak_memory_bytes": 2**21, "peak_memory_of": "process"}
    monkeypatch.setattr(usage, "peak_memory", lambda: None)
    assert second.measure()["peak_memory_bytes"] is None


def test_memory_is_that_of_the_fullest_device_where_devices_count_it(monkeypatch):
    class Device:
        def __init__(self, statistics):
            self.memory_stats = lambda: statistics

    monkeypatch.setattr("jax.local_devices", lambda: [Device({"peak_bytes_in_use": n}) for n in (3, 7)])
    assert usage.peak_memory() == (7, "device")
    monkeypatch.setattr("jax.local_devices", lambda: [Device(None)])
    memory = usage.peak_memory()
    assert memory is not None and memory[1] == "process" and memory[0] > 2**26


def test_the_report_is_off_by_default():
    assert default_config().report is False and default_config().loggers == ()
