"""Benchmarks measure programs as users run them."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _as_released(as_released):
    pass
