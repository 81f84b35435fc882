"""Tiny models of every family with random weights, in folders as timm and Hugging Face publish them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from helpers.oracles import draw, file_tensors, run
from helpers.pytorch import timm, transformers

CLASSES = 3
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
OPENAI: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}

_TIMM: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", {"act_layer": "gelu_tanh"}, HALF),
    "ViT by the mean": ("vit_tiny_patch16_224", {"act_layer": "gelu_tanh", "global_pool": "avg"}, HALF),
    "DeiT distilled": ("deit_tiny_distilled_patch16_224", {}, IMAGENET),
    "DeiT III": ("deit3_small_patch16_224", {}, IMAGENET),
    "DINOv2": ("vit_small_patch14_dinov2", {}, IMAGENET),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {}, IMAGENET),
    "DINOv2 giant": ("vit_giant_patch14_dinov2", {}, IMAGENET),
    "SigLIP": ("vit_base_patch16_siglip_224", {"act_layer": "gelu_tanh"}, HALF),
    "SigLIP by the mean": ("vit_base_patch16_siglip_gap_224", {"act_layer": "gelu_tanh"}, HALF),
    "CLIP": ("vit_base_patch16_clip_quickgelu_224", {}, OPENAI),
    "OpenCLIP": ("vit_base_patch16_clip_224", {}, OPENAI),
}
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
_DEIT: dict[str, Any] = {**_SIZES, "intermediate_size": 64, "image_size": 32}
_DINOV2: dict[str, Any] = {**_SIZES, "image_size": 32, "mlp_ratio": 2, "num_labels": CLASSES}
_TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 9}


def _two_towers(kind: str, **fields: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")
    return config(vision_config=_DEIT, text_config=_TEXT, projection_dim=16, **fields)


_HUGGING_FACE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "ViT": ("ViTForImageClassification", lambda: transformers.ViTConfig(**_DEIT, num_labels=CLASSES), HALF),
    "DeiT": ("DeiTForImageClassification", lambda: transformers.DeiTConfig(**_DEIT, num_labels=CLASSES), IMAGENET),
    "DeiT distilled": (
        "DeiTForImageClassificationWithTeacher",
        lambda: transformers.DeiTConfig(**_DEIT, num_labels=CLASSES),
        IMAGENET,
    ),
    "DINOv2": ("Dinov2ForImageClassification", lambda: transformers.Dinov2Config(**_DINOV2), IMAGENET),
    "DINOv2 giant": (
        "Dinov2ForImageClassification",
        lambda: transformers.Dinov2Config(**_DINOV2, use_swiglu_ffn=True),
        IMAGENET,
    ),
    "DINOv2 with registers": (
        "Dinov2WithRegistersForImageClassification",
        lambda: transformers.Dinov2WithRegistersConfig(**_DINOV2),
        IMAGENET,
    ),
    "SigLIP by the mean": ("SiglipForImageClassification", lambda: _two_towers("Siglip", num_labels=CLASSES), HALF),
    "SigLIP": ("SiglipModel", lambda: _two_towers("Siglip"), HALF),
    "SigLIP's encoder": ("SiglipVisionModel", lambda: transformers.SiglipVisionConfig(**_DEIT), HALF),
    "CLIP": ("CLIPModel", lambda: _two_towers("CLIP"), OPENAI),
    "CLIP's encoder": ("CLIPVisionModel", lambda: transformers.CLIPVisionConfig(**_DEIT), OPENAI),
    "DINOv3": (
        "DINOv3ViTModel",
        lambda: transformers.DINOv3ViTConfig(**_DEIT, num_register_tokens=4),
        IMAGENET,
    ),
    "DINOv3 plus": (
        "DINOv3ViTModel",
        lambda: transformers.DINOv3ViTConfig(**_DEIT, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
        IMAGENET,
    ),
    "MAE": (
        "ViTMAEForPreTraining",
        lambda: transformers.ViTMAEConfig(
            **_DEIT,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=16,
        ),
        IMAGENET,
    ),
}
NAMES = [f"timm: {name}" for name in _TIMM] + [f"Hugging Face: {name}" for name in _HUGGING_FACE]


def publish(folder: Path, name: str) -> Any:
    """Writes the model of this name, one of NAMES, to a folder, and returns it, a PyTorch model."""
    folder.mkdir(exist_ok=True)
    program, _, title = name.partition(": ")
    if program == "timm":
        architecture, own, normalization = _TIMM[title]
        arguments = {"patch_size": 8, "img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, **own}
        model = draw(timm.create_model(architecture, num_classes=CLASSES, **arguments))
        config = {
            "architecture": architecture,
            "num_classes": CLASSES,
            "model_args": arguments,
            "pretrained_cfg": {**normalization, "input_size": [3, 32, 32], "label_names": ["a", "b", "c"]},
        }
        (folder / "config.json").write_text(json.dumps(config))
        save_file(file_tensors(model), folder / "model.safetensors")
        return model
    kind, make, normalization = _HUGGING_FACE[title]
    model = draw(getattr(transformers, kind)(make()))
    model.save_pretrained(folder)
    processor = {"image_mean": normalization["mean"], "image_std": normalization["std"], "size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def normalization(name: str) -> dict[str, Any]:
    """Returns mean and standard deviation of the model of this name."""
    program, _, title = name.partition(": ")
    return (_TIMM if program == "timm" else _HUGGING_FACE)[title][2]


def has_head(name: str) -> bool:
    """Returns True if the model of this name has outputs for classes."""
    return name.startswith("timm") or "ImageClassification" in _HUGGING_FACE[name.partition(": ")[2]][0]


def outputs(model: Any, name: str, images: np.ndarray) -> np.ndarray:
    """Returns what a published model computes for images, uint8 [n, size, size, 3]: its logits or pooled features."""
    values = normalization(name)
    pixels = ((images / 255 - np.array(values["mean"])) / np.array(values["std"])).astype(np.float32)
    if name == "Hugging Face: MAE":
        encoder = model
        if type(model).__name__ == "ViTMAEForPreTraining":
            encoder = transformers.ViTModel(model.config, add_pooling_layer=False).eval()
            encoder.load_state_dict(model.vit.state_dict(), strict=False)
        return run(lambda inputs: encoder(inputs).last_hidden_state[:, 0], pixels)
    if type(model).__name__ in ("SiglipModel", "CLIPModel"):
        model = model.vision_model
    return run(model, pixels)


def load(folder: Path, name: str) -> Any:
    """Loads a folder that we wrote by the program of the model of this name, strictly."""
    config = json.loads((folder / "config.json").read_text())
    if name.startswith("timm"):
        return timm.create_model(
            config["architecture"],
            checkpoint_path=folder / "model.safetensors",
            num_classes=config["num_classes"],
            **config["model_args"],
        ).eval()
    classifies = "ForImageClassification" in config["architectures"][0]
    kind = "AutoModelForImageClassification" if classifies else config["architectures"][0]
    model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["mismatched_keys"], report
    # ViTModel and DeiTModel have a pooler, which their classifiers lack.
    assert all("pooler" in key for key in report["missing_keys"]), report
    return model.eval()
