"""Work in threads, with results in order."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import TypeVar

T = TypeVar("T")


def run_in_threads(work: Callable[[int], T], numbers: Iterable[int]) -> Generator[tuple[int, T]]:
    """Yields (number, work(number)) in order; threads work a little ahead, in constant memory.

    Pillow's decoder and encoder take most of the time, and let other threads run.
    """
    threads = os.cpu_count() or 1
    waiting: collections.deque[tuple[int, futures.Future[T]]] = collections.deque()
    executor = futures.ThreadPoolExecutor(threads)
    try:
        for number in numbers:
            waiting.append((number, executor.submit(work, number)))
            if len(waiting) >= 4 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        executor.shutdown(cancel_futures=True)
