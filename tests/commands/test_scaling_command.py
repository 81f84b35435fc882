"""Tests of `ppvit scaling`, and of the files of docs/scaling.md."""

import os
import re
import shlex
import subprocess

import jax
import pytest
import yaml
from helpers.command import ROOT, run_ppvit

from ppvit_jax import config as configuration
from ppvit_jax import main
from ppvit_jax.training import experiment

FILES = sorted((ROOT / "docs" / "scaling").glob("*.*"))


def _table(capsys, *arguments):
    assert run_ppvit("scaling", *arguments) == 0
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    )
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.slow
def test_a_row_for_each_model_sharding_and_number_of_devices(capsys):
    rows = _table(capsys, "--model=ViT-Ti/16,ViT-B/16", "--devices=1,8", "--compute-rate=100", "--bandwidth=50")
    assert len(rows) == 2 * 2 * 2
    base = rows[5]
    assert (base["model"], base["sharding"], base["devices"]) == ("ViT-B/16", "data_parallel", "8")
    # The model has 85,798,656 parameters and a head of 1,000 classes.
    assert base["parameters GB"] == f"{(85_798_656 + 769_000) * 4 / 1e9:.3f}"
    assert float(base["computing ms"]) == pytest.approx(float(base["TFLOP"]) / 100 * 1000, rel=1e-3)
    assert float(base["sending ms"]) == pytest.approx(float(base["sent GB"]) / 50 * 1000, rel=1e-3)
    assert "sending ms" not in _table(capsys, "--model=ViT-Ti/16", "--devices=1")[0]


def test_options_of_a_recipe(capsys):
    arguments = ("--devices=1", "--sharding=data_parallel", "--dtype=bfloat16")
    names = ["DeiT-B/16-III", "DINOv2-B/14", "DINOv3-B/16", "SigLIP-B/16", "CLIP-B/16"]
    full = _table(capsys, f"--model={','.join(names)}", *arguments, "--ema-decay=0.9")
    assert [row["model"] for row in full] == names
    assert all(row["average GB"] == row["parameters GB"] for row in full)
    (lora,) = _table(capsys, "--model=SigLIP-B/16", *arguments, "--tuning=lora", "--rank=4", "--remat=blocks")
    assert "average GB" not in lora and float(lora["gradients GB"]) < 0.02 * float(full[3]["gradients GB"])
    assert float(lora["peak GB"]) < 0.3 * float(full[3]["peak GB"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model=ResNet-19", "unknown model"),
        ("--model=ResNet-18", "ResNet, and only Vision Transformers are estimated: run python -m benchmarks aot"),
        ("--model=ConvMixer-256/8", "is a ConvMixer"),
        ("--devices=8,many", "give whole numbers"),
        ("--devices=7", "cannot be shared by 7 devices"),
        ("--sharding=some", "use data_parallel or fully_sharded"),
        ("--bandwidth=0", "give a positive number"),
        ("--classes=0", "give at least 1"),
        ("--rank=0", "give at least 1"),
        ("--ema-decay=1", "give less than 1"),
        ("--attention=cudnn", "not gpu and float32"),
        ("--reduce-dtype=bfloat16", "needs --dtype bfloat16"),
    ],
)
def test_what_is_impossible_gives_one_line(capsys, argument, message):
    assert run_ppvit("scaling", argument) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def _commands(path):
    """Returns the arguments of every `python -m ppvit_jax.main` in a file to submit."""
    text = path.read_text()
    if path.suffix == ".yaml":
        sets = [part for part in yaml.safe_load_all(text) if part["kind"] == "JobSet"]
        jobs = [job for one in sets for job in one["spec"]["replicatedJobs"]]
        containers = [one for job in jobs for one in job["template"]["spec"]["template"]["spec"]["containers"]]
        return [one["command"][3:] + one["args"] for one in containers]
    found = re.findall(r"-m ppvit_jax\.main ((?:[^\n]*\\\n)*[^\n]*)", text)
    return [shlex.split(command.replace("\\\n", " ").rstrip('"')) for command in found]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix in (".sh", ".yaml")], ids=lambda path: path.name
)
def test_files_to_submit_run_what_the_program_accepts(path, monkeypatch):
    given = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: given.append("distributed"))
    monkeypatch.setattr(experiment, "run", lambda config, workdir: given.append((config, workdir)) or {})
    monkeypatch.chdir(ROOT)
    commands = _commands(path)
    assert len(commands) == 1
    main.main(commands[0])
    distributed, (config, workdir) = given
    assert distributed == "distributed" and workdir.endswith("/run")
    assert (config.dtype, config.sharding, config.batch_size) == ("bfloat16", "data_parallel", 512)
    assert config.adapt is False and config.encryption == "none" and config.data.dir.endswith("/encrypted")
    assert config.keys() == configuration.default_config().keys()


def _stub(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def test_the_slurm_job_starts_a_process_a_node_with_all_its_gpus(tmp_path):
    """A stub of srun prints its arguments."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    _stub(tmp_path, "srun", 'printf "%s\\n" "$JAX_LOCAL_DEVICE_IDS" "$JAX_COMPILATION_CACHE_DIR" "$@"')
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "16"}
    script = ["bash", str(ROOT / "docs" / "scaling" / "slurm.sh")]
    run = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode != 0 and "FOLDER" in run.stderr
    run = subprocess.run(
        script, cwd=tmp_path, env=environment | {"FOLDER": "/shared/a b"}, capture_output=True, text=True, check=True
    )
    devices, cache, *arguments = run.stdout.splitlines()
    assert (devices, cache) == ("0,1,2,3", "/shared/a b/compilation_cache")
    assert arguments[:6] == [
        "--cpus-per-task=16",
        "--kill-on-bad-exit=1",
        "python",
        "-m",
        "ppvit_jax.main",
        "--distributed",
    ]
    assert "--workdir=/shared/a b/run" in arguments


def test_the_tpu_script_reaches_all_hosts(tmp_path):
    """A stub of gcloud prints its arguments."""
    _stub(tmp_path, "gcloud", 'printf "%s\\n" "$*"')
    given = {"PROJECT": "p", "ZONE": "z", "TPU_NAME": "t", "NFS": "host:/share"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | given
    outputs = {}
    for action in ("create", "train", "delete", "other"):
        script = ["bash", str(ROOT / "docs" / "scaling" / "tpu_pod.sh"), action]
        run = subprocess.run(script, env=environment, capture_output=True, text=True)
        assert run.returncode == (action == "other")
        outputs[action] = run.stdout
    for action in ("create", "delete"):
        assert outputs[action].startswith(f"compute tpus tpu-vm {action} t --project=p --zone=z")
    assert outputs["train"].startswith(
        "compute tpus tpu-vm ssh t --project=p --zone=z --worker=all --command=cd ppvit_jax"
    )


def test_the_page_names_every_file():
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert all(f"scaling/{path.name}" in page for path in (ROOT / "docs" / "scaling").iterdir())
