"""Names of DINOv3 in Hugging Face's files."""

import re
from collections.abc import Mapping

import numpy as np

from checkpoints_convert.names import BLOCK, CONVOLUTION, DENSE, Entry, Names, Table, both, norm
from checkpoints_convert.tables import vit

_LAYER = "dinov3.layer.{}"
HUGGING_FACE: Table = (
    Entry("dinov3.embeddings.cls_token", ("cls",)),
    Entry("dinov3.embeddings.register_tokens", ("registers",)),
    *both("dinov3.embeddings.patch_embeddings", "embedding", CONVOLUTION),
    *norm(f"{_LAYER}.norm1", f"{BLOCK}LayerNorm_0"),
    # The reader translates q_proj and the like to these names.
    *vit.hugging_face_attention(_LAYER),
    *norm(f"{_LAYER}.norm2", f"{BLOCK}LayerNorm_2"),
    *both(f"{_LAYER}.mlp.up_proj", f"{BLOCK}MlpBlock_3/Dense_0", DENSE),
    *both(f"{_LAYER}.mlp.down_proj", f"{BLOCK}MlpBlock_3/Dense_1", DENSE),
    *(
        Entry(f"{_LAYER}.layer_scale{number}.lambda1", (f"{BLOCK}LayerScale_{number - 1}/lambda1",))
        for number in (1, 2)
    ),
    *norm("dinov3.norm", "Transformer/encoder_norm"),
    *both("classifier", "head", DENSE),
)


def _prepare(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joins both parts of the gated MLP's first layer, and gives the keys a bias of zeros."""
    prepared = dict(state)
    for name, tensor in state.items():
        if found := re.fullmatch(r"(dinov3\.layer\.\d+\.)mlp\.gate_proj\.(weight|bias)", name):
            up = f"{found[1]}mlp.up_proj.{found[2]}"
            if up in prepared:
                prepared[up] = np.concatenate([prepared.pop(name), prepared[up]])
        elif found := re.fullmatch(r"(dinov3\.layer\.\d+\.attention\.attention\.)query\.bias", name):
            # A bias of the keys adds one number to all logits of a query, and changes nothing.
            prepared.setdefault(f"{found[1]}key.bias", np.zeros_like(tensor))
    return prepared


NAMES = Names(
    timm=(),
    hugging_face=HUGGING_FACE,
    # The names in files have no beginning.
    prefixes=("dinov3.", ""),
    unused=(r"dinov3\.embeddings\.mask_token",),
    prepare=_prepare,
)
