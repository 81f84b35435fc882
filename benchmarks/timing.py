"""Times several programs in turns, so that all of them meet the same states of the machine."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypedDict

import jax
import numpy as np

from ppvit_jax.data.progress import Progress

# Runs its work as many times as the argument says, and returns when the last result is there.
Work: TypeAlias = Callable[[int], None]
_SHORTEST_TURN = 0.1
_FEWEST_TURNS = 3


class Summary(TypedDict):
    """Time of one work over all turns, and its ratio to that of a reference.

    Attributes:
      seconds: the median.
      quartiles, range: those of the seconds.
      ratio: ratio of the medians; above 1, the work is slower than the reference.
      ratio_quartiles: quartiles of the ratios within each turn.
      turns: the seconds of each turn.
    """

    seconds: float
    quartiles: tuple[float, float]
    range: tuple[float, float]
    ratio: float
    ratio_quartiles: tuple[float, float]
    turns: list[float]


def take_turns(
    works: Mapping[str, Work], repeats: int, title: str, limit_seconds: float = math.inf
) -> dict[str, list[float]]:
    """Times works in turns, after a warm-up, in an order that rotates by one place each turn.

    Short work is repeated within a turn until it takes 0.1 s, so that neither the clock nor, on an accelerator, the
    wait at its end counts.

    Args:
      works: the works by name.
      repeats: the number of turns.
      title: words for the progress line.
      limit_seconds: time after which no further turn begins, once there are three.

    Returns:
      The seconds of one run of each work in each turn, by name.
    """
    counts = {}
    for name, work in works.items():
        work(1)
        start = time.perf_counter()
        work(1)
        counts[name] = max(1, round(_SHORTEST_TURN / max(time.perf_counter() - start, 1e-7)))
    names = list(works)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    progress = Progress(title, repeats * len(names), "turns")
    end = time.perf_counter() + limit_seconds
    for turn in range(repeats):
        if turn >= _FEWEST_TURNS and time.perf_counter() >= end:
            break
        first = turn % len(names)
        for place, name in enumerate(names[first:] + names[:first]):
            start = time.perf_counter()
            works[name](counts[name])
            seconds[name].append((time.perf_counter() - start) / counts[name])
            progress.update(turn * len(names) + place + 1)
    progress.close()
    return seconds


def jax_work(call: Callable[[], object]) -> Work:
    """Returns work that calls a compiled function of JAX, and waits for its result."""

    def run(count: int) -> None:
        result = None
        for _ in range(count):
            result = call()
            # A processor would compute several calls at a time; an accelerator computes one after another.
            if jax.default_backend() == "cpu":
                jax.block_until_ready(result)
        jax.block_until_ready(result)

    return run


def host_work(call: Callable[[], object], wait: Callable[[], None] = lambda: None) -> Work:
    """Returns work that calls a function, and waits at the end."""

    def run(count: int) -> None:
        for _ in range(count):
            call()
        wait()

    return run


def summarize(seconds: Mapping[str, list[float]], reference: str) -> dict[str, Summary]:
    """Returns the median and spread of each work, and its ratio to another.

    Args:
      seconds: the result of `take_turns`.
      reference: the name of the work that the others are compared with.
    """
    return {
        name: Summary(
            seconds=statistics.median(values),
            quartiles=_quartiles(values),
            range=(min(values), max(values)),
            ratio=statistics.median(values) / statistics.median(seconds[reference]),
            ratio_quartiles=_quartiles(np.array(values) / np.array(seconds[reference])),
            turns=list(values),
        )
        for name, values in seconds.items()
    }


def _quartiles(values: list[float] | np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [25, 75])
    return float(low), float(high)
