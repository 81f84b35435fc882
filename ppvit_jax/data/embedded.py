"""The data source "embedded": scikit-learn's digits, which need no download."""

from __future__ import annotations

import numpy as np

from ppvit_jax.data.settings import DataSettings
from ppvit_jax.data.source import ArraySource, Dataset
from ppvit_jax.errors import UserError, require

NAME = "digits"
_TEST_COUNT = 360


def load(settings: DataSettings) -> Dataset:
    """Loads the digits, or subsets of them. They keep their size, 8x8.

    Raises:
      UserError: another name, a wrong subset, or scikit-learn is not installed.
    """
    if settings.name != NAME:
        raise UserError(f"there is no embedded data set {settings.name!r}: the only one is {NAME!r}")
    train, test, class_names = load_digits()
    train_source, test_source = [
        ArraySource(source.images[chosen], source.labels[chosen])
        for source, chosen in ((train, settings.choose_train(len(train))), (test, settings.choose_test(len(test))))
    ]
    return Dataset(NAME, train_source, test_source, class_names)


def load_digits() -> tuple[ArraySource, ArraySource, tuple[str, ...]]:
    """Loads the 1,797 handwritten digits as uint8 8x8x3 images, their values 0..16 scaled to 0..255.

    The split, 1,437 to train and 360 to test, is stratified and always the same: it does not depend on the
    configuration's seed, so that runs of several seeds share a test set.

    Returns:
      train and test (images uint8 [n, 8, 8, 3], labels int32 [n]), and the ten class names.

    Raises:
      UserError: scikit-learn is not installed.
    """
    require("the data set of digits", "samples", "sklearn")
    from sklearn import datasets, model_selection

    values, labels = datasets.load_digits(return_X_y=True)
    gray = np.rint(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    images, labels = np.repeat(gray, 3, axis=-1), labels.astype(np.int32)
    train, test = model_selection.train_test_split(
        np.arange(len(labels)), test_size=_TEST_COUNT, stratify=labels, random_state=0
    )
    names = tuple(str(digit) for digit in range(10))
    return ArraySource(images[train], labels[train]), ArraySource(images[test], labels[test]), names
