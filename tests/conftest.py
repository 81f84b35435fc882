"""Settings of every test process, and what the summary tells of tests that are too slow or too large."""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

# The tests are about arithmetic and files, not about a particular accelerator.
os.environ["JAX_PLATFORMS"] = "cpu"
# Many tests, and the processes that they start, compile the same programs: the first one to do so serves the others.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores. Threads of theirs that wait for each other would keep them busy.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import jax
import pytest

SLOW_SECONDS = 4
LARGE_BYTES = 4e9
# A process that holds more than this at the end of a file of tests drops its compiled programs.
_KEPT_BYTES = 1.5e9
# getrusage counts in KiB on Linux and in bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_seconds = pytest.StashKey[float]()
_peaks: dict[str, int] = {}


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of those that it has started and waited for."""
    return sum(os.times()[:4])


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _resident_bytes() -> int:
    """Returns the memory that this process holds now, or its peak where the system has no /proc."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * resource.getpagesize() if path.exists() else _peak_bytes()


@pytest.fixture(scope="module", autouse=True)
def _drop_memory():
    """Gives back what a file of tests leaves behind: models in cycles, and compiled programs."""
    yield
    if _resident_bytes() > _KEPT_BYTES:
        gc.collect()
        jax.clear_caches()
        if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
            trim(0)


def pytest_collection_modifyitems(items):
    """Puts slow tests first, files in reverse order, so that no worker is left with a long test at the end."""
    files = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (0, -files[item.path]) if "slow" in item.keywords else (1, files[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.stash[_seconds] = _cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" and "slow" not in item.keywords:
        report.user_properties.append(("cpu_seconds", _cpu_seconds() - item.stash[_seconds]))
    return report


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_bytes"] = _peak_bytes()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Receives what a worker of xdist counted."""
    if "peak_bytes" in (output := getattr(node, "workeroutput", None) or {}):
        _peaks[node.gateway.id] = output["peak_bytes"]


def pytest_terminal_summary(terminalreporter):
    """Warns, for machines differ: no test fails for its time or its memory."""
    peaks = _peaks or {"this process": _peak_bytes()}
    texts = [f"{name} {peak / 1e9:.1f} GB" for name, peak in sorted(peaks.items())]
    terminalreporter.write_line(f"peak memory: {', '.join(texts)}")
    if max(peaks.values()) > LARGE_BYTES:
        terminalreporter.write_line(
            f"warning: a test process took over {LARGE_BYTES / 1e9:.0f} GB of memory", yellow=True
        )
    for report in terminalreporter.getreports("passed"):
        seconds = dict(report.user_properties).get("cpu_seconds", 0)
        if seconds > SLOW_SECONDS:
            terminalreporter.write_line(
                f"warning: {report.nodeid} took {seconds:.1f} s of CPU time: mark it slow", yellow=True
            )
