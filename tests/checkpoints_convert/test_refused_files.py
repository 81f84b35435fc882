"""Files and folders of models that cannot be read: one line each, which says what they are and why."""

import json
import shutil
import struct

import numpy as np
import pytest
from helpers.command import make_key, run_ppvit
from helpers.published import publish
from safetensors.numpy import load_file, save_file

from ppvit_jax import checkpoint
from ppvit_jax.errors import UserError

TYPES = {
    "bert": "it is a model of texts",
    "roberta": "it is a model of texts",
    "distilbert": "it is a model of texts",
    "llama": "it is a model of texts",
    "detr": "it detects objects",
    "yolos": "it detects objects",
    "siglip2": "NaFlex",
    "swin": "windows",
    "beit": "relative positions",
    "convnext": "convolutions",
    "vit_hybrid": "adaptation is not exact",
    "levit": "adaptation is not exact",
}
ARCHITECTURES = {
    "naflexvit_base_patch16_siglip": "NaFlex",
    "swin_tiny_patch4_window7_224": "windows",
    "beit_base_patch16_224": "relative positions",
    "eva02_tiny_patch14_224": "rotary positions",
    "vit_small_patch16_rope_224": "rotary positions",
    "convnext_tiny": "convolutions",
    "vit_base_r50_s16_224": "adaptation is not exact",
    "xcit_tiny_12_p16_224": "adaptation is not exact",
}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dinov2") / "folder"
    publish(folder, "Hugging Face: DINOv2")
    return folder


@pytest.mark.parametrize("kind", TYPES)
def test_another_type_of_hugging_face_is_refused_with_the_reason(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    save_file({"embeddings.word_embeddings.weight": np.ones((3, 3), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"is a model of type '{kind}', but only .*{TYPES[kind]}"):
        checkpoint.open_checkpoint(tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_another_architecture_of_timm_is_refused_with_the_reason(tmp_path, architecture):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    save_file({"norm.weight": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=f"is a {architecture}, which cannot be converted: .*{ARCHITECTURES[architecture]}"
    ):
        checkpoint.open_checkpoint(tmp_path)


NAMES = {
    "swin": ("layers.0.blocks.0.attn.relative_position_bias_table", "windows or relative positions"),
    "a BEiT": ("blocks.0.attn.relative_position_bias_table", "windows or relative positions"),
    "an EVA": ("rope.freqs", "rotary or relative positions"),
    "a ConvNeXt": ("stages.0.blocks.0.conv_dw.weight", "stages of a convolutional network"),
    "a hybrid": ("patch_embed.backbone.stem.conv.weight", "convolutional or normalized patch embedding"),
    "OpenCLIP's own": ("visual.conv1.weight", "image and text towers of CLIP"),
}


@pytest.mark.parametrize("name", NAMES)
def test_another_model_is_known_by_its_tensors_without_a_configuration(tmp_path, name):
    tensor, reason = NAMES[name]
    save_file({tensor: np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=reason):
        checkpoint.open_checkpoint(tmp_path / "model.safetensors")


def _file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


LIES = {
    "a length beyond the file": (_file({}, b"", 2**31), "its header claims 2,147,483,648 bytes, but the file has 10"),
    "a tensor beyond the file": (_file({"a": _entry(0, 8)}, bytes(4)), "ends at byte 8 of 4: the file is truncated"),
    "overlapping tensors": (_file({"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12)), "a gap before 'b'"),
    "a gap": (_file({"a": _entry(4, 12)}, bytes(12)), "a gap before 'a'"),
    "bytes after the tensors": (_file({"a": _entry(0, 8)}, bytes(9)), "its tensors have 8 bytes, but the file 9"),
    "another shape": (_file({"a": _entry(0, 8, (3,))}, bytes(8)), "has 8 bytes for 'a'"),
    "a negative size": (_file({"a": _entry(0, 8, (-2, -1))}, bytes(8)), "impossible shape or data_offsets for 'a'"),
    "offsets that go back": (_file({"a": _entry(8, 0)}, bytes(8)), "has -8 bytes for 'a'"),
    "a huge size": (_file({"a": _entry(0, 8, (2**40, 2**40))}, bytes(8)), "has 8 bytes for 'a'"),
    "a fraction": (_file({"a": _entry(0, 8.0)}, bytes(8)), "impossible shape or data_offsets for 'a'"),
    "True": (_file({"a": _entry(False, 8)}, bytes(8)), "impossible shape or data_offsets for 'a'"),
    "no offsets": (_file({"a": {"dtype": "F32"}}), "no dtype, shape and data_offsets for 'a'"),
    "a name twice": (_file(b'{"a":{},"a":{}}'), "a name twice"),
    "no JSON": (_file(b"{abcdefg"), "is not JSON"),
    "deep JSON": (_file(b'{"a":' * 100_000), "is not JSON"),
    "texts that are none": (_file({"__metadata__": {"a": 1}}), "a field __metadata__ that is not texts"),
    "eight bits": (_file({"a": _entry(0, 2, dtype="F8_E4M3")}, bytes(2)), "has a as F8_E4M3, and quantized"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_gives_one_line(tmp_path, lie):
    content, message = LIES[lie]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError) as error:
        checkpoint.open_checkpoint(tmp_path / "model.safetensors")
    assert message in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_header_that_is_too_long_is_not_read(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 200_000_000) + b"{")
        file.truncate(200_000_008)
    with pytest.raises(UserError, match="its header has 200,000,000 bytes, but at most 100,000,000 are allowed"):
        checkpoint.open_checkpoint(tmp_path / "model.safetensors")


SHARDS = {
    "a missing one": ({"a": "one.safetensors", "b": "two.safetensors"}, "lacks two.safetensors, one of the 2 files"),
    "a path": ({"a": "../one.safetensors"}, "names the file '../one.safetensors', which is not in its own folder"),
    "an absolute path": ({"a": "/etc/passwd"}, "names the file '/etc/passwd', which is not in its own folder"),
    "a tensor less": ({"a": "one.safetensors", "c": "one.safetensors"}, "expects c in one.safetensors, which lacks it"),
    "PyTorch": ({"a": "one.bin"}, "names one.bin, but several files can be read as .safetensors alone"),
    "nothing": ({}, "is not the index of weights"),
    "numbers": ({"a": 1}, "is not the index of weights"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SHARDS)
def test_an_index_that_does_not_fit_its_files_gives_one_line(tmp_path, mistake):
    places, message = SHARDS[mistake]
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match=message):
        checkpoint.open_checkpoint(tmp_path)


def _configure(**fields):
    return lambda config: config | fields


CONFIGURATIONS = {
    "another patch size": (_configure(patch_size=16), "has patch_size=16 in config.json, but its weights have 8"),
    "another image size": (_configure(image_size=64), "has image_size=64 in config.json, but its weights have 32"),
    "fewer layers": (_configure(num_hidden_layers=1), "has num_hidden_layers=1 in config.json"),
    "another class": (_configure(architectures=["Dinov2Backbone"]), "is a Dinov2Backbone, but only"),
    "another family": (_configure(model_type="clip_vision_model", architectures=[]), "is not a CLIP of Hugging Face"),
    "an unknown activation": (_configure(hidden_act="relu"), "has the activation 'relu'"),
    "a size of text": (_configure(patch_size="8"), "has patch_size='8'"),
}


@pytest.mark.parametrize("mistake", CONFIGURATIONS)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(tmp_path, dinov2, mistake):
    change, message = CONFIGURATIONS[mistake]
    shutil.copytree(dinov2, tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        checkpoint.open_checkpoint(tmp_path / "folder")


def test_what_is_no_number_is_named_by_its_tensor(tmp_path, dinov2):
    shutil.copytree(dinov2, tmp_path / "folder")
    path = tmp_path / "folder" / "model.safetensors"
    state = load_file(path)
    save_file(state | {"dinov2.layernorm.bias": np.full(32, np.nan, np.float32)}, path)
    with pytest.raises(UserError, match=r"not finite .* in dinov2.layernorm.bias"):
        checkpoint.open_checkpoint(tmp_path / "folder")
    save_file({name: tensor for name, tensor in state.items() if "layernorm" not in name}, path)
    with pytest.raises(UserError, match="does not fit the model: missing Transformer/encoder_norm/bias"):
        checkpoint.open_checkpoint(tmp_path / "folder")


def test_commands_print_the_line_alone(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "empty").mkdir()
    key = make_key(tmp_path)
    for folder, message in ((tmp_path, "has no weights"), (tmp_path / "empty", "has no weights")):
        capsys.readouterr()
        assert run_ppvit("adapt", "--key", key, "--checkpoint", folder, "--output", tmp_path / "out.npz") == 1
        errors = capsys.readouterr().err
        assert message in errors and errors.startswith("error: ") and errors.count("\n") == 1
