"""CIFAR-10 with the methods of the paper's Table II, one row at a time: an encryption with its model and protocol.

Command:  ppvit train --config=configs/table2.py:etc_vit --workdir=runs/table2/etc_vit
Table:    ppvit reproduce table2 --output=runs/table2        (add --rows=etc_vit,plain_vit for some rows only)
Rows:     ppvit_jax/experiments/table_rows.py lists their names, published accuracies and inferred choices;
          ppvit_jax/experiments/protocols.py has their protocols.
Weights:  ViT-B/16 rows start from those of configs/cifar10.py.
Expected: the row's published accuracy, such as 98.98% for proposed_vit (plain_vit: 99.00%). Add
          --config.data.name=cifar100 for the paper's other column. We have not run the full protocols, because they
          need an accelerator; docs/tables has a scaled-down run.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import table_rows


def get_config(row: str = "") -> Config:
    """Returns the protocol of the row that --config names after the colon."""
    return table_rows.make_config(2, row)
