import re

import pytest

from ppvit_jax import __main__ as commands
from ppvit_jax.main import run_command

SMALL = ["benchmark", "--model=ViT-Micro/8", "--image-size=16", "--batch-size=2", "--steps=2"]


def test_prints_rates_as_ratios_and_the_memory(capsys):
    assert run_command(commands.main, SMALL) == 0
    printed = capsys.readouterr().out
    rows = dict(
        re.findall(r"^\| (plain|encrypted \(bs\+ps\)) \| ([\d.]+ \| [\d.]+ \| [\d.]+) \|$", printed, re.MULTILINE)
    )
    assert rows["plain"].endswith("1.000")
    assert len(rows) == 2
    assert "ViT-Micro/8, 1.2 million parameters, 16x16, batch 2, float32" in printed
    memory = re.search(r"\w+: peak memory ([\d,]+) MiB", printed)
    assert memory is not None and 50 < int(memory[1].replace(",", "")) < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size=0"], "--batch-size and --steps need at least 1"),
        (["--image-size=17"], "image size 17 is not a multiple"),
        (["--model=VGG"], "unknown model 'VGG'"),
    ],
)
def test_impossible_sizes_give_one_line(capsys, arguments, message):
    assert run_command(commands.main, [*SMALL, *arguments]) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
