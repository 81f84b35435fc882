"""The command `python -m benchmarks aot`: plans a training step for GPUs or TPUs that this machine does not have."""

from benchmarks.aot.command import add_arguments, run

__all__ = ["add_arguments", "run"]
