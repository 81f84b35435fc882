"""Properties that the loader promises, for sources in memory and sources decoded on access."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.data import loader
from ppvit_jax.data.loader import BatchOptions
from ppvit_jax.data.source import ArraySource, StreamSource
from ppvit_jax.errors import UserError


def numbered(count: int) -> ArraySource:
    """Builds a source whose image i has i in its bytes and the label 3 i."""
    numbers = np.arange(1, count + 1)
    images = np.zeros((count, 2, 1, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 1, 0, 2] = numbers % 256, numbers // 256
    return ArraySource(images, (3 * numbers).astype(np.int32))


def streamed(source: ArraySource) -> StreamSource:
    return StreamSource(source.labels, source.image_shape, source.fetch)


def numbers(batch) -> np.ndarray:
    image = batch["image"].astype(int)
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
    result = image[:, 0, 0, 0] + 256 * image[:, 1, 0, 2]
    np.testing.assert_array_equal(batch["label"], 3 * result)
    return result


def train(source, start, stop, batch_size, seed=0, process_count=1) -> list[np.ndarray]:
    """Returns the numbers in each global batch, joined from the processes' parts."""
    parts = [
        [
            numbers(batch)
            for batch in loader.train_batches(
                source, BatchOptions(batch_size, index, process_count), seed=seed, start_step=start, stop_step=stop
            )
        ]
        for index in range(process_count)
    ]
    return [np.concatenate(step) for step in zip(*parts, strict=True)]


@st.composite
def sizes(draw):
    process_count = draw(st.integers(1, 4))
    batch_size = process_count * draw(st.integers(1, 6))
    return draw(st.integers(batch_size, 70)), batch_size, process_count


@settings(deadline=None, max_examples=50)
@given(sizes(), st.integers(0, 2**32), st.integers(1, 3))
def test_each_epoch_is_a_new_order_without_repeats(size, seed, epochs):
    count, batch_size, _ = size
    per_epoch = count // batch_size
    batches = train(numbered(count), 0, epochs * per_epoch, batch_size, seed)
    assert len(batches) == epochs * per_epoch == epochs * loader.steps_per_epoch(count, batch_size)
    orders = [np.concatenate(batches[e * per_epoch : (e + 1) * per_epoch]) for e in range(epochs)]
    for order in orders:
        assert len(set(order)) == len(order) == per_epoch * batch_size
        assert order.min() >= 1 and order.max() <= count
    if per_epoch * batch_size > 12:
        assert len({tuple(order) for order in orders}) == epochs


@settings(deadline=None, max_examples=50)
@given(sizes(), st.data())
def test_processes_share_the_batches_of_one(size, data):
    count, batch_size, process_count = size
    start = data.draw(st.integers(0, 20))
    alone = train(numbered(count), start, start + 5, batch_size)
    together = train(numbered(count), start, start + 5, batch_size, process_count=process_count)
    assert len(alone) == 5
    np.testing.assert_array_equal(alone, together)


@settings(deadline=None, max_examples=50)
@given(sizes(), st.integers(0, 15))
def test_a_restart_goes_on_with_the_same_batches(size, start):
    count, batch_size, _ = size
    whole = train(numbered(count), 0, 18, batch_size)
    np.testing.assert_array_equal(whole[start:], train(numbered(count), start, 18, batch_size))


def test_every_example_is_seen_over_epochs():
    """The dropped examples differ from epoch to epoch, so every example is used."""
    assert set(np.concatenate(train(numbered(10), 0, 20, 7))) == set(range(1, 11))


def test_seeds_differ():
    assert not np.array_equal(train(numbered(50), 0, 1, 50, seed=0), train(numbered(50), 0, 1, 50, seed=1))


@settings(deadline=None, max_examples=8)
@given(sizes(), st.integers(0, 9))
def test_decoding_on_access_gives_the_same_batches(size, start):
    count, batch_size, process_count = size
    source = numbered(count)
    expected = train(source, start, start + 6, batch_size)
    result = train(streamed(source), start, start + 6, batch_size, process_count=process_count)
    np.testing.assert_array_equal(expected, result)


@pytest.mark.parametrize("wrap", [lambda source: source, streamed])
@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 40), local=st.integers(1, 8), process_count=st.integers(1, 4))
def test_test_batches_hold_every_example_once(wrap, count, local, process_count):
    parts = [
        list(loader.test_batches(wrap(numbered(count)), BatchOptions(local * process_count, index, process_count)))
        for index in range(process_count)
    ]
    assert {len(part) for part in parts} == {-(-count // (local * process_count))}
    seen = []
    for step in zip(*parts, strict=True):
        for batch in step:
            assert batch["image"].shape == (local, 2, 1, 3)
            assert batch["mask"].dtype == np.float32 and batch["mask"].shape == (local,)
            found = numbers(batch)
            # Padding is zeros, and no example has the number 0.
            np.testing.assert_array_equal(found != 0, batch["mask"] == 1)
            np.testing.assert_array_equal(batch["mask"] == 0, found == 0)
            seen += list(found[batch["mask"] == 1])
    assert seen == list(range(1, count + 1))


@pytest.mark.parametrize("wrap", [lambda source: source, streamed])
@settings(deadline=None, max_examples=15)
@given(size=sizes(), test_count=st.integers(1, 40), start=st.integers(0, 9))
def test_every_image_has_a_number_of_its_own_whatever_the_number_of_processes(wrap, size, test_count, start):
    count, batch_size, process_count = size
    train_numbers, test_numbers = set(), set()
    for index in range(process_count):
        options = BatchOptions(batch_size, index, process_count)
        for batch in loader.train_batches(
            wrap(numbered(count)), options, seed=0, start_step=start, stop_step=start + 4
        ):
            assert batch["number"].dtype == np.uint32
            # Image i contains i + 1.
            np.testing.assert_array_equal(batch["number"], numbers(batch) - 1)
            train_numbers |= set(batch["number"].tolist())
        for batch in loader.test_batches(wrap(numbered(test_count)), options):
            assert batch["number"].dtype == np.uint32 and batch["number"].shape == batch["mask"].shape
            real = batch["mask"] == 1
            np.testing.assert_array_equal(batch["number"][real], 2**31 + numbers(batch)[real] - 1)
            test_numbers |= set(batch["number"][real].tolist())
    assert test_numbers == set(range(2**31, 2**31 + test_count))
    assert train_numbers <= set(range(count)) and not train_numbers & test_numbers


@pytest.mark.parametrize("wrap", [lambda source: source, streamed])
def test_batches_of_indices_are_those_of_images_without_reading_any(wrap, monkeypatch):
    """Padding has index 0; in a batch of images it is zeros."""
    source = wrap(numbered(10))
    with_images = [
        *loader.train_batches(source, BatchOptions(4), seed=1, start_step=0, stop_step=5),
        *loader.test_batches(source, BatchOptions(4)),
    ]
    options = BatchOptions(4, index_only=True)
    if isinstance(source, StreamSource):
        monkeypatch.setattr(StreamSource, "fetch", lambda *_: pytest.fail("an image is read"))
    with_indices = [
        *loader.train_batches(source, options, seed=1, start_step=0, stop_step=5),
        *loader.test_batches(source, options),
    ]
    assert len(with_images) == len(with_indices) == 5 + 3
    for images, indices in zip(with_images, with_indices, strict=True):
        assert images.keys() - {"image"} == indices.keys() - {"index"} and indices["index"].dtype == np.int32
        for name in indices.keys() - {"index"}:
            np.testing.assert_array_equal(indices[name], images[name])
        numbers_of_images = numbers(images)
        np.testing.assert_array_equal(indices["index"], np.maximum(numbers_of_images - 1, 0))


def test_changing_a_batch_leaves_the_source_alone():
    source = numbered(8)
    for batch in [*loader.test_batches(source, BatchOptions(8))]:
        batch["image"][:] = 0
        batch["label"][:] = 0
    np.testing.assert_array_equal(source.images, numbered(8).images)
    np.testing.assert_array_equal(source.labels, numbered(8).labels)


def test_the_readers_error_arrives_as_itself_and_in_its_place():
    source = numbered(12)

    def read(index: int) -> np.ndarray:
        if index == 7:
            raise UserError("cannot read 7.png")
        return source.fetch(index)

    batches = loader.test_batches(StreamSource(source.labels, source.image_shape, read), BatchOptions(3))
    assert list(numbers(next(batches))) == [1, 2, 3]
    assert list(numbers(next(batches))) == [4, 5, 6]
    with pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value) == "cannot read 7.png"


def test_reading_runs_ahead_but_not_without_bound_and_ends_with_the_iterator():
    source, reads = numbered(3000), []

    def read(index: int) -> np.ndarray:
        reads.append(index)
        time.sleep(0.005)
        return source.fetch(index)

    stream = StreamSource(source.labels, source.image_shape, read)
    batches = loader.train_batches(stream, BatchOptions(40), seed=0, start_step=0, stop_step=10**9)
    next(batches)
    time.sleep(0.01)
    assert 40 < len(reads) <= 40 + 2 * 40 + 1
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    reads.clear()
    time.sleep(0.1)
    # At most the images that were being read.
    assert len(reads) <= loader._MAX_THREADS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 11}, "10 training examples do not fill one batch of 11"),
        ({"batch_size": 0}, "batch of 0"),
        ({"batch_size": 5, "process_count": 2}, "batch of 5 cannot be shared by 2"),
        ({"process_index": 1}, "process 1 of 1 does not exist"),
        ({"seed": -1}, "seed is -1"),
        ({"start_step": -1}, "first step -1"),
    ],
)
def test_wrong_sizes_are_refused_at_once(change, message):
    fields = ("batch_size", "process_index", "process_count")
    arguments = {"seed": 0, "batch_size": 5, "start_step": 0, "stop_step": 1} | change
    with pytest.raises(UserError, match=message):
        options = BatchOptions(**{name: arguments.pop(name) for name in fields if name in arguments})
        loader.train_batches(numbered(10), options, **arguments)


def test_wrong_test_sizes_are_refused_at_once():
    with pytest.raises(UserError, match="batch of 3 cannot be shared by 2"):
        loader.test_batches(numbered(4), BatchOptions(3, process_count=2))
