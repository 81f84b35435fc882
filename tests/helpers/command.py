"""Commands in this process or in processes of their own, and the arguments of a small real run."""

import os
import subprocess
import sys
from pathlib import Path

from ppvit_jax import __main__ as commands
from ppvit_jax import keys
from ppvit_jax.command_line import run_command

ROOT = Path(__file__).parents[2]
# Trains the small checkpoint of the package on some digits, in float64, so that only the order of sums may differ.
SMALL_RUN = [
    f"--config={ROOT / 'configs' / 'digits.py'}",
    "--config.image_size=16",
    "--config.dtype=float64",
    "--config.data.train_examples=64",
    "--config.data.test_examples=30",
    "--config.batch_size=8",
    "--config.eval_batch_size=8",
    "--config.epochs=2",
    "--config.checkpoint_steps=3",
    "--config.log_steps=1",
    "--config.tensorboard=False",
]


def start(arguments: list[str], **environment: str) -> subprocess.Popen:
    """Starts `python -m ppvit_jax.main` with these arguments and environment variables; returns the process."""
    return subprocess.Popen(
        [sys.executable, "-m", "ppvit_jax.main", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_ppvit(*arguments: object) -> int:
    """Runs a `ppvit` command in this process and returns its exit status."""
    return run_command(commands.main, [str(argument) for argument in arguments])


def finish(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """Waits for processes and returns the exit status, standard output and standard error of each."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def make_key(folder: Path, number: int = 0) -> Path:
    """Writes a key file whose key is 32 times the byte `number`, and returns its path."""
    path = folder / f"{number}.key"
    keys.save(keys.SecretKey(bytes([number] * 32)), path)
    return path
