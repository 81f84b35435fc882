"""A process that takes two training steps and prints its peak memory; `measure` starts such a process."""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import jax

from benchmarks.jax_step import TrainingStep, random_batch
from benchmarks.settings import Settings, select_device
from ppvit_jax.config import default_config
from ppvit_jax.models import vit
from ppvit_jax.offline import memory

_LIMIT_SECONDS = 1800


def measure(settings: Settings, framework: str, model: str, dtype: str, batch_size: int) -> dict[str, Any]:
    """Measures the peak memory of two training steps in a process of their own.

    Args:
      settings: the device and the image size.
      framework: "jax", "pytorch" or "pytorch-compiled".
      model: the name of the model.
      dtype: the compute dtype.
      batch_size: number of images in a step.

    Returns:
      "peak_bytes", the peak memory of the device, or of the process if the device is the processor; or "failed", the
      reason why there was no second step.
    """
    arguments = [framework, model, dtype, str(batch_size), str(settings.image_size), settings.device]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.one_step", *arguments],
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
            # The package may be in the working directory alone, or elsewhere.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no second step within {_LIMIT_SECONDS} s"}
    if done.returncode < 0:
        return {"failed": f"the process was ended by signal {-done.returncode}"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"failed": lines[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Takes the steps and prints the result as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_step")
    parser.add_argument("framework", choices=("jax", "pytorch", "pytorch-compiled"))
    parser.add_argument("model")
    parser.add_argument("dtype")
    parser.add_argument("batch_size", type=int)
    parser.add_argument("image_size", type=int)
    parser.add_argument("device")
    arguments = parser.parse_args()
    config = vit.parse_name(arguments.model, image_size=arguments.image_size, num_classes=10, dtype=arguments.dtype)
    training = default_config()
    training.dtype = arguments.dtype
    batch = random_batch(arguments.batch_size, arguments.image_size)
    if arguments.framework == "jax":
        select_device(arguments.device)
        TrainingStep(config, training, batch).run(2)
        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    else:
        from benchmarks import pytorch

        compiled = arguments.framework == "pytorch-compiled"
        pytorch.TrainingStep(config, training, batch, arguments.device, compile_model=compiled).run(2)
        peak = pytorch.peak_device_bytes()
    print(json.dumps({"peak_bytes": memory.peak_bytes() if peak is None else peak}))


if __name__ == "__main__":
    main()
