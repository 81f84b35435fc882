"""Names of the image encoder of SigLIP and SigLIP 2."""

from checkpoints_convert.names import CONVOLUTION, DENSE, FROM_HEADS, ROWS, Entry, Names, Table, both, norm, of_heads
from checkpoints_convert.tables import clip, vit

_ATTENTION = "MAPHead_0/MultiHeadDotProductAttention_0/"
_KINDS = ("query", "key", "value")

TIMM: Table = (
    Entry("pos_embed", ("pos_embedding",)),
    *vit.TIMM_ENCODER,
    Entry("attn_pool.latent", ("MAPHead_0/probe",)),
    *of_heads("attn_pool.q.weight", "attn_pool.q.bias", _ATTENTION, _KINDS[:1]),
    *of_heads("attn_pool.kv.weight", "attn_pool.kv.bias", _ATTENTION, _KINDS[1:]),
    *both("attn_pool.proj", f"{_ATTENTION}out", FROM_HEADS),
    *norm("attn_pool.norm", "MAPHead_0/LayerNorm_0"),
    *both("attn_pool.mlp.fc1", "MAPHead_0/MlpBlock_0/Dense_0", DENSE),
    *both("attn_pool.mlp.fc2", "MAPHead_0/MlpBlock_0/Dense_1", DENSE),
)
HUGGING_FACE: Table = (
    *clip.TOWER,
    *both("vision_model.embeddings.patch_embedding", "embedding", CONVOLUTION),
    Entry("vision_model.embeddings.position_embedding.weight", ("pos_embedding",), ROWS),
    Entry("vision_model.head.probe", ("MAPHead_0/probe",)),
    *of_heads(
        "vision_model.head.attention.in_proj_weight", "vision_model.head.attention.in_proj_bias", _ATTENTION, _KINDS
    ),
    *both("vision_model.head.attention.out_proj", f"{_ATTENTION}out", FROM_HEADS),
    *norm("vision_model.head.layernorm", "MAPHead_0/LayerNorm_0"),
    *both("vision_model.head.mlp.fc1", "MAPHead_0/MlpBlock_0/Dense_0", DENSE),
    *both("vision_model.head.mlp.fc2", "MAPHead_0/MlpBlock_0/Dense_1", DENSE),
)

NAMES = Names(timm=TIMM, hugging_face=HUGGING_FACE, prefixes=("vision_model.", ""), unused=clip.TEXT)
