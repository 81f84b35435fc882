"""Validation images: a split by name, or a random fraction of the training images that training then lacks."""

from __future__ import annotations

import dataclasses

import numpy as np

from ppvit_jax.data.source import Dataset, take
from ppvit_jax.errors import UserError, print_note

FIELD = "config.data.validation"


def parse_fraction(text: str) -> float | None:
    """Returns the fraction that `config.data.validation` names; None for the name of a split, and for "".

    Raises:
      UserError: the number is not between 0 and 1.
    """
    try:
        fraction = float(text)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise UserError(
            f"{FIELD} is {text}: give a fraction between 0 and 1, such as 0.1, or the name of a split or folder"
        )
    return fraction


def add_validation(dataset: Dataset, validation: str, seed: int) -> Dataset:
    """Returns a data set with the validation images that `config.data.validation` names.

    Args:
      dataset: the data set; it may have validation images already, from a split by name.
      validation: "" for none, the name of a split or folder, or a fraction.
      seed: seed of the random fraction.

    Raises:
      UserError: the fraction is impossible, or the data set has no split of this name.
    """
    fraction = parse_fraction(validation)
    if fraction is not None:
        return hold_out(dataset, fraction, seed)
    if validation and dataset.validation is None:
        raise UserError(
            f"{FIELD} is {validation!r}, but {dataset.name} has no such split: give a fraction of the training images, "
            "such as 0.1"
        )
    return dataset


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Moves a random fraction of the training images to the validation images.

    The fraction is that of each class, rounded: at least one image and never all, and none if the class has one image
    alone. Copies of an image stay together. Images with several labels are drawn from all images together.

    Args:
      dataset: a data set without validation images.
      fraction: above 0 and below 1.
      seed: seed of the draw.

    Raises:
      UserError: every class has one image alone.
    """
    labels, count = dataset.train.labels, len(dataset.train)
    groups = np.arange(count) if dataset.train_groups is None else dataset.train_groups
    # The first image of each group stands for the group.
    _, originals, group_of = np.unique(groups, return_index=True, return_inverse=True)
    strata = np.zeros(len(originals), int) if labels.ndim == 2 else labels[originals]
    held = np.zeros(len(originals), bool)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, count, len(originals)])))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        chosen = min(max(round(len(members) * fraction), 1), len(members) - 1)
        held[generator.permutation(members)[:chosen]] = True
    in_validation = held[group_of]
    if not in_validation.any():
        raise UserError(f"{FIELD} is {fraction:g}, but every class has a single training image: add images")
    kept = np.flatnonzero(~in_validation)
    print_note(
        f"validation images: {count - len(kept):,}, a random share of {fraction:g} of "
        f"{'the training images' if labels.ndim == 2 else 'each class'} ({FIELD})"
    )
    return dataclasses.replace(
        dataset,
        train=take(dataset.train, kept),
        validation=take(dataset.train, np.flatnonzero(in_validation)),
        train_groups=None if dataset.train_groups is None else dataset.train_groups[kept],
    )


def check_split_names(validation: str, train_split: str, test_split: str) -> None:
    """Makes sure that the validation split is neither the training split nor the test split.

    Raises:
      UserError: it is one of them.
    """
    if validation and validation == train_split:
        raise refuse_overlap(validation, f"the training split {train_split!r}", "a fraction such as 0.1")
    if validation and validation == test_split:
        raise refuse_test(validation)


def refuse_overlap(validation: str, training: str, instead: str) -> UserError:
    """Returns the error about validation images that are training images.

    Args:
      validation: the value of `config.data.validation`.
      training: the training images, as the message names them.
      instead: another value to give.
    """
    return UserError(
        f"{FIELD} is {validation!r}, which overlaps {training}, so that a model would be chosen by images that it was "
        f"trained on: give another split, or {instead}"
    )


def refuse_test(validation: str) -> UserError:
    """Returns the error about validation images that are test images."""
    return UserError(
        f"{FIELD} is {validation!r}, which overlaps the test images, so that the test accuracy of the chosen weights "
        "would be too high: give another split, or a fraction of the training images such as 0.1"
    )
