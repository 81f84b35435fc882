"""Imagenette by the methods of the paper's Table III, one row at a time: an encryption with its model and protocol.

Command:  python -m ppvit_jax.main --config=configs/table3.py:etc_vit --workdir=runs/table3/etc_vit \\
              --config.data.dir=DIR
Table:    python -m ppvit_jax reproduce table3 --output=runs/table3 --config.data.dir=DIR
Rows:     ppvit_jax/experiments/table_rows.py has their names, published accuracies and what is inferred;
          ppvit_jax/experiments/protocols.py has their protocols.
Weights:  the rows of ViT-B/16 start from ViT-B_16.npz, pre-trained on ImageNet-21k (the README says where to get it).
Expected: the row's published accuracy, such as 99.2% for proposed_vit and plain_vit alike. Not run by us to the end: it
          needs an accelerator; docs/tables has a scaled-down run on CIFAR-10.
"""

from ppvit_jax.config import Config
from ppvit_jax.experiments import protocols, table_rows


def get_config(row: str = "") -> Config:
    """Returns the protocol of a row, which --config names after the colon, on Imagenette."""
    return protocols.imagenette(table_rows.make_config(3, row))
