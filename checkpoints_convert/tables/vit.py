"""Names of the Vision Transformer, in the models of Google, DeiT without distillation, DINO and MAE."""

from checkpoints_convert.names import (
    ATTENTION,
    BLOCK,
    CONVOLUTION,
    DENSE,
    FROM_HEADS,
    Entry,
    Names,
    Table,
    both,
    norm,
    of_heads,
)

_KINDS = ("query", "key", "value")
# The names of timm that all families have.
TIMM_ENCODER: Table = (
    *both("patch_embed.proj", "embedding", CONVOLUTION),
    *norm("blocks.{}.norm1", f"{BLOCK}LayerNorm_0"),
    *of_heads("blocks.{}.attn.qkv.weight", "blocks.{}.attn.qkv.bias", ATTENTION, _KINDS),
    *both("blocks.{}.attn.proj", f"{ATTENTION}out", FROM_HEADS),
    *norm("blocks.{}.norm2", f"{BLOCK}LayerNorm_2"),
    *both("blocks.{}.mlp.fc1", f"{BLOCK}MlpBlock_3/Dense_0", DENSE),
    *both("blocks.{}.mlp.fc2", f"{BLOCK}MlpBlock_3/Dense_1", DENSE),
    *norm("norm", "Transformer/encoder_norm"),
    # The normalization after the mean of the tokens.
    *norm("fc_norm", "Transformer/encoder_norm", lambda shape: shape.layout.pool == "mean"),
    *both("head", "head", DENSE),
)
TIMM: Table = (
    Entry("cls_token", ("cls",)),
    Entry("pos_embed", ("Transformer/posembed_input/pos_embedding",)),
    *TIMM_ENCODER,
    # Models of timm had this layer before version 0.8.
    *both("pre_logits.fc", "pre_logits", DENSE),
)

# These are the names in files. The modules of transformers 5 have other names, which it translates.


def hugging_face(prefix: str) -> Table:
    """Returns Hugging Face's names of the encoder, which begin with `prefix`, such as "vit."."""
    layer = f"{prefix}encoder.layer.{{}}"
    return (
        Entry(f"{prefix}embeddings.cls_token", ("cls",)),
        Entry(f"{prefix}embeddings.position_embeddings", ("Transformer/posembed_input/pos_embedding",)),
        *both(f"{prefix}embeddings.patch_embeddings.projection", "embedding", CONVOLUTION),
        *norm(f"{layer}.layernorm_before", f"{BLOCK}LayerNorm_0"),
        *hugging_face_attention(layer),
        *norm(f"{layer}.layernorm_after", f"{BLOCK}LayerNorm_2"),
        *both(f"{layer}.intermediate.dense", f"{BLOCK}MlpBlock_3/Dense_0", DENSE),
        *both(f"{layer}.output.dense", f"{BLOCK}MlpBlock_3/Dense_1", DENSE),
        *norm(f"{prefix}layernorm", "Transformer/encoder_norm"),
    )


def hugging_face_attention(layer: str) -> Table:
    """Returns Hugging Face's names of the attention of the block `layer`."""
    projections = [
        of_heads(
            f"{layer}.attention.attention.{kind}.weight", f"{layer}.attention.attention.{kind}.bias", ATTENTION, (kind,)
        )
        for kind in _KINDS
    ]
    out = both(f"{layer}.attention.output.dense", f"{ATTENTION}out", FROM_HEADS)
    return (*(entry for entries in projections for entry in entries), *out)


HUGGING_FACE: Table = (*hugging_face("vit."), *both("classifier", "head", DENSE))

NAMES = Names(
    timm=TIMM,
    hugging_face=HUGGING_FACE,
    prefixes=("vit.", ""),
    # The decoder of MAE, in Hugging Face's and in the authors' files.
    unused=(r"(vit\.embeddings\.)?mask_token", r"decoder\..*", r"decoder_.*"),
)
