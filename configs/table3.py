"""Imagenette with the methods of the paper's Table III, one row at a time: an encryption with its model and protocol.

Command:  ppvit train --config=configs/table3.py:etc_vit --workdir=runs/table3/etc_vit \\
              --config.data.dir=DIR
Table:    ppvit reproduce table3 --output=runs/table3 --config.data.dir=DIR
Rows:     ppvit_jax/experiments/table_rows.py lists their names, published accuracies and inferred choices;
          ppvit_jax/experiments/protocols.py has their protocols.
Weights:  ViT-B/16 rows start from those of configs/cifar10.py.
Expected: the row's published accuracy, such as 99.2% for both proposed_vit and plain_vit. We have not run the full
          protocols, because they need an accelerator; docs/tables has a scaled-down run on CIFAR-10.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols, table_rows


def get_config(row: str = "") -> Config:
    """Returns the protocol of the row that --config names after the colon, on Imagenette."""
    return protocols.imagenette(table_rows.make_config(3, row))
