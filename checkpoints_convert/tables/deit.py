"""Names of DeiT with a distillation token, and of DeiT III, which Hugging Face does not have."""

from checkpoints_convert.names import BLOCK, DENSE, Entry, Names, Table, both
from checkpoints_convert.tables import vit
from ppvit_jax.models.vit_config import ViTConfig

_SCALES = tuple((number, (f"{BLOCK}LayerScale_{number - 1}/gamma",)) for number in (1, 2))


def _distilled(shape: ViTConfig) -> bool:
    return shape.layout.pool == "distilled"


TIMM: Table = (
    *vit.TIMM,
    Entry("dist_token", ("dist",)),
    *both("head_dist", "head_dist", DENSE),
    # The authors' names, which timm translates, and timm's.
    *(Entry(f"blocks.{{}}.gamma_{number}", google) for number, google in _SCALES),
    *(Entry(f"blocks.{{}}.ls{number}.gamma", google) for number, google in _SCALES),
)
HUGGING_FACE: Table = (
    *vit.hugging_face("deit."),
    Entry("deit.embeddings.distillation_token", ("dist",)),
    *both("classifier", "head", DENSE),
    # With the token's own head: DeiTForImageClassificationWithTeacher.
    *both("cls_classifier", "head", DENSE, _distilled),
    *both("distillation_classifier", "head_dist", DENSE),
)

NAMES = Names(
    timm=TIMM,
    hugging_face=HUGGING_FACE,
    prefixes=("deit.", ""),
    # The pooler follows the class token of DeiTModel; the classifiers do not use it.
    unused=(r"deit\.embeddings\.mask_token", r"deit\.pooler\..*"),
)
