"""Configuration of Hugging Face's ViT and of its image processor, read and written."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from checkpoints_convert.foreign import HALF, IMAGENET, OPENAI
from checkpoints_convert.hugging_face_config import ModelType
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.errors import UserError, print_note, print_warning
from ppvit_jax.models.vit import ViTConfig

# Their names of our activations, ours first; several names stand for one function.
ACTIVATIONS = {
    "gelu_tanh": ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate"),
    "gelu": ("gelu", "gelu_python"),
    "quick_gelu": ("quick_gelu",),
}
# Mean and standard deviation of an image processor whose file does not have them.
_PROCESSORS = {"ViT": HALF, "Siglip": HALF, "CLIP": OPENAI, "Bit": OPENAI, "DeiT": IMAGENET}
# Numbers of Pillow's filters; this program resizes by the bilinear one.
_FILTERS = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}


@contextlib.contextmanager
def refusing_damage(where: str) -> Iterator[None]:
    """Turns the errors that a field of an unexpected type causes in this context into one line.

    Raises:
      UserError: there is such a field in the folder `where`.
    """
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{where} has a damaged config.json or preprocessor_config.json ({error}): get it again"
        ) from None


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {advice}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not the configuration of a model: choose another folder") from None
    return content


def check_config(config: Mapping[str, Any], kind: ModelType, where: str) -> None:
    """Refuses a model that differs from ours in a way that its tensors do not show.

    Raises:
      UserError: the configuration has a value that cannot be represented; the message has the value.
    """
    architectures = config.get("architectures") or []
    for architecture in architectures if isinstance(architectures, list) else [architectures]:
        if architecture not in kind.architectures:
            *others, last = kind.architectures
            names = f"{', '.join(others)} and {last}" if others else last
            raise UserError(f"{where} is a {architecture}, but only {names} can be converted")
    fixed = {"num_channels": 3, "qkv_bias": True, "pooler_act": "tanh", "quantization_config": None}
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise UserError(
                f"{where} has {name}={config[name]!r}, but Google's Vision Transformers have {value!r}: "
                "it cannot be converted"
            )
    for name, default in (("image_size", kind.image_size), ("patch_size", kind.patch_size)):
        side(config, name, default, where)
    activation(config, kind, where)
    epsilon = config.get("layer_norm_eps", kind.epsilon)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise UserError(f"{where} has layer_norm_eps={epsilon!r}: it needs a number above 0 and below 1")
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        print_warning(f"{where} has problem_type={problem!r}, but ppvit predict turns logits into one class by softmax")


def side(config: Mapping[str, Any], name: str, default: int, where: str) -> int:
    """Returns the side of a square size.

    Raises:
      UserError: the size is not square, or no positive number.
    """
    size = config.get(name, default)
    sides = size if isinstance(size, list) and len(size) == 2 else [size, size]
    if sides[0] != sides[1] or isinstance(sides[0], bool) or not isinstance(sides[0], int) or sides[0] < 1:
        raise UserError(f"{where} has {name}={size!r}, but only square images and patches can be represented")
    return sides[0]


def activation(config: Mapping[str, Any], kind: ModelType, where: str) -> str:
    """Returns our name of the activation.

    Raises:
      UserError: it is not a form of the GELU.
    """
    theirs = config.get("hidden_act", kind.activation)
    if config.get("use_gated_mlp"):
        # The gate of SwiGLU has its own activation, and the model no other.
        if theirs != "silu":
            raise UserError(
                f"{where} has the activation {theirs!r} (hidden_act) in a gated MLP, but only silu is known"
            )
        return str(kind.foreign.family.options["activation"])
    for ours, names in ACTIVATIONS.items():
        if theirs in names:
            return ours
    known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
    raise UserError(f"{where} has the activation {theirs!r} (hidden_act), but only a GELU can be converted: {known}")


def class_names(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Returns the names of id2label in order; () if there are none.

    Raises:
      UserError: the labels are not numbered from 0.
    """
    labels = config.get("id2label") or {}
    try:
        names = tuple(str(labels[str(number)]) for number in range(len(labels)))
    except (KeyError, TypeError):
        raise UserError(f"{folder / 'config.json'} is damaged: its labels (id2label) do not count from 0") from None
    # transformers calls labels without names so.
    unnamed = all(name == f"LABEL_{number}" for number, name in enumerate(names))
    return () if unnamed else names


def options(config: Mapping[str, Any], kind: ModelType, where: str) -> dict[str, Any]:
    """Returns the activation and epsilon, where they differ from the family's.

    Raises:
      UserError: the activation is not a form of the GELU.
    """
    chosen = {
        "activation": activation(config, kind, where),
        "epsilon": float(config.get("layer_norm_eps", kind.epsilon)),
    }
    return {name: value for name, value in chosen.items() if value != kind.foreign.family.options[name]}


def own_fields(folder: Path, config: Mapping[str, Any], kind: ModelType) -> dict[str, Any]:
    """Returns the fields of the metadata record that config.json and preprocessor_config.json decide.

    Raises:
      UserError: the files are damaged, or the preprocessing cannot be represented.
    """
    fields: dict[str, Any] = {}
    if config.get("id2label"):
        fields["class_names"] = class_names(config, folder)
    path = folder / "preprocessor_config.json"
    processor = read_json(path, "check its permissions") if path.is_file() else {}
    if not processor and (folder / "processor_config.json").is_file():
        path = folder / "processor_config.json"
        processor = read_json(path, "check its permissions").get("image_processor") or {}
    return fields | (
        _read_processor(processor, side(config, "image_size", kind.image_size, str(folder)), path, kind)
        if processor
        else {}
    )


def _read_processor(processor: Mapping[str, Any], image_size: int, path: Path, kind: ModelType) -> dict[str, Any]:
    """Returns mean, standard deviation and resizing: (x * rescale_factor - mean) / std."""
    name = str(processor.get("image_processor_type", processor.get("feature_extractor_type", "ViT")))
    # The defaults of a type's own processor; others have other defaults.
    own = _PROCESSORS.get(name.partition("ImageProcessor")[0].partition("FeatureExtractor")[0])
    defaults = dict(zip(("image_mean", "image_std"), own or (None, None), strict=True))
    try:
        scale = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        mean, std = [0.0] * 3, [1.0] * 3
        if processor.get("do_normalize", True):
            mean, std = (_three(processor.get(name, default)) for name, default in defaults.items())
        fields: dict[str, Any] = {
            "mean": tuple(value / scale for value in mean),
            "std": tuple(value / scale for value in std),
        }
        if not all(value > 0 for value in fields["std"]):
            raise ValueError
    except (TypeError, ValueError, ZeroDivisionError):
        raise UserError(f"{path} is damaged: its image_mean, image_std or rescale_factor is impossible") from None
    if not processor.get("do_resize", True):
        return fields
    size = processor.get("size", image_size)
    size = {"height": size, "width": size} if isinstance(size, int) else size
    crops = processor.get("do_center_crop", False)
    crop = processor.get("crop_size", size) if crops else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if not isinstance(size, dict) or not isinstance(crop, dict):
        raise UserError(f"{path} is damaged: its size is {size!r}, but a size has height and width, or shortest_edge")
    edge = size.get("shortest_edge")
    if edge is None and "height" not in size:
        print_warning(f"{path} resizes images to {size}, which the record cannot express: it is left out")
        return fields
    fields["resize"] = "centre_crop" if edge is not None else "squash"
    final = [crop.get(name, edge) for name in ("height", "width")]
    if final != [image_size, image_size]:
        print_warning(
            f"{path} makes images of {final[0]}x{final[1]} pixels, but the model takes {image_size}x{image_size}"
        )
    before = edge if edge is not None else size.get("height")
    if before != final[0]:
        print_warning(
            f"{path} resizes images to {before} and crops {final[0]} pixels; this program crops the whole shorter side"
        )
    if (resample := processor.get("resample", 2)) != 2:
        name = _FILTERS.get(resample, resample) if isinstance(resample, int) else resample
        print_note(f"{path} resizes by the filter {name}; this program uses the bilinear one")
    return fields


def _three(value: Any) -> list[float]:
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3 or not all(isinstance(v, int | float) and abs(v) < 1e6 for v in values):
        raise ValueError
    return [float(v) for v in values]


def make_config(shape: ViTConfig, record: Metadata, *, has_head: bool, dtype: str) -> dict[str, Any]:
    """Returns config.json for a model, without the field ppvit."""
    config: dict[str, Any] = {
        "architectures": ["ViTForImageClassification" if has_head else "ViTModel"],
        "model_type": "vit",
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_size,
        "hidden_act": ACTIVATIONS[shape.activation][0],
        "layer_norm_eps": shape.epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "num_channels": 3,
        "dtype": dtype,
    }
    if has_head:
        names = record.class_names or tuple(f"LABEL_{number}" for number in range(shape.num_classes))
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    return config


def make_processor(record: Metadata, image_size: int) -> dict[str, Any]:
    """Returns preprocessor_config.json; a record without a resizing gets the form that scales both sides."""
    mean, std = record.normalization
    square = {"height": image_size, "width": image_size}
    crops = record.resize == "centre_crop"
    return {
        # The processor of ViT in older versions of transformers cannot crop.
        "image_processor_type": "BitImageProcessor" if crops else "ViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_size} if crops else square,
        **({"do_center_crop": True, "crop_size": square} if crops else {}),
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
