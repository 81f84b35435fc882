"""The training step of a Vision Transformer, compiled for several CPU devices, and what they exchange in it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers.command import ROOT


def compile_on_devices(devices: int, sharding: str, model: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Compiles a training step in a process that has several CPU devices.

    Args:
      devices: number of devices.
      sharding: as `config.sharding`.
      model: fields of the model's shape; see `ViTConfig`.
      **settings: other fields of the configuration, and "images", the number of images on each device.

    Returns:
      "kept": parameters that each device keeps. "temporary": bytes that the step needs beside its arguments on each
      device. "exchanges": [operation, dtype, number of collectives, bytes of the whole arrays] of each kind.
    """
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    arguments = json.dumps({"sharding": sharding, "model": model, "settings": settings})
    script = [sys.executable, str(Path(__file__)), arguments]
    run = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _compile(sharding: str, model: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from benchmarks.aot import collectives, hlo
    from ppvit_jax import models
    from ppvit_jax.config import default_config
    from ppvit_jax.training import devices
    from ppvit_jax.training.step import compile_steps

    config, count = default_config(), settings.pop("images") * jax.device_count()
    config.update({"encryption": "none", "sharding": sharding} | settings)
    shape = models.ViTConfig(**model, dtype=config.dtype)
    steps: Any = compile_steps(shape, config, 1)
    state = jax.eval_shape(lambda rng: steps.init_state(models.build(shape).init(rng), {}), jax.random.key(0))
    parts = devices.state_shardings(state, sharding)
    state = jax.tree.map(lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to), state, parts)
    _, batch_sharded = devices.shardings()
    size = shape.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8, sharding=batch_sharded),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32, sharding=batch_sharded),
    }
    compiled = steps.train_step.lower(state, batch, jax.eval_shape(jax.random.key, 0), None).compile()
    leaves = jax.tree.leaves(state["params"])
    return {
        "kept": sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves),
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
        "exchanges": [
            [one.op, one.dtype, one.count, one.bytes] for one in collectives.exchanges(hlo.parse(compiled.as_text()))
        ],
    }


if __name__ == "__main__":
    print(json.dumps(_compile(**json.loads(sys.argv[1]))))
