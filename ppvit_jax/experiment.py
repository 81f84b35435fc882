"""Short import path for the all-in-one experiment in `ppvit_jax.training.experiment`."""

from ppvit_jax.training.experiment import run

__all__ = ["run"]
