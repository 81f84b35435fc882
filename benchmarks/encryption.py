"""The section `encryption`: encryption alone, compared with a copy of the same bytes and simple programs."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import Table
from benchmarks.settings import Settings
from benchmarks.straightforward import encrypt
from benchmarks.timing import Work, host_work, jax_work, summarize, take_turns
from ppvit_jax import keys
from ppvit_jax.encryption import derive_permutations, parse
from ppvit_jax.encryption.permutations import join_blocks, split_blocks
from ppvit_jax.errors import UserError

_BLOCK_SIZE = 16
_COLUMNS = {
    "images": "Images",
    "what": "Work",
    "seconds": "Median",
    "quartiles": "quartiles",
    "range": "range",
    "gigabytes_per_second": "GB/s",
    "images_per_second": "images/s",
    "ratio": "Time / copy by JAX",
    "ratio_quartiles": "quartiles",
}


def run(settings: Settings) -> Iterator[list[Table]]:
    """Yields the section's table after each number of images.

    Raises:
      UserError: the image size does not divide into blocks.
    """
    size = settings.image_size
    note = (
        f"Block scrambling and pixel shuffling of uint8 images {size}x{size}x3, blocks of {_BLOCK_SIZE}x{_BLOCK_SIZE}; "
        f"{settings.repeats} turns. A copy of the same bytes is the limit: numpy's goes to memory that is "
        "allocated already, the others' to new memory. GB/s counts the bytes of each image once. The straightforward "
        "programs reshape images into blocks, index the blocks, index their values, and join them. The encryption "
        "that is cut into blocks is the one of a compiled training step, up to the model's patches. All encryptions "
        "gave the same bytes before they were timed. JAX and PyTorch work on images on the device."
    )
    table = Table("Encryption alone", note, _COLUMNS, [])
    for count in settings.batch_sizes or (32, 256):
        images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
        works = _works(images, settings)
        seconds = take_turns(works, settings.repeats, f"encryption of {count} images")
        for name, summary in summarize(seconds, "copy by JAX").items():
            row = {"images": count, "what": name, **summary, "images_per_second": count / summary["seconds"]}
            table.rows.append({**row, "gigabytes_per_second": images.nbytes / summary["seconds"] / 1e9})
        yield [table]


def _works(images: np.ndarray, settings: Settings) -> dict[str, Work]:
    size = images.shape[1]
    method = parse("bs+ps", _BLOCK_SIZE)
    key = keys.generate()
    secret = method.derive(key, height=size, width=size)
    parts = derive_permutations(key, "bs+ps", image_size=size, block_size=_BLOCK_SIZE)
    block, pixel = parts.block, parts.pixel
    assert block is not None and pixel is not None
    target = np.empty_like(images)
    works, results = {}, {}
    on_device, secret_on_device = jax.device_put((images, secret))
    copy, compiled = jax.jit(jnp.copy), jax.jit(method.encrypt)
    works["copy by JAX"] = jax_work(lambda: copy(on_device))
    works["copy by numpy"] = host_work(lambda: np.copyto(target, images))
    works["ppvit_jax, JAX"] = jax_work(lambda: compiled(on_device, secret_on_device))
    results["JAX"] = lambda: np.asarray(compiled(on_device, secret_on_device))
    program = method.program_in_blocks(_BLOCK_SIZE, jax.default_backend())
    sorted_on_device = jax.device_put(program.sort(secret, height=size, width=size))
    in_blocks = jax.jit(lambda images, secret: split_blocks(program.encrypt(images, secret), _BLOCK_SIZE))
    works["ppvit_jax, JAX, cut into blocks"] = jax_work(lambda: in_blocks(on_device, sorted_on_device))
    results["JAX, cut into blocks"] = lambda: join_blocks(
        np.asarray(in_blocks(on_device, sorted_on_device)), size, size, _BLOCK_SIZE
    )
    numpy_calls: dict[str, Callable[[], Any]] = {
        "ppvit_jax, numpy": lambda: method.encrypt(images, secret),
        "straightforward, numpy": lambda: encrypt(images, block, pixel, _BLOCK_SIZE),
    }
    for name, call in numpy_calls.items():
        works[name], results[name] = host_work(call), call
    if settings.compare:
        from benchmarks import pytorch

        placed, *index = (pytorch.to_device(array, settings.device) for array in (images, block, pixel))
        block_index, pixel_index = (array.long() for array in index)

        def in_pytorch() -> Any:
            return pytorch.encrypt(placed, block_index, pixel_index, _BLOCK_SIZE)

        works["copy by PyTorch"] = host_work(placed.clone, pytorch.synchronize)
        works["straightforward, PyTorch"] = host_work(in_pytorch, pytorch.synchronize)
        results["PyTorch"] = lambda: in_pytorch().cpu().numpy()
    expected = results["JAX"]()
    for name, call in results.items():
        if not np.array_equal(call(), expected):
            raise UserError(f"{name} encrypts to other bytes than JAX: please report this defect of ppvit_jax")
    return works
