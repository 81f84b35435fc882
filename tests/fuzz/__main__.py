"""Command line of the fuzzer: python -m tests.fuzz --count 10000 --seed 0."""

import argparse
import collections
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many cases compile the same small programs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".cache" / "jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from fuzz.harness import fuzz


def main() -> int:
    """Prints every finding, and at the end the number of cases; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Runs commands on damaged files.")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="number of cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all cases (default: %(default)s)")
    arguments = parser.parse_args()
    faults: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        numbers = range(arguments.first, arguments.first + arguments.count)
        for number, finding in zip(numbers, fuzz(numbers, arguments.seed, Path(folder) / "fuzz"), strict=True):
            if finding is not None:
                faults[finding.fault] += 1
                print(finding, flush=True)
            if number % 500 == 499:
                print(f"{number + 1 - arguments.first} cases", file=sys.stderr, flush=True)
    print(f"{arguments.count} cases, {faults.total()} findings {dict(faults)}")
    return min(faults.total(), 1)


if __name__ == "__main__":
    sys.exit(main())
