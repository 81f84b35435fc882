"""The command `python -m benchmarks quick`: measures the speed and the promises of the program in five minutes."""

from benchmarks.quick.command import add_arguments, run

__all__ = ["add_arguments", "run"]
