"""Conversions between Google's `.npz` and Hugging Face, compared with its models, loader and image processor."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers.convert import CLASSES, arrays, convert, encrypted_files, logits, randomize, tiny_vit, write_model
from helpers.pytorch import torch, transformers
from helpers.tiny import assert_same_tree, flatten, random_images, random_params
from PIL import Image

from ppvit_jax import checkpoint, models

CONFIG = tiny_vit()


def _logits(model, pixels):
    with torch.no_grad():
        return model.eval()(torch.as_tensor(pixels)).logits.numpy()


def _pixels(images):
    return images.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture
def folder(tmp_path):
    """A folder with model.npz and the folder hf, made from it."""
    write_model(tmp_path / "model.npz", CONFIG)
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf") == 0
    return tmp_path


@pytest.mark.slow
def test_its_loader_loads_what_we_write_whole_and_computes_the_same(folder):
    model, report = transformers.ViTForImageClassification.from_pretrained(folder / "hf", output_loading_info=True)
    assert not any(report.values()), report
    assert [model.config.id2label[number] for number in range(len(CLASSES))] == list(CLASSES)
    images = random_images(3, CONFIG.image_size)
    expected = logits(random_params(CONFIG), CONFIG, images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(_logits(model, _pixels(images)), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "tolerance"), [("ViT-Ti/16", 64, 1e-5), ("ViT-B/16", 224, 1e-4)])
def test_an_adapted_model_on_encrypted_files_gives_our_logits(tmp_path, name, size, tolerance):
    """The image processor of the folder preprocesses the files."""
    config = tiny_vit(size, name)
    params, metadata = write_model(tmp_path / "model.npz", config, adapted=True)
    paths, plain = encrypted_files(tmp_path, config)
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf") == 0
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    pixels = processor([Image.open(path) for path in paths], return_tensors="pt")["pixel_values"]
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path / "hf")
    theirs = _logits(model, pixels)
    encrypted = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_allclose(theirs, logits(params, config, encrypted), rtol=0, atol=tolerance)
    np.testing.assert_allclose(theirs, logits(random_params(config), config, plain), rtol=0, atol=tolerance)
    assert model.config.ppvit["key_fingerprint"] == metadata.key_fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True])
def test_there_and_back_is_the_same_checkpoint(tmp_path, adapted):
    _, metadata = write_model(tmp_path / "model.npz", CONFIG, adapted=adapted)
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf") == 0
    assert convert("hf_to_npz", tmp_path / "hf", tmp_path / "back.npz") == 0
    assert_same_tree(arrays(tmp_path / "back.npz")[0], arrays(tmp_path / "model.npz")[0])
    assert arrays(tmp_path / "back.npz")[1] == metadata


def _random_model(kind=None, **fields):
    fields = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_labels": len(CLASSES)} | fields
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=64, **fields
    )
    return randomize((kind or transformers.ViTForImageClassification)(config))


@pytest.mark.slow
@pytest.mark.parametrize("safe", [True, False])
def test_what_it_saves_is_read(tmp_path, safe, capsys):
    model = _random_model(id2label={number: f"kind {number}" for number in range(5)})
    model.save_pretrained(tmp_path / "hf")
    if not safe:
        # Older files have this form, which transformers 5 no longer writes.
        from safetensors.torch import load_file

        torch.save(load_file(tmp_path / "hf" / "model.safetensors"), tmp_path / "hf" / "pytorch_model.bin")
        (tmp_path / "hf" / "model.safetensors").unlink()
    capsys.readouterr()
    assert convert("hf_to_npz", tmp_path / "hf", tmp_path / "model.npz") == 0
    assert "warning" not in capsys.readouterr().err
    found, metadata = arrays(tmp_path / "model.npz")
    names = tuple(f"kind {i}" for i in range(5))
    assert metadata == checkpoint.Metadata("ViT-Ti/16", 64, class_names=names, origin="transformers:vit")
    images = random_images(3, 64)
    params = checkpoint.to_params(found, CONFIG, keep_head=True)
    theirs = _logits(model, _pixels(images))
    assert theirs.std() > 0.1
    np.testing.assert_allclose(logits(params, CONFIG, images), theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_pooler_is_pre_logits(tmp_path):
    _random_model(transformers.ViTModel, pooler_output_size=24).save_pretrained(tmp_path / "hf")
    assert convert("hf_to_npz", tmp_path / "hf", tmp_path / "model.npz") == 0
    found, _ = arrays(tmp_path / "model.npz")
    assert found["pre_logits/kernel"].shape == (192, 24) and "head/kernel" not in found
    model = transformers.ViTModel.from_pretrained(tmp_path / "hf")
    images = random_images(2, 64)
    config = tiny_vit(representation_size=24)
    head = {"kernel": np.eye(24, 5, dtype=np.float32), "bias": np.zeros(5, np.float32)}
    arrays_with_head = found | {f"head/{name}": array for name, array in head.items()}
    with torch.no_grad():
        pooled = model.eval()(torch.as_tensor(_pixels(images))).pooler_output.numpy()
    ours = logits(checkpoint.to_params(arrays_with_head, config, keep_head=True), config, images)
    np.testing.assert_allclose(ours, pooled[:, :5], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_exact_gelu_and_another_epsilon_are_recorded_and_computed(tmp_path, capsys):
    model = _random_model(hidden_act="gelu", layer_norm_eps=1e-3)
    model.save_pretrained(tmp_path / "hf")
    capsys.readouterr()
    assert convert("hf_to_npz", tmp_path / "hf", tmp_path / "model.npz") == 0
    assert "warning" not in capsys.readouterr().err
    found, metadata = arrays(tmp_path / "model.npz")
    assert metadata.model_options == {"activation": "gelu", "epsilon": 1e-3}
    config = models.infer_config(found, where="it", options=metadata.model_options)
    images = random_images(3, 64)
    theirs = _logits(model, _pixels(images))
    ours = logits(checkpoint.to_params(found, config, keep_head=True), config, images)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert np.abs(logits(checkpoint.to_params(found, CONFIG, keep_head=True), CONFIG, images) - theirs).max() > 1e-4
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "back") == 0
    back = transformers.ViTForImageClassification.from_pretrained(tmp_path / "back")
    assert (back.config.hidden_act, back.config.layer_norm_eps) == ("gelu", 1e-3)
    np.testing.assert_array_equal(_logits(back, _pixels(images)), theirs)


def test_labels_without_names_stay_so(tmp_path):
    checkpoint.write(tmp_path / "model.npz", random_params(CONFIG), checkpoint.Metadata())
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf") == 0
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"]["0"] == "LABEL_0"
    del config["ppvit"]
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    assert convert("hf_to_npz", tmp_path / "hf", tmp_path / "back.npz") == 0
    half = (0.5, 0.5, 0.5)
    expected = checkpoint.Metadata("ViT-Ti/16", 64, mean=half, std=half, resize="squash", origin="transformers:vit")
    assert arrays(tmp_path / "back.npz")[1] == expected


@pytest.mark.slow
def test_without_head_it_is_the_bare_model(tmp_path):
    write_model(tmp_path / "model.npz", tiny_vit(representation_size=24))
    assert convert("npz_to_hf", tmp_path / "model.npz", tmp_path / "hf", "--without-head") == 0
    _, report = transformers.ViTModel.from_pretrained(
        tmp_path / "hf", add_pooling_layer=False, output_loading_info=True
    )
    assert not any(report.values()), report


def _configuration(**fields):
    def change(folder):
        path = folder / "hf" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


MISTAKES = {
    "no folder": (lambda f: shutil.rmtree(f / "hf"), "cannot read .*config.json"),
    "no weights": (lambda f: (f / "hf" / "model.safetensors").unlink(), "has neither model.safetensors nor pytorch"),
    "no configuration": (lambda f: (f / "hf" / "config.json").unlink(), "cannot read .*config.json"),
    "a damaged configuration": (lambda f: (f / "hf" / "config.json").write_text("{"), "is not the configuration"),
    "a list": (lambda f: (f / "hf" / "config.json").write_text("[]"), "is not the configuration"),
    "another type": (
        _configuration(model_type="detr"),
        "is a model of type 'detr', .*: it detects objects",
    ),
    "another activation": (_configuration(hidden_act="relu"), "has the activation 'relu'"),
    "impossible heads": (_configuration(num_attention_heads=5), "hidden size of 192"),
    "damaged labels": (_configuration(ppvit=None, id2label={"a": "b"}), "is damaged: its labels"),
    "truncated": (
        lambda f: (f / "hf" / "model.safetensors").write_bytes((f / "hf" / "model.safetensors").read_bytes()[:5000]),
        "as safetensors",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(folder, capsys, mistake):
    make, message = MISTAKES[mistake]
    make(folder)
    capsys.readouterr()
    assert convert("hf_to_npz", folder / "hf", folder / "out.npz") == 1
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not [path for path in folder.iterdir() if path.name not in ("hf", "model.npz")]


@pytest.mark.slow
def test_what_it_cannot_be_is_refused(folder, capsys):
    assert convert("npz_to_hf", folder / "model.npz", folder / "hf") == 1
    assert "exists: choose another name" in capsys.readouterr().err
    with_layer = tiny_vit(representation_size=24)
    checkpoint.write(folder / "layer.npz", random_params(with_layer), checkpoint.Metadata())
    assert convert("npz_to_hf", folder / "layer.npz", folder / "layer") == 1
    assert "has a pre_logits layer" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["hf", "layer.npz", "model.npz"]
    assert flatten(random_params(with_layer)).keys() >= {"pre_logits/kernel"}
