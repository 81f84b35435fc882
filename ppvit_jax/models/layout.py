"""Differences between the transformers of several families: the description that encoder and ONNX graph follow."""

import dataclasses

# Features that the head takes, made from the tokens after the last block; N is the encoder's last normalization:
#   token: N of the class token.
#   distilled: N of the class token and of the distillation token, with a head for each, whose logits are averaged.
#   mean: N of the mean of the patch tokens.
#   raw_mean: the mean of the patch tokens, without N.
#   norm_mean: the mean of N of the patch tokens.
#   token_mean: N of the class token, followed by the mean of N of the patch tokens.
#   map: multihead attention pooling (arXiv 2106.04560, section 3.2) of N of the patch tokens.
POOLS = ("token", "distilled", "mean", "raw_mean", "norm_mean", "token_mean", "map")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Parts of a Vision Transformer.

    Attributes:
      class_token: True if a class token comes first, as the parameter "cls".
      distillation_token: True if a distillation token comes second, as the parameter "dist".
      registers: number of register tokens after these, as the parameter "registers" (arXiv 2309.16588).
      prefix_rows: rows of the position embedding before those of the patches. They belong to the first tokens; other
        tokens before the patches have no position.
      patch_bias: False if the patch embedding has no bias.
      pre_norm: True if a normalization, "pre_norm", comes before the first block.
      layer_scale: name of the factors by which each block multiplies what it adds (LayerScale, arXiv 2103.17239); ""
        for a model without them.
      gated: True if the MLP is SwiGLU, (silu(x U) * (x V)) W, whose first layer has the kernel [U, V]
        (arXiv 2002.05202).
      rotary: True if attention rotates queries and keys by the positions of the patches, and no position is added
        (arXiv 2104.09864). The angles are the parameter "Transformer/rotary/angles", which is not trained.
      top_positions: True if the position embedding is the parameter "pos_embedding" of the model, and not of the
        encoder.
      pool: one of POOLS.
    """

    class_token: bool = True
    distillation_token: bool = False
    registers: int = 0
    prefix_rows: int = 1
    patch_bias: bool = True
    pre_norm: bool = False
    layer_scale: str = ""
    gated: bool = False
    rotary: bool = False
    top_positions: bool = False
    pool: str = "token"

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before those of the patches."""
        return self.class_token + self.distillation_token + self.registers
