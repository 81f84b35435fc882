"""Names of the image encoder of CLIP and OpenCLIP."""

from checkpoints_convert.names import (
    ATTENTION,
    BLOCK,
    CONVOLUTION,
    DENSE,
    FROM_HEADS,
    ROWS,
    TOKEN,
    Entry,
    Names,
    Table,
    both,
    norm,
    of_heads,
)
from checkpoints_convert.tables import vit

# The head of a model that is not fine-tuned is the projection to the space that CLIP shares with texts.
TIMM: Table = (*vit.TIMM, *norm("norm_pre", "Transformer/pre_norm"))

_LAYER = "vision_model.encoder.layers.{}"
# Names that SigLIP has, too.
TOWER: Table = (
    *norm(f"{_LAYER}.layer_norm1", f"{BLOCK}LayerNorm_0"),
    *(
        entry
        for kind in ("query", "key", "value")
        for entry in of_heads(
            f"{_LAYER}.self_attn.{kind[0]}_proj.weight", f"{_LAYER}.self_attn.{kind[0]}_proj.bias", ATTENTION, (kind,)
        )
    ),
    *both(f"{_LAYER}.self_attn.out_proj", f"{ATTENTION}out", FROM_HEADS),
    *norm(f"{_LAYER}.layer_norm2", f"{BLOCK}LayerNorm_2"),
    *both(f"{_LAYER}.mlp.fc1", f"{BLOCK}MlpBlock_3/Dense_0", DENSE),
    *both(f"{_LAYER}.mlp.fc2", f"{BLOCK}MlpBlock_3/Dense_1", DENSE),
    *norm("vision_model.post_layernorm", "Transformer/encoder_norm"),
    *both("classifier", "head", DENSE),
)
HUGGING_FACE: Table = (
    *TOWER,
    Entry("vision_model.embeddings.class_embedding", ("cls",), TOKEN),
    Entry("vision_model.embeddings.patch_embedding.weight", ("embedding/kernel",), CONVOLUTION),
    Entry("vision_model.embeddings.position_embedding.weight", ("Transformer/posembed_input/pos_embedding",), ROWS),
    *norm("vision_model.pre_layrnorm", "Transformer/pre_norm"),
)
# The text encoder, what joins both encoders, and a buffer of older files.
TEXT = (
    r"text_model\..*",
    r"(text|visual)_projection\.weight",
    r"logit_(scale|bias)",
    r"vision_model\.embeddings\.position_ids",
)

NAMES = Names(timm=TIMM, hugging_face=HUGGING_FACE, prefixes=("vision_model.", ""), unused=TEXT)
