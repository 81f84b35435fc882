from ppvit_jax.audit import matrix
from ppvit_jax.audit.methods import Comparison, Record


def test_tables_show_median_and_range():
    assert matrix.spread([0.25, 1.0, 0.5]) == "0.500 (0.250 to 1)"
    assert matrix.spread([1.0, 1.0]) == "1"
    assert matrix.spread([]) == ""
    records = [
        Record("bs", number, "dictionary", True, {"candidates": 5, "identified": value})
        for number, value in enumerate((0.2, 0.4, 0.9))
    ]
    assert "| `bs` | 5 | 3 | 0.400 (0.200 to 0.900) |" in matrix.summarize(records)
    assert "| `bs` | 0.400 (0.200 to 0.900) |" in matrix.tabulate(Comparison(["bs"], records, {}, []))


def test_draws_of_images_have_a_table_of_their_own():
    records = [
        Record("bs", key, "ciphertext-only", True, {"images": 5, "SSIM": 0.1 * key + 0.5 * draw}, draw)
        for draw in (0, 1)
        for key in (1, 2, 3)
    ]
    lines = matrix.summarize(records)
    assert (
        "| method | images | keys and draws | SSIM |" in lines and "| method | images | draw | keys | SSIM |" in lines
    )
    assert "| `bs` | 5 | 6 | 0.450 (0.100 to 0.800) |" in lines
    assert "| `bs` | 5 | 0 | 3 | 0.200 (0.100 to 0.300) |" in lines
    assert "| `bs` | 5 | 1 | 3 | 0.700 (0.600 to 0.800) |" in lines
    undrawn = [Record("bs", 0, "ciphertext-only", True, {"images": 5, "SSIM": 0.5})]
    assert not any("draw" in line for line in matrix.summarize(undrawn))


def test_a_column_shows_the_lowest_row_or_the_last():
    rows = [("weights", {"rows of": tensor, "recovered": value}) for tensor, value in (("a", 0.9), ("b", 0.7))]
    rows += [("known-plaintext", {"pairs": pairs, "SSIM": value}) for pairs, value in ((1, 0.2), (2, 0.6))]
    records = [Record("bs", 0, attack, True, row) for attack, row in rows]
    lines = matrix.tabulate(Comparison(["bs", "pe"], records, {("pe", "weights"): "no model"}, []))
    assert lines[0] == "| method | weights: rows recovered | known plaintext: SSIM |"
    assert lines[2] == "| `bs` | 0.700 | 0.600 |"
    assert lines[3:] == ["| `pe` | - (1) | - (2) |", "", "1. no model", "2. not run"]
