import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ppvit_jax.data.source import ArraySource, StreamSource
from ppvit_jax.training.devices import replicate_images, shard_batches, shardings

# Trains three steps on eight devices with each sharding; prints bytes on one device and differences of parameters.
_SCRIPT = """
import dataclasses, json, sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from ppvit_jax import models
from ppvit_jax.config import SHARDINGS, default_config
from ppvit_jax.training.devices import gather_to_host, shard_batch, shardings, state_shardings
from ppvit_jax.training.step import compile_steps

model = models.parse_name("ViT-Micro/8", image_size=16, num_classes=10, dtype="float64")
model = dataclasses.replace(model, layers=3)
replicated, batch_sharded = shardings()
random = np.random.default_rng(0)
batch = {"image": random.integers(0, 256, (16, 16, 16, 3), np.uint8), "label": random.integers(0, 10, 16)}
params = jax.device_get(jax.jit(models.build(model).init)(jax.random.key(0)))
results = {}
for sharding in SHARDINGS:
    config = default_config()
    config.sharding, config.dtype, config.accumulation = sharding, "float64", 2
    steps = compile_steps(model, config, 3)
    state = steps.init_state(params, {})
    state = jax.device_put(state, state_shardings(state, sharding))
    rng = jax.device_put(jax.random.key(0), replicated)
    for _ in range(3):
        state = steps.train_step(state, shard_batch(batch, batch_sharded), rng, None)
    on_one = {name: sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state[name]))
              for name in ("params", "opt_state")}
    results[sharding] = on_one, gather_to_host(state["params"])
(dense, one), (parts, other) = results.values()
apart = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), one, other)))
moved = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), one, params)))
print(json.dumps({"dense": dense, "parts": parts, "apart": apart, "moved": moved}))
"""


@pytest.mark.slow
def test_fully_sharded_states_stay_in_parts_and_train_the_same():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for name in ("params", "opt_state"):
        # A little more than an eighth, because small tensors are not split.
        assert 1 / 8 <= results["parts"][name] / results["dense"][name] < 1 / 8 + 0.02
    assert results["apart"] < 1e-12 < 1e-5 < results["moved"]


def test_only_images_in_memory_go_to_the_device_and_a_batch_is_the_same_either_way():
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (6, 4, 4, 3), np.uint8), np.arange(6, dtype=np.int32)
    source = ArraySource(images, labels)
    on_device = replicate_images(source, True)
    assert on_device is not None and on_device.sharding.is_fully_replicated
    np.testing.assert_array_equal(on_device, images)
    (batch,) = shard_batches(iter([{"index": np.array([4, 1], np.int32), "label": labels[[4, 1]]}]), on_device)
    assert batch.keys() == {"image", "label"}
    np.testing.assert_array_equal(batch["image"], images[[4, 1]])
    np.testing.assert_array_equal(batch["label"], [4, 1])
    assert batch["image"].sharding.is_equivalent_to(shardings()[1], 4)
    # "auto" leaves them in host memory on a CPU.
    assert replicate_images(source, "auto") is None and replicate_images(source, False) is None
    stream = StreamSource(labels, (4, 4, 3), lambda index: images[index])
    assert replicate_images(stream, True) is None
    (batch,) = shard_batches(iter([{"image": images[[2]]}]), None)
    assert isinstance(batch["image"], jax.Array)
