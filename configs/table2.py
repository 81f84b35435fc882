"""CIFAR-10 by every method of the paper's Table II, one row at a time: an encryption with its model and protocol.

Command:  python -m ppvit_jax.main --config=configs/table2.py:etc_vit --workdir=runs/table2/etc_vit
Table:    python -m ppvit_jax reproduce table2 --output=runs/table2        (--rows=etc_vit,plain_vit for a part)
Rows:     ppvit_jax/experiments/table_rows.py has their names, published accuracies and what is inferred;
          ppvit_jax/experiments/protocols.py has their protocols.
Weights:  the rows of ViT-B/16 start from ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get it).
Expected: the row's published accuracy, such as 98.98% for proposed_vit (plain_vit: 99.00%). Add
          --config.data.name=cifar100 for the paper's other column. Not run by us to the end: it needs an accelerator;
          docs/tables has a scaled-down run.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import table_rows


def get_config(row: str = "") -> Config:
    """Returns the protocol of a row, which --config names after the colon."""
    return table_rows.make_config(2, row)
