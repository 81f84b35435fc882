"""Announcements of a sequence of runs."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path


def announce_runs(label: str, workdirs: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """Yields the name of each run, after printing its number and the estimated time left for all runs.

    Args:
      label: word for a run, such as "arm".
      workdirs: name and workdir of each run. Runs that are already complete do not count in the estimate.
    """
    listed = list(workdirs)
    started, trained = time.monotonic(), 0
    for number, (name, workdir) in enumerate(listed, start=1):
        left = ""
        if trained:
            seconds = (time.monotonic() - started) / trained * (len(listed) - number + 1)
            estimate = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
            left = f", about {estimate} left for all"
        print(f"{label} {number} of {len(listed)}: {name}{left}", flush=True)
        trained += not (workdir / "result.json").exists()
        yield name
