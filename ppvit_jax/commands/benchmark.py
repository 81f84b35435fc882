"""The command `python -m ppvit_jax benchmark`: training steps of real size, plain beside encrypted."""

import argparse
import statistics
import time

import jax
import numpy as np

from ppvit_jax import keys, models
from ppvit_jax.config import DTYPES, default_config, make_encryption
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError
from ppvit_jax.memory import peak_memory
from ppvit_jax.step import compile_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--model", default="ViT-B/16", help="(default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each kind (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES[:2], help="(default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Times training steps with the paper's optimiser on random images, random weights and a new key.

    The kinds take turns, so that both meet the same state of the machine.

    Raises:
      UserError: a size that is impossible.
    """
    if arguments.batch_size < 1 or arguments.steps < 1:
        raise UserError("--batch-size and --steps need at least 1")
    model_config = models.parse_name(
        arguments.model, image_size=arguments.image_size, num_classes=10, dtype=arguments.dtype
    )
    config = default_config()
    config.dtype = arguments.dtype
    size = arguments.image_size
    method = make_encryption(config, model_config)
    assert method is not None
    secret = method.derive(keys.generate(), height=size, width=size)
    random = np.random.default_rng(0)
    batch = {
        "image": jax.device_put(random.integers(0, 256, (arguments.batch_size, size, size, 3), np.uint8)),
        "label": jax.device_put(random.integers(0, 10, arguments.batch_size)),
    }
    steps = compile_steps(model_config, config, total_steps=1)
    state = jax.jit(lambda rng: steps.init_state(models.build(model_config).init(rng), {}))(jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    kinds = {"plain": None, "encrypted (bs+ps)": jax.device_put(secret)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    progress = Progress("steps", 2 * (arguments.steps + 1), "steps")
    for turn in range(arguments.steps + 1):
        for name, gather in kinds.items():
            start = time.perf_counter()
            state = jax.block_until_ready(steps.train_step(state, batch, jax.random.key(0), gather))
            if turn:
                seconds[name].append(time.perf_counter() - start)
            progress.update(sum(map(len, seconds.values())) + 2)
    progress.close()
    device = jax.devices()[0]
    print(
        f"{arguments.model}, {parameters / 1e6:.1f} million parameters, {size}x{size}, batch {arguments.batch_size}, "
        f"{arguments.dtype}, SGD with momentum, {device.device_kind}, {arguments.steps} steps of each kind\n"
    )
    print("| Training step | seconds (median) | images/s (median) | ratio to plain |\n|---|---:|---:|---:|")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        rate = arguments.batch_size / median
        print(f"| {name} | {median:.3f} | {rate:.2f} | {medians['plain'] / median:.3f} |")
    statistics_of_device = device.memory_stats() or {}
    if "peak_bytes_in_use" in statistics_of_device:
        print(f"\nDevice: peak memory {statistics_of_device['peak_bytes_in_use'] / 2**20:,.0f} MiB")
    else:
        print(f"\nProcess: {peak_memory()}")
