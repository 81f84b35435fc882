"""Rows of the paper's Tables II and III: encryption, model, published accuracy and training protocol.

To add a row, add an entry to `TABLES`: `configs/tableN.py:NAME` loads it, and `ppvit reproduce tableN` trains it. In
the labels, EtC is encryption-then-compression, PE is pixel-based encryption (in Table II with a key for every image),
and LE and ELE are learnable and extended learnable encryption.
"""

import dataclasses
from collections.abc import Callable

from ppvit_jax.config import Config
from ppvit_jax.errors import UserError
from ppvit_jax.experiments.protocols import (
    adapted_vit_b16,
    adaptive_convmixer,
    convmixer,
    large_convmixer,
    resnet,
    shake_drop,
    vit_b16,
)

_PROPOSED = "Block scrambling + pixel shuffling, adapted (proposed)"
_NEGATIVE_POSITIVE = "Block scrambling + pixel shuffling + negative-positive transform"
_PIXEL_POSITIONS = "Block scrambling + pixel position shuffling"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    name: name on the command line.
    encryption, model: labels in the table.
    published: published accuracy in percent, by data set.
    protocol: function that returns the row's configuration for an encryption.
    spec: the encryption that is passed to `protocol`.
    inferred: choices that the method's source does not state, which make the row a reconstruction; "" if none matters.
    """

    name: str
    encryption: str
    model: str
    published: dict[str, float]
    protocol: Callable[[str], Config]
    spec: str
    inferred: str = ""


def _cifar(*accuracies: float) -> dict[str, float]:
    return dict(zip(("cifar10", "cifar100"), accuracies, strict=False))


def _imagenette(accuracy: float) -> dict[str, float]:
    return {"imagenette": accuracy}


_TABLE_2 = (
    Row("proposed_vit", _PROPOSED, "ViT-B/16", _cifar(98.98, 92.58), adapted_vit_b16, "bs+ps"),
    Row("le_shakedrop", "LE", "ShakeDrop + LE-AdaptNet", _cifar(94.49, 75.48), shake_drop, "le"),
    Row("ele_shakedrop", "ELE", "ShakeDrop + ELE-AdaptNet", _cifar(83.06, 62.97), shake_drop, "ele"),
    Row("pe_resnet", "PE", "ResNet-18", _cifar(92.03), resnet, "pe:keys=per_image", "training"),
    Row(
        "bs_ps_np_convmixer",
        _NEGATIVE_POSITIVE,
        "ConvMixer-512/16 + adaptive matrix",
        _cifar(92.65),
        adaptive_convmixer,
        "bs+ps+np",
        "model, encryption's keys and training",
    ),
    Row(
        "color_neuracrypt_vit", "Color-NeuraCrypt", "ViT-B/16", _cifar(96.20), vit_b16, "color-neuracrypt", "encryption"
    ),
    Row("bs_pps_vit", _PIXEL_POSITIONS, "ViT-B/16", _cifar(96.64, 84.42), vit_b16, "bs+pps", "encryption's sub-blocks"),
    Row("etc_vit", "EtC", "ViT-B/16", _cifar(87.89), vit_b16, "etc", "training"),
    Row(
        "etc_convmixer",
        "EtC",
        "ConvMixer-256/8",
        _cifar(92.72),
        convmixer,
        "etc",
        "block size and parts of the training",
    ),
    Row("plain_shakedrop", "Plain", "ShakeDrop", _cifar(96.70, 83.59), shake_drop, "none"),
    Row("plain_resnet", "Plain", "ResNet-18", _cifar(95.53), resnet, "none", "training"),
    Row("plain_vit", "Plain", "ViT-B/16", _cifar(99.00, 92.60), vit_b16, "none"),
    Row("plain_convmixer", "Plain", "ConvMixer-256/8", _cifar(96.07), convmixer, "none", "parts of the training"),
)
_SIZES = "patch, kernel and training"
_TABLE_3 = (
    Row("proposed_vit", _PROPOSED, "ViT-B/16", _imagenette(99.2), adapted_vit_b16, "bs+ps"),
    Row("etc_vit", "EtC", "ViT-B/16", _imagenette(90.62), vit_b16, "etc", "training"),
    Row("etc_convmixer", "EtC", "ConvMixer-384/8", _imagenette(90.11), large_convmixer, "etc", _SIZES),
    Row("plain_vit", "Plain", "ViT-B/16", _imagenette(99.2), vit_b16, "none"),
    Row("plain_convmixer", "Plain", "ConvMixer-384/8", _imagenette(96.10), large_convmixer, "none", _SIZES),
)
TABLES: dict[int, tuple[Row, ...]] = {2: _TABLE_2, 3: _TABLE_3}


def make_config(number: int, name: str) -> Config:
    """Returns the configuration of a row; the table's configuration file sets the data set.

    Args:
      number: number of the table, 2 or 3.
      name: name of the row.

    Raises:
      UserError: the name is empty, or the table has no such row.
    """
    rows = {row.name: row for row in TABLES[number]}
    if not name:
        raise UserError(
            f"--config names no row: name a row, as in configs/table{number}.py:etc_vit, from {', '.join(rows)}"
        )
    if name not in rows:
        raise UserError(f"table {number} has no row {name!r}: use one of {', '.join(rows)}")
    return rows[name].protocol(rows[name].spec)
