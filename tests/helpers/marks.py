"""Parameters of tests, most of which are slow."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mark_slow(cases: Iterable[Any], *, but: Collection[Any]) -> list[Any]:
    """Returns the cases of a parametrized test, marked slow except for those in `but`."""
    return [
        case if case in but else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
