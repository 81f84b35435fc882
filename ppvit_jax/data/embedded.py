"""The data source "embedded": small data sets that need no download."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from ppvit_jax.data.digits import load_digits
from ppvit_jax.data.hashing import digest_of
from ppvit_jax.data.photographs import load_photographs
from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import ArraySource, Dataset
from ppvit_jax.errors import UserError

# A data set is a file with a function that returns its training images, test images and class names.
DATASETS: dict[str, Callable[[], tuple[ArraySource, ArraySource, tuple[str, ...]]]] = {
    "photographs": load_photographs,
    "digits": load_digits,
}


def load(settings: DataSettings) -> Dataset:
    """Loads an embedded data set, or subsets of its images, which keep their size.

    Raises:
      UserError: there is no such data set, a subset is too large, or a package that holds the images is missing.
    """
    if settings.name not in DATASETS:
        names = ", ".join(map(repr, DATASETS))
        raise UserError(f"there is no embedded data set {settings.name!r}: set config.data.name to one of {names}")
    train, test, class_names = DATASETS[settings.name]()
    train_source, test_source = [
        ArraySource(source.images[chosen], source.labels[chosen])
        for source, chosen in ((train, settings.choose_train(len(train))), (test, settings.choose_test(len(test))))
    ]
    arrays = (train_source.images, train_source.labels, test_source.images, test_source.labels)
    contents = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
    digest = digest_of([list(class_names), *contents])
    return Dataset(settings.name, train_source, test_source, class_names, digest=digest)
