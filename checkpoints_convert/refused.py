"""Models of other programs that cannot be converted, with the reason."""

import re

from ppvit_jax.errors import UserError

_RELATIVE = "its blocks have relative positions, which an adapted position embedding cannot follow"
_ROTARY = "its blocks have rotary positions, which an adapted position embedding cannot follow"
_WINDOWS = "it attends in windows of the grid, so that it does not absorb a permutation of blocks"
_CONVOLUTIONS = "its convolutions go over the grid, so that it does not absorb a permutation of blocks"
_STEM = "its patches overlap or pass through several convolutions, so that adaptation is not exact"
_NAFLEX = "it resizes its positions for every image (NaFlex), so that they cannot be permuted beforehand"
_DETECTION = "it detects objects, and does not classify images"
_TEXT = "it is a model of texts"

# Regular expressions of timm's architectures and of Hugging Face's model types, which are matched from their start.
_REASONS = (
    (r"naflexvit|siglip2", _NAFLEX),
    (r"vit_.*dinov3|eva|.*rope|.*eva02", _ROTARY),
    (r"beit|data2vec-vision|vit_relpos|vit_srelpos|maxvit|sam|vitdet|samvit", _RELATIVE),
    (r"swin|davit|twins|focalnet|donut-swin|hiera|dinat|nat_", _WINDOWS),
    (
        r"convnext|convmixer|resnet|efficientnet|regnet|mobilenet|vgg|mlp_mixer|mixer_|cvt|poolformer|bit$",
        _CONVOLUTIONS,
    ),
    (r"levit|xcit|cait|vit_hybrid|vit_.*_r\d+_|vit_.*resnet|vit_.*hybrid|mobilevit|coat|t2t|volo|pvt|segformer", _STEM),
    (r"detr|yolos|deformable_detr|conditional_detr|rt_detr|owlvit|owlv2|grounding-dino|table-transformer", _DETECTION),
    (
        r"(distil|al|de|ro|camem|mo|xlm-ro|modern|electra|mega)?berta?|gpt|llama|mistral|qwen|t5|bart|gemma|opt|bloom|"
        r"phi|xlnet|electra|deberta|mpnet|falcon|mamba",
        _TEXT,
    ),
)


def reason(name: str) -> str:
    """Returns the reason for which a model cannot be converted, by its architecture or type; "" if none is known."""
    return next((text for pattern, text in _REASONS if re.match(pattern, name)), "")


def refuse_architecture(name: object, where: str) -> None:
    """Refuses an architecture of timm that cannot be converted.

    Raises:
      UserError: it cannot; the message has the reason.
    """
    if isinstance(name, str) and (text := reason(name)):
        raise UserError(f"{where} is a {name}, which cannot be converted: {text}")
