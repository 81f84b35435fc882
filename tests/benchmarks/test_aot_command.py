"""The program python -m benchmarks, and the command aot as far as it goes without the compilers of other devices."""

import argparse
import itertools

import jax
import pytest
from helpers.command import ROOT
from helpers.pages import blocks, inline_commands

from benchmarks import __main__ as program
from benchmarks.aot import command, estimate, summary, targets
from benchmarks.aot.step import Compiled, OutOfMemoryError, Plan, compile_step
from ppvit_jax import models
from ppvit_jax.command_line import run_command
from ppvit_jax.errors import UserError

HBM = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 26.50G of 15.75G hbm. Exceeded by 10.75G."


def run(*arguments):
    return run_command(program.main, list(arguments))


def parsed(*arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks aot")
    command.add_arguments(parser)
    return parser.parse_args(arguments)


def plan(name="h200", batch_size=32, **fields):
    return Plan(machine=targets.parse(name), batch_size=batch_size, **fields)


def test_help_names_the_commands_and_a_wrong_one_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in program.COMMANDS)
    for arguments in ([], ["nothing"], ["aot", "--optimizer", "none"]):
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "gtx"], "--target is 'gtx': use h100, h200, v5e, with a number of chips as in v5e-4"),
        (["--target", "v5e-3"], "--target is v5e-3, with 3 chips: v5e has 1, 4, 8"),
        (["--target", "h200-0"], "--target is h200-0, with 0 chips: h200 has at least 1"),
        (["--batch-size", "few"], "--batch-size is few: give whole numbers, such as 32,256"),
        (["--batch-size", "32,0"], "--batch-size is 0: give at least 1"),
        (["--sharding", "by_hand"], "--sharding is by_hand: use data_parallel or fully_sharded"),
        (["--tuning", "full,qlora"], "--tuning is qlora: use full, lora, probe"),
        (["--image-size", "0"], "--image-size is 0: give at least 1"),
        (["--target", ","], "there is nothing to compile: give --target, --batch-size and --sharding a value each"),
        (["--devices", "4"], "unknown arguments --devices 4: see python -m benchmarks aot --help"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert run("aot", *arguments) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("version", "name", "message"),
    [
        ((3, 11, 4), "v5e", "compiling for v5e needs Python 3.12 or later, and this is 3.11: use a later one"),
        ((3, 13, 0), "h100-2", "compiling for h100-2 needs jax-cuda12-plugin: run pip install --editable '.[aot]'"),
        (
            (3, 12, 0),
            "v5e-4",
            "compiling for v5e-4 needs libtpu: run pip install --editable '.[aot]' in the clone",
        ),
    ],
)
def test_without_the_extra_the_command_says_what_to_install(version, name, message, capsys, monkeypatch):
    monkeypatch.setattr(targets.sys, "version_info", version)
    monkeypatch.setattr(targets, "is_installed", lambda module: False)
    assert run("aot", "--target", name) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
    with pytest.raises(UserError, match="needs"):
        compile_step(plan(name))


def test_each_target_batch_size_and_sharding_is_a_plan():
    plans = command.make_plans(
        parsed("--target=h200-4,v5e", "--batch-size", "32, 64", "--sharding=data_parallel,fully_sharded")
    )
    found = [(one.machine.name, one.batch_size, one.sharding) for one in plans]
    assert found == list(itertools.product(["h200-4", "v5e"], [32, 64], ["data_parallel", "fully_sharded"]))
    assert [one.config().tuning.method for one in command.make_plans(parsed("--tuning=full,probe"))] == [
        "full",
        "probe",
    ]
    config = plans[0].config()
    assert (config.batch_size, config.dtype, config.encryption) == (4 * 32, "bfloat16", "none")
    model_config = plans[0].model_config()
    assert isinstance(model_config, models.ViTConfig) and model_config.target == models.Target("gpu", 4)


def test_a_batch_that_parts_cannot_share_is_refused():
    with pytest.raises(UserError, match="--batch-size 32 is not a multiple of --accumulation 5"):
        compile_step(plan(accumulation=5))


def test_the_compilers_own_refusal_tells_the_memory_that_is_needed():
    error = OutOfMemoryError.read(plan("v5e", 256), RuntimeError(HBM))
    assert error is not None and error.needed == 26.5 * 2**30
    assert str(error) == (
        "ViT-B/16 with 256 images a chip does not fit the memory of v5e (Used 26.50G of 15.75G hbm): use a smaller "
        "--batch-size, more --accumulation, or more chips"
    )
    assert OutOfMemoryError.read(plan(), RuntimeError("INTERNAL: something else")) is None


MINIMAL = (
    "ENTRY %main (x: f32[8]) -> f32[8] {\n  %x = f32[8]{0} parameter(0)\n"
    '  ROOT %c = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"1500"}\n}\n'
)


def read(one, peak):
    return summary.read(one, Compiled(MINIMAL, arguments=32, temporary=0, peak=peak, flops=0.0, moved=0.0))


@pytest.mark.parametrize(
    ("name", "peak", "answer"),
    [
        ("h100", 60e9, "yes"),
        ("h100", 70e9, "with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"),
        ("h200", 70e9, "yes"),
        ("h100", 84e9, "no"),
        ("v5e", 16.8e9, "yes"),
        ("v5e", 17e9, "no"),
    ],
)
def test_the_memory_is_compared_with_the_chips(name, peak, answer):
    assert read(plan(name), int(peak)).fits == answer


def test_the_tables_say_that_nothing_ran_and_leave_out_what_is_not_known():
    lost = summary.Planned(plan("h100", 4096), 1e12)
    tables = summary.tables([read(plan(accumulation=2, attention="xla"), 10**9), lost])
    assert [table.title for table in tables] == [
        "Training step of ViT-B/16, 224x224, bfloat16, sgd, encryption none, attention xla",
        "Kernels",
    ]
    assert tables[0].note == estimate.GPU_NOTE and "nothing ran" in tables[0].note
    first, second = tables[0].rows
    assert (first["kernels"], first["fits"], second["fits"]) == (1, "yes", "no")
    assert (first["parts"], second["parts"]) == (2, 1)
    assert first["seconds"] == pytest.approx(1.5e-6, rel=0.01) and "seconds" not in second
    assert first["images_per_second"] == pytest.approx(32 / first["seconds"])
    assert tables[1].rows[0]["kind"] == "copy" and len(tables[1].rows) == 1
    tpu = summary.tables([read(plan("v5e"), 10**9)])
    assert len(tpu) == 1 and "nothing was measured on a TPU" in tpu[0].note
    assert tpu[0].rows[0]["seconds"] == pytest.approx(1e-6)


PAGE = ROOT / "docs" / "aot.md"


def test_the_commands_of_the_page_are_understood():
    written = [words for block in blocks(PAGE) if block.language in ("", "sh") for words in block.commands]
    commands = [words for words in [*written, *inline_commands(PAGE)] if words[:3] == ["python", "-m", "benchmarks"]]
    complete = [words for words in commands if len(words) > 4 and "--help" not in words]
    assert len(complete) > 1
    for words in complete:
        assert command.make_plans(parsed(*words[4:]))


def test_nothing_of_jax_is_replaced_but_its_two_questions_for_cudnn():
    from jax._src.cudnn import fused_attention_stablehlo as attention

    before = dict(vars(attention))
    with targets.assuming_cudnn():
        changed = {name for name, value in vars(attention).items() if value is not before.get(name)}
        assert changed == {"check_cudnn_version", "check_compute_capability"}
        assert attention.check_cudnn_version() == 91_000
        assert [attention.check_compute_capability(version) for version in ("8.0", "9.0", "10.0")] == [
            True,
            True,
            False,
        ]
    assert vars(attention) == before


def test_the_process_is_prepared_before_jax_looks_for_devices(monkeypatch):
    changed = {}
    monkeypatch.setattr(targets.os, "environ", environment := {"HOME": "/"})
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    targets.prepare_process()
    assert environment == {
        "HOME": "/",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "False",
        **targets.TPU_ENVIRONMENT,
    }
    assert changed == {"jax_platforms": "cpu", "jax_enable_compilation_cache": False}
