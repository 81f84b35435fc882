"""Metadata record of converted models: carried whole, and decided by the foreign program's own files."""

import dataclasses
import functools
import json
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers.convert import arrays, convert
from helpers.pytorch import timm, torch, transformers
from helpers.tiny import assert_same_tree, flatten, random_images, random_params, tiny_model
from PIL import Image
from safetensors.numpy import load_file, save_file

from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.images import RESIZES, fit

CONFIG = tiny_model()
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FULL = Metadata(
    "",
    16,
    "bs",
    "12" * 16,
    ("ant", "bee", "çat"),
    {"activation": "gelu", "epsilon": 1e-12},
    **IMAGENET,
    resize="centre_crop",
    images_encryption="bs+ps",
    images_key_fingerprint="34" * 16,
)


def _write(path, metadata, config=CONFIG):
    checkpoint.write(path, random_params(config), metadata)
    return path


def _edit(path, **fields):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


@pytest.fixture
def folder(tmp_path):
    """A folder with model.npz, its record FULL, and the folder hf, made from it."""
    _write(tmp_path / "model.npz", FULL)
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf") == 0
    return tmp_path


@pytest.mark.parametrize("other", ["hf", "model.safetensors", "model.pth"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_whole_record_comes_back_whatever_its_size(tmp_path, other, dtype):
    config = tiny_model(num_classes=1000)
    names = tuple(f"{number:04d} " + "n" * 65 for number in range(1000))
    metadata = dataclasses.replace(FULL, class_names=names)
    params = {name: array.astype(dtype) for name, array in flatten(random_params(config)).items()}
    checkpoint.write(tmp_path / "model.npz", params, metadata)
    there, back = ("npz_to_hf", "hf_to_npz") if other == "hf" else ("npz_to_timm", "timm_to_npz")
    assert convert(there, tmp_path / "model.npz", tmp_path / other) == 0
    assert convert(back, tmp_path / other, tmp_path / "back.npz") == 0
    assert arrays(tmp_path / "back.npz")[1] == metadata
    assert_same_tree(arrays(tmp_path / "back.npz")[0], params)


def test_without_its_head_a_model_has_no_class_names(tmp_path):
    _write(tmp_path / "model.npz", FULL)
    for script, name, back in (("npz_to_hf", "hf", "hf_to_npz"), ("npz_to_timm", "model.pth", "timm_to_npz")):
        assert convert(script, tmp_path / "model.npz", tmp_path / name, "--without-head") == 0
        assert convert(back, tmp_path / name, tmp_path / f"{name}.npz") == 0
        assert arrays(tmp_path / f"{name}.npz")[1] == dataclasses.replace(FULL, class_names=())


def test_big_vision_keeps_its_record_and_takes_options(tmp_path):
    named = flatten(random_params(CONFIG))
    positions = named.pop("Transformer/posembed_input/pos_embedding")
    for old, new in (("Norm_2", "Norm_1"), ("Block_3", "Block_0"), ("Attention_1", "Attention_0")):
        named = {name.replace(old, new): array for name, array in named.items()}
    checkpoint.write(tmp_path / "big.npz", named | {"pos_embedding": positions[:, 1:]}, FULL)
    assert convert("big_vision_to_npz", tmp_path / "big.npz", tmp_path / "model.npz") == 0
    assert arrays(tmp_path / "model.npz")[1] == FULL
    numbers = ["--mean", "0", "0.1", "0.2", "--std", "1", "1", "1"]
    assert convert("big_vision_to_npz", tmp_path / "big.npz", tmp_path / "other.npz", *numbers) == 0
    assert arrays(tmp_path / "other.npz")[1].mean == (0, 0.1, 0.2)


def test_the_image_processor_prepares_images_as_this_program_does(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3)).astype(np.uint8)
    smooth = Image.fromarray(pixels).resize((120, 240), Image.Resampling.BICUBIC)
    for resize in RESIZES:
        _write(folder / f"{resize}.npz", dataclasses.replace(FULL, resize=resize))
        assert convert("npz_to_hf", folder / f"{resize}.npz", folder / resize) == 0
        processor = transformers.AutoImageProcessor.from_pretrained(folder / resize)
        theirs = processor(smooth, return_tensors="pt")["pixel_values"][0].permute(1, 2, 0).numpy()
        ours = (fit(smooth, 16, resize) / 255 - FULL.mean) / FULL.std
        assert np.abs(theirs - ours).max() < 3 / 255 / 0.2


def test_the_files_own_values_decide_over_a_former_exports(folder, capsys):
    names = {"0": "ant", "1": "wasp", "2": "çat"}
    _edit(folder / "hf" / "config.json", id2label=names, hidden_act="gelu_new")
    _edit(folder / "hf" / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], size=16, do_center_crop=False)
    capsys.readouterr()
    assert convert("hf_to_npz", folder / "hf", folder / "back.npz") == 0
    found = arrays(folder / "back.npz")[1]
    names = ("ant", "wasp", "çat")
    expected = dataclasses.replace(FULL, class_names=names, model_options={"epsilon": 1e-12}, mean=(0.1, 0.2, 0.3))
    assert found == dataclasses.replace(expected, resize="squash")
    notes = capsys.readouterr().err
    for text in (
        "class names 'wasp' for output 1, but its field ppvit, of a former export, has 'bee'",
        "the mean (0.1, 0.2, 0.3), but its field ppvit, of a former export, has (0.485, 0.456, 0.406)",
        "the resizing squash, but its field ppvit, of a former export, has centre_crop",
        "the activation and epsilon {'epsilon': 1e-12}, but its field ppvit",
    ):
        assert text in notes, notes


PROCESSORS = {
    "ImageNet": ({"image_mean": IMAGENET["mean"], "image_std": IMAGENET["std"]}, IMAGENET),
    "not normalized": ({"do_normalize": False, "image_mean": [9, 9, 9]}, {"mean": (0, 0, 0), "std": (1, 1, 1)}),
    "not rescaled": (
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3},
        {"mean": (0.5,) * 3, "std": (0.2,) * 3},
    ),
    "from -1 to 1": (
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "ViT's defaults": ({"image_processor_type": "ViTImageProcessor"}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
    "a crop": (
        {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
        {"resize": "centre_crop"},
    ),
    "one size": ({"size": {"height": 16, "width": 16}}, {"resize": "squash"}),
    "no resizing": ({"do_resize": False}, {"resize": ""}),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("nested", [False, True])
def test_the_preprocessing_of_hugging_face_is_recorded(folder, name, nested):
    fields, expected = PROCESSORS[name]
    path = folder / "hf" / "preprocessor_config.json"
    path.unlink()
    if nested:
        _edit(folder / "hf" / "processor_config.json", image_processor=fields)
    else:
        _edit(path, **fields)
    _edit(folder / "hf" / "config.json", ppvit=None)
    assert convert("hf_to_npz", folder / "hf", folder / "back.npz") == 0
    found = arrays(folder / "back.npz")[1]
    assert found.encryption == "none" and found.class_names == FULL.class_names
    for field, value in expected.items():
        assert getattr(found, field) == (value if field == "resize" else pytest.approx(value)), field


def test_what_is_resized_otherwise_gets_a_warning(folder, capsys):
    _edit(folder / "hf" / "preprocessor_config.json", size={"shortest_edge": 20}, resample=3)
    _edit(folder / "hf" / "config.json", problem_type="multi_label_classification")
    assert convert("hf_to_npz", folder / "hf", folder / "back.npz") == 0
    notes = capsys.readouterr().err
    assert "warning: " in notes and "resizes images to 20 and crops 16" in notes and "bicubic" in notes
    assert "problem_type='multi_label_classification'" in notes


REFUSED = {
    "another pooler": ({"pooler_act": "relu"}, "has pooler_act='relu', but Google's .* have 'tanh'"),
    "another activation": ({"hidden_act": "gelu_10"}, "has the activation 'gelu_10'"),
    "no biases": ({"qkv_bias": False}, "has qkv_bias=False"),
    "gray images": ({"num_channels": 1}, "has num_channels=1"),
    "wide images": ({"image_size": [8, 32]}, r"has image_size=\[8, 32\], but only square"),
    "wide patches": ({"patch_size": [4, 8]}, r"has patch_size=\[4, 8\], but only square"),
    "another size": ({"image_size": 32}, "has image_size=32 in config.json, but its weights have 16"),
    "another patch": ({"patch_size": 8}, "has patch_size=8 in config.json, but its weights have 4"),
    "fewer layers": ({"num_hidden_layers": 1}, "has num_hidden_layers=1 in config.json, but its weights have 2"),
    "another width": ({"intermediate_size": 64}, "has intermediate_size=64 .* have 32"),
    "more labels": ({"id2label": {"0": "a", "1": "b", "2": "c", "3": "d"}}, "has num_labels=4 .* have 3"),
    "heads that do not divide": ({"num_attention_heads": 3}, "which 3 attention heads do not divide"),
    "no number of heads": ({"num_attention_heads": "two"}, "num_attention_heads='two'"),
    "no epsilon": ({"layer_norm_eps": 0}, "layer_norm_eps=0"),
    "another class": ({"architectures": ["ViTForMaskedImageModeling"]}, "is a ViTForMaskedImageModeling, but only"),
    "quantized": ({"quantization_config": {"load_in_8bit": True}}, "has quantization_config="),
    "a damaged record": ({"ppvit": {"image_size": "x"}}, "is damaged: its field ppvit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_of_hugging_face_that_google_lacks_is_refused_by_the_value(folder, capsys, name):
    fields, message = REFUSED[name]
    _edit(folder / "hf" / "config.json", **fields)
    capsys.readouterr()
    assert convert("hf_to_npz", folder / "hf", folder / "back.npz") == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors) and errors.count("\n") == 1, errors
    assert not (folder / "back.npz").exists()


def test_weights_in_several_files_and_parts_that_a_classifier_ignores_are_named(folder, capsys):
    path = folder / "hf" / "model.safetensors"
    shapes = {"pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,), "embeddings.mask_token": (1, 1, 16)}
    save_file(load_file(path) | {f"vit.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}, path)
    assert convert("hf_to_npz", folder / "hf", folder / "back.npz") == 0
    assert "vit.embeddings.mask_token, vit.pooler.dense.weight, vit.pooler.dense.bias of" in capsys.readouterr().err
    assert_same_tree(arrays(folder / "back.npz")[0], flatten(random_params(CONFIG)))
    path.rename(folder / "hf" / "model-00001-of-00002.safetensors")
    (folder / "hf" / "model.safetensors.index.json").write_text("{}")
    assert convert("hf_to_npz", folder / "hf", folder / "none.npz") == 1
    assert "is not the index of weights in several files" in capsys.readouterr().err
    shard = folder / "hf" / "model-00001-of-00002.safetensors"
    index = {"weight_map": dict.fromkeys(load_file(shard), shard.name)}
    (folder / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert convert("hf_to_npz", folder / "hf", folder / "shards.npz") == 0
    assert_same_tree(arrays(folder / "shards.npz")[0], flatten(random_params(CONFIG)))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_logits_are_those_of_hugging_face_and_timm(tmp_path, activation):
    options = {"activation": activation, "epsilon": 1e-2}
    config = tiny_model(**options)
    _write(tmp_path / "model.npz", Metadata("", 16, model_options=options), config)
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf") == 0
    assert convert("npz_to_timm", tmp_path / "model.npz", tmp_path / "model.pth") == 0
    pixels = random_images(4, 16).astype(np.float32) / 127.5 - 1
    ours = np.asarray(models.build(config).apply(random_params(config), pixels))
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    second = timm.models.vision_transformer.VisionTransformer(
        **shape, mlp_ratio=2, act_layer=activation, norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-2)
    )
    second.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True), strict=True)
    first = transformers.ViTForImageClassification.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        inputs = torch.tensor(pixels.transpose(0, 3, 1, 2))
        for theirs in (first.eval()(inputs).logits, second.eval()(inputs)):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)
    default = np.asarray(models.build(CONFIG).apply(random_params(CONFIG), pixels))
    assert np.abs(default - ours).max() > 1e-3
    assert convert("hf_to_npz", tmp_path / "hf", tmp_path / "back.npz") == 0
    assert arrays(tmp_path / "back.npz")[1].model_options == options


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTModel"])
def test_names_in_the_memory_of_transformers_are_read(folder, kind):
    model = getattr(transformers, kind).from_pretrained(folder / "hf")
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, folder / "state.bin")
    (folder / "state.bin").rename(folder / "hf" / "pytorch_model.bin")
    (folder / "hf" / "model.safetensors").unlink()
    _edit(folder / "hf" / "config.json", architectures=[kind])
    assert convert("hf_to_npz", folder / "hf", folder / "back.npz") == 0
    params = flatten(random_params(CONFIG))
    if kind == "ViTModel":
        params = {name: array for name, array in params.items() if not name.startswith("head/")}
    found = {name: array for name, array in arrays(folder / "back.npz")[0].items() if "pre_logits" not in name}
    assert_same_tree(found, params)


def _hub(tmp_path, **fields):
    """A folder as timm's hub publishes it."""
    _write(tmp_path / "model.npz", Metadata())
    assert convert("npz_to_timm", tmp_path / "model.npz", tmp_path / "weights.safetensors") == 0
    save_file(load_file(tmp_path / "weights.safetensors"), tmp_path / "model.safetensors")
    pretrained = {**IMAGENET, "input_size": [3, 16, 16], "crop_pct": 0.9, "interpolation": "bicubic"}
    config = {"architecture": "vit_tiny", "num_classes": 3, "label_names": ["a", "b", "c"]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": pretrained} | fields))
    return tmp_path / "model.safetensors"


def test_the_configuration_beside_timms_weights_is_recorded(tmp_path, capsys):
    source = _hub(tmp_path, model_args={"act_layer": "gelu", "num_heads": 2, "img_size": 16})
    capsys.readouterr()
    assert convert("timm_to_npz", source, tmp_path / "out.npz") == 0
    expected = Metadata("", 16, class_names=("a", "b", "c"), model_options={"activation": "gelu"}, **IMAGENET)
    expected = dataclasses.replace(expected, resize="centre_crop", origin="timm:vit_tiny")
    assert arrays(tmp_path / "out.npz")[1] == expected
    notes = capsys.readouterr().err
    assert "crops 0.9 of the resized side" in notes and "bicubic" in notes and "assumed" not in notes


def test_a_configuration_of_another_model_is_left_out_of_account(tmp_path, capsys):
    assert convert("timm_to_npz", _hub(tmp_path, num_classes=1000), tmp_path / "out.npz", "--heads=2") == 0
    assert arrays(tmp_path / "out.npz")[1] == Metadata("", 16, origin="timm")
    assert "is of a model with 1000 classes, but the weights have 3" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("[")
    assert convert("timm_to_npz", tmp_path / "model.safetensors", tmp_path / "other.npz", "--heads=2") == 0
    notes = capsys.readouterr().err
    assert "does not record its normalization" in notes and "the tanh form of the GELU is assumed" in notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_pool": "avg"}, "has global_pool='avg', but Google's Vision Transformers have 'token'"),
        ({"act_layer": "silu"}, "has act_layer='silu'"),
        ({"norm_layer": "rmsnorm"}, "has norm_layer='rmsnorm'"),
        ({"img_size": [8, 32]}, "has the size [8, 32], but only square images"),
    ],
)
def test_arguments_of_timm_that_google_lacks_are_refused(tmp_path, capsys, arguments, message):
    assert convert("timm_to_npz", _hub(tmp_path, model_args=arguments), tmp_path / "out.npz", "--heads=2") == 1
    assert message in capsys.readouterr().err


def test_a_record_in_the_file_itself_decides_over_a_configuration_beside_it(tmp_path):
    _hub(tmp_path)
    metadata = dataclasses.replace(FULL, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    _write(tmp_path / "full.npz", metadata)
    assert convert("npz_to_timm", tmp_path / "full.npz", tmp_path / "full.safetensors") == 0
    assert convert("timm_to_npz", tmp_path / "full.safetensors", tmp_path / "back.npz") == 0
    assert arrays(tmp_path / "back.npz")[1] == metadata


def test_a_folder_of_timm_is_not_taken_for_one_of_hugging_face(tmp_path, capsys):
    _hub(tmp_path)
    assert convert("hf_to_npz", tmp_path, tmp_path / "out.npz") == 1
    assert "is a folder of timm: give the file of weights in it to ppvit convert timm-to-npz" in capsys.readouterr().err


def test_options_set_what_a_file_does_not_record(tmp_path, capsys):
    source, names = _hub(tmp_path), tmp_path / "names.txt"
    names.write_text("x\ny\nü\n\n", encoding="utf-8")
    (tmp_path / "config.json").unlink()
    options = ["--heads=2", "--mean", *"012", "--std", *"123", f"--class-names={names}", "--activation=quick_gelu"]
    assert convert("timm_to_npz", source, tmp_path / "out.npz", *options) == 0
    found = arrays(tmp_path / "out.npz")[1]
    assert (found.mean, found.std, found.class_names) == ((0, 1, 2), (1, 2, 3), ("x", "y", "ü"))
    assert found.model_options == {"activation": "quick_gelu"}
    capsys.readouterr()
    for wrong, message in (
        (["--mean", *"012"], "--mean and --std belong together"),
        (["--mean", *"012", "--std", *"120"], "--std is 0.0: give a positive number"),
        (["--mean", "nan", "0", "0", "--std", *"123"], "--mean is nan: give"),
        (["--mean", "123", "116", "103", "--std", "58", "57", "57"], "divide those of values from 0 to 255 by 255"),
        ([f"--class-names={tmp_path}"], "cannot read --class-names"),
        ([f"--class-names={source}"], "is not UTF-8"),
    ):
        assert convert("timm_to_npz", source, tmp_path / "no.npz", "--heads=2", *wrong) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_class_names_that_do_not_fit_the_head_are_refused_if_given(tmp_path, capsys):
    source, names = _hub(tmp_path), tmp_path / "names.txt"
    names.write_text("x\ny\n")
    assert convert("timm_to_npz", source, tmp_path / "out.npz", "--heads=2", f"--class-names={names}") == 1
    assert "has 2 names, but the head 3 outputs" in capsys.readouterr().err
