import os

import pytest

# The tests are about arithmetic and files, not about a particular accelerator.
os.environ["JAX_PLATFORMS"] = "cpu"


@pytest.fixture(autouse=True)
def _float32_again():
    """A run in float64 switches the whole process, and the tests that follow would meet it."""
    yield
    import jax

    jax.config.update("jax_enable_x64", False)
