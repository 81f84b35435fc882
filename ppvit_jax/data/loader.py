"""Batches of a source. They depend only on the step, so resuming needs only the step number."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ppvit_jax.data.balance import balanced_order
from ppvit_jax.data.source import ArraySource, Source
from ppvit_jax.errors import UserError

_PADDING = -1
# First numbers of test and validation images, so that no two images have the same number.
FIRST_TEST_NUMBER, FIRST_VALIDATION_NUMBER = 2**31, 3 * 2**30
_MAX_THREADS = 16


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """Size and content of the batches that a process reads.

    Attributes:
      batch_size: examples in a global batch, a multiple of `process_count`.
      process_index: index of this process, from 0.
      process_count: number of processes that share a batch.
      index_only: True puts each image's index in its source into the batch, instead of the image.
      sampling: one of `ppvit_jax.data.balance.SAMPLINGS`. "uniform" draws each training image once in an epoch, and
        "balanced" each class equally often.
      class_weights: the weight of each class, which a training batch has for each of its images; () for none.

    Raises:
      UserError: the sizes do not fit each other.
    """

    batch_size: int
    process_index: int = 0
    process_count: int = 1
    index_only: bool = False
    sampling: str = "uniform"
    class_weights: Sequence[float] | np.ndarray = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise UserError(
                f"a batch of {self.batch_size} cannot be shared by {self.process_count} process(es): "
                f"give a positive multiple of {self.process_count}"
            )
        if not 0 <= self.process_index < self.process_count:
            raise UserError(f"process {self.process_index} of {self.process_count} does not exist: count from 0")

    @property
    def local_size(self) -> int:
        """Number of examples in a process's share of a batch."""
        return self.batch_size // self.process_count


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns the number of full batches in `count` examples; an incomplete last batch is dropped.

    Raises:
      UserError: there is no full batch, or the batch size is not positive.
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}: give at least 1")
    if count < batch_size:
        raise UserError(f"{count} training examples do not fill one batch of {batch_size}: give a smaller batch size")
    return count // batch_size


def epoch_permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the examples in an epoch: int64 [count]. It depends only on the arguments."""
    return _epoch_generator(seed, epoch).permutation(count)


def _epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))


def train_batches(
    source: Source, options: BatchOptions, *, seed: int, start_step: int, stop_step: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of steps start_step .. stop_step - 1.

    Each epoch visits the examples in a new order, drawn from (seed, epoch), and has as many steps as there are full
    batches of examples. A
    process takes its contiguous part of each global batch, so the global batch does not depend on the number of
    processes.

    Args:
      source: the training images.
      options: size and content of the batches.
      seed: seed of the order.
      start_step: the first step, counted from 0 over all epochs.
      stop_step: the step to stop before.

    Yields:
      {"image": uint8 [b, height, width, 3], "label": int32 [b], "number": uint32 [b]}, with b = options.local_size.
      The number identifies an image among all training and test images. With `class_weights` there is also "weight":
      float32 [b]. With `index_only`, the batch is
      {"index": int32 [b], "label": ..., "number": ...}.

    Raises:
      UserError: the sizes do not fit each other (raised at once), or an image cannot be read (raised while iterating).
    """
    local = options.local_size
    per_epoch = steps_per_epoch(len(source), options.batch_size)
    if seed < 0 or start_step < 0:
        raise UserError(f"the seed is {seed} and the first step {start_step}: give numbers from 0 on")

    # Threads read across the end of an epoch, so two orders are in use at a time.
    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        if options.sampling == "balanced":
            return balanced_order(source.labels, per_epoch * options.batch_size, _epoch_generator(seed, epoch))
        return epoch_permutation(len(source), seed, epoch)

    weights = np.asarray(options.class_weights, np.float32)

    def indices(step: int) -> np.ndarray:
        epoch, position = divmod(step, per_epoch)
        start = position * options.batch_size + options.process_index * local
        return order(epoch)[start : start + local]

    def extra(chosen: np.ndarray) -> dict[str, np.ndarray]:
        numbers = {"number": chosen.astype(np.uint32)}
        return numbers | {"weight": weights[source.labels[chosen]]} if len(weights) else numbers

    return _gather_with(extra, source, options, indices, range(start_step, stop_step))


def test_batches(
    source: Source, options: BatchOptions, first_number: int = FIRST_TEST_NUMBER
) -> Iterator[dict[str, np.ndarray]]:
    """Yields every example once, in order; the last batch is padded with zeros.

    Every process yields the same number of batches, ceil(n / batch_size).

    Args:
      source: the test images.
      options: size and content of the batches.

    Yields:
      {"image": uint8 [b, height, width, 3], "label": int32 [b], "number": uint32 [b], "mask": float32 [b]}, with
      b = options.local_size. The mask is 1 for an example and 0 for padding. With `index_only`, "index" replaces
      "image", as in `train_batches`.

    Raises:
      UserError: an image cannot be read (raised while iterating).
    """
    count, batch_size, local = len(source), options.batch_size, options.local_size

    def indices(step: int) -> np.ndarray:
        positions = np.arange(local) + step * batch_size + options.process_index * local
        return np.where(positions < count, positions, _PADDING)

    def extra(chosen: np.ndarray) -> dict[str, np.ndarray]:
        numbers = (chosen + first_number).astype(np.uint32)
        return {"number": numbers, "mask": (chosen != _PADDING).astype(np.float32)}

    return _gather_with(extra, source, options, indices, range(-(-count // batch_size)))


# Otherwise pytest would collect this function in every module that imports it.
test_batches.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def _gather_with(
    extra: Callable[[np.ndarray], dict[str, np.ndarray]],
    source: Source,
    options: BatchOptions,
    indices: Callable[[int], np.ndarray],
    steps: range,
) -> Iterator[dict[str, np.ndarray]]:
    for step, batch in zip(steps, _gather(source, options, indices, steps), strict=True):
        yield batch | extra(indices(step))


def _gather(
    source: Source, options: BatchOptions, indices: Callable[[int], np.ndarray], steps: range
) -> Iterator[dict[str, np.ndarray]]:
    """Yields {"image" or "index", "label"} for each step's indices, with zeros for _PADDING."""
    local = options.local_size
    images = source.images if isinstance(source, ArraySource) and not options.index_only else None
    if options.index_only or images is not None:
        for step in steps:
            chosen = indices(step)
            examples = {"index": chosen.astype(np.int32)} if images is None else {"image": images[chosen]}
            batch = {**examples, "label": source.labels[chosen]}
            for values in batch.values():
                values[chosen == _PADDING] = 0
            yield batch
        return

    import grain  # imported here, because it takes a second and data in memory does not need it

    threads = min(_MAX_THREADS, 2 * (os.cpu_count() or 1))
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * local, 2 * threads))
    examples = grain.MapDataset.source(_Examples(source, indices, steps, local))
    iterator = iter(examples.to_iter_dataset(reading).batch(local))
    try:
        yield from iterator
    finally:
        # The reading threads of an abandoned iterator would otherwise continue for a while.
        iterator.close()


class _Examples:
    """Sequence of the examples of all steps, for Grain's reading threads."""

    def __init__(self, source: Source, indices: Callable[[int], np.ndarray], steps: range, local: int):
        self._source, self._indices, self._steps, self._local = source, indices, steps, local

    def __len__(self) -> int:
        return len(self._steps) * self._local

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        step, offset = divmod(int(index), self._local)
        chosen = int(self._indices(self._steps[step])[offset])
        if chosen == _PADDING:
            return {
                "image": np.zeros(self._source.image_shape, np.uint8),
                "label": np.zeros_like(self._source.labels[0]),
            }
        return {"image": self._source.fetch(chosen), "label": self._source.labels[chosen]}
