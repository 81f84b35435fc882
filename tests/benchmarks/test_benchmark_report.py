import json

from benchmarks import report


def test_tables_tell_numbers_with_their_units_and_json_has_all(tmp_path):
    row = {"what": "copy", "seconds": 0.0123, "quartiles": (2e-6, 3e-6), "ratio": 1.0, "images_per_second": 12345.6}
    columns = {"what": "Work", "seconds": "Median", "quartiles": "quartiles", "ratio": "Ratio", "failed": "Failed"}
    rows = [{**row, "turns": [0.0123]}, {"what": "large", "seconds": 2.5, "ratio": (1.5, 20.25), "failed": "no memory"}]
    table = report.Table("Copies", "Bytes are copied.", columns, rows)
    report.write(tmp_path, "ppvit benchmark", {"device": "cpu", "cores": 2}, {"copies": [table]})
    text = (tmp_path / "benchmark.md").read_text()
    assert "device cpu, cores 2." in text and "## Copies\n\nBytes are copied.\n" in text
    assert "| Work | Median | quartiles | Ratio | Failed |" in text
    assert "| copy | 12.3 ms | 2.000 to 3.000 µs | 1.000 |  |" in text
    assert "| large | 2.500 s |  | 1.500 to 20.2 | no memory |" in text
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content["machine"] == {"device": "cpu", "cores": 2}
    measured = content["sections"]["copies"][0]["rows"][0]
    assert measured["turns"] == [0.0123] and measured["images_per_second"] == 12345.6
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["benchmark.json", "benchmark.md"]


def test_small_numbers_do_not_look_like_zero():
    rows = [{"value": value} for value in (0.0, 3.6e-6, -4.9e-4, 0.0006, 1e-300)]
    lines = report.Table("Small", "", {"value": "Value"}, rows).lines()
    assert lines[-6:-1] == ["| 0.000 |", "| 3.6e-06 |", "| -4.9e-04 |", "| 0.001 |", "| 1.0e-300 |"]
