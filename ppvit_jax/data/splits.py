"""Usual spellings of the names of splits: train, Training, test_set, val, validation and the like."""

from __future__ import annotations

import re

TRAIN, TEST, VALIDATION = "train", "test", "val"
_SPELLINGS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
}
_SUFFIX = re.compile(r"[ _-]*(?:set|data|images|split)$")


def split_role(name: str) -> str:
    """Returns TRAIN, TEST or VALIDATION for a usual spelling of a split's name in any case; "" for other names."""
    plain = name.casefold()
    return _SPELLINGS.get(plain) or _SPELLINGS.get(_SUFFIX.sub("", plain), "")
