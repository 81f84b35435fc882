"""How much memory a process has taken."""

import resource
import sys


def peak_memory() -> str:
    """The most memory that this process has held at a time, such as "peak memory 350 MiB"."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:,.0f} MiB"
