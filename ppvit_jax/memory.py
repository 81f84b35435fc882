"""How much memory a process has taken."""

import resource
import sys


def peak_memory() -> str:
    """The most memory that this process has held at a time, such as "peak memory 0.35 GiB"."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
