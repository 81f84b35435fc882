"""Names of DINOv2, with register tokens or without."""

from checkpoints_convert.names import BLOCK, CONVOLUTION, DENSE, Entry, Names, Table, both, norm
from checkpoints_convert.tables import vit
from ppvit_jax.models.vit_config import ViTConfig

_MLP = f"{BLOCK}MlpBlock_3/"
_SCALES = tuple((number, (f"{BLOCK}LayerScale_{number - 1}/lambda1",)) for number in (1, 2))


def _gated(shape: ViTConfig) -> bool:
    return shape.layout.gated


TIMM: Table = (
    # The authors' names, which timm translates.
    Entry("register_tokens", ("registers",)),
    *both("blocks.{}.mlp.w12", f"{_MLP}Dense_0", DENSE),
    *both("blocks.{}.mlp.w3", f"{_MLP}Dense_1", DENSE),
    *vit.TIMM,
    Entry("reg_token", ("registers",)),
    *(Entry(f"blocks.{{}}.ls{number}.gamma", google) for number, google in _SCALES),
)

_LAYER = "dinov2.encoder.layer.{}"
HUGGING_FACE: Table = (
    Entry("dinov2.embeddings.cls_token", ("cls",)),
    Entry("dinov2.embeddings.register_tokens", ("registers",)),
    Entry("dinov2.embeddings.position_embeddings", ("Transformer/posembed_input/pos_embedding",)),
    *both("dinov2.embeddings.patch_embeddings.projection", "embedding", CONVOLUTION),
    *norm(f"{_LAYER}.norm1", f"{BLOCK}LayerNorm_0"),
    *vit.hugging_face_attention(_LAYER),
    *(Entry(f"{_LAYER}.layer_scale{number}.lambda1", google) for number, google in _SCALES),
    *norm(f"{_LAYER}.norm2", f"{BLOCK}LayerNorm_2"),
    *both(f"{_LAYER}.mlp.fc1", f"{_MLP}Dense_0", DENSE),
    *both(f"{_LAYER}.mlp.fc2", f"{_MLP}Dense_1", DENSE),
    *both(f"{_LAYER}.mlp.weights_in", f"{_MLP}Dense_0", DENSE, _gated),
    *both(f"{_LAYER}.mlp.weights_out", f"{_MLP}Dense_1", DENSE, _gated),
    *norm("dinov2.layernorm", "Transformer/encoder_norm"),
    *both("classifier", "head", DENSE),
)

NAMES = Names(
    timm=TIMM,
    hugging_face=HUGGING_FACE,
    # Models with registers have the second prefix in files.
    prefixes=("dinov2.", "dinov2_with_registers.", ""),
    unused=(r"(dinov2\.embeddings\.)?mask_token",),
)
