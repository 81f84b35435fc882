"""Handwritten digits: scikit-learn's copy of a test set of NIST forms, 8x8 pixels, gray."""

from __future__ import annotations

import numpy as np

from ppvit_jax.data.source import ArraySource
from ppvit_jax.errors import require

_TEST_COUNT = 360


def load_digits() -> tuple[ArraySource, ArraySource, tuple[str, ...]]:
    """Loads the 1,797 handwritten digits as uint8 8x8x3 images, their values 0..16 scaled to 0..255.

    The split, 1,437 to train and 360 to test, is stratified and always the same: it does not depend on the
    configuration's seed, so that runs of several seeds share a test set.

    Returns:
      train and test (images uint8 [n, 8, 8, 3], labels int32 [n]), and the ten class names.

    Raises:
      UserError: scikit-learn is not installed.
    """
    require("the data set of digits", "tables", "sklearn")
    from sklearn import datasets, model_selection

    values, labels = datasets.load_digits(return_X_y=True)
    gray = np.rint(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    images, labels = np.repeat(gray, 3, axis=-1), labels.astype(np.int32)
    train, test = model_selection.train_test_split(
        np.arange(len(labels)), test_size=_TEST_COUNT, stratify=labels, random_state=0
    )
    names = tuple(str(digit) for digit in range(10))
    return ArraySource(images[train], labels[train]), ArraySource(images[test], labels[test]), names
