"""The experiment under the name that notebooks import: see `ppvit_jax.training.experiment`."""

from ppvit_jax.training.experiment import run

__all__ = ["run"]
