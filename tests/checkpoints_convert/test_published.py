"""Models as they are published: read into our arrays, adapted without a conversion, restored and written back."""

import dataclasses
import json
import shutil
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import make_key, run_ppvit
from helpers.convert import convert
from helpers.marks import mark_slow
from helpers.published import HALF, NAMES, has_head, load, normalization, outputs, publish
from helpers.pytorch import torch
from helpers.tiny import assert_same_tree, flatten, random_images, random_params, tiny_model
from PIL import Image
from safetensors.numpy import load_file, save_file

from checkpoints_convert import published
from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.errors import UserError

IMAGES = random_images(2, 32)


def compute(arrays, metadata, images=IMAGES):
    """Returns our logits, or the pooled features of a model without a head, of images."""
    config: Any = models.infer_config(
        arrays, where="it", image_size=metadata.image_size, options=metadata.model_options
    )
    if not config.num_classes:
        width = config.hidden_size
        arrays = {**arrays, "head/kernel": np.eye(width, dtype=np.float32), "head/bias": np.zeros(width, np.float32)}
        config = dataclasses.replace(config, num_classes=width)
    params = unflatten_dict({name: arrays[name] for name in models.parameter_shapes(config)}, sep="/")
    mean, std = metadata.normalization
    pixels = normalize_images(images, mean, std, "float32")
    return np.asarray(jax.jit(models.build(config).apply)(params, pixels))


@pytest.mark.slow
def test_a_dinov3_is_restored_into_our_format_alone(tmp_path, capsys):
    model, key = publish(tmp_path / "folder", "Hugging Face: DINOv3"), make_key(tmp_path)
    expected = outputs(model, "Hugging Face: DINOv3", IMAGES)
    np.testing.assert_allclose(compute(*published.read(tmp_path / "folder")), expected, rtol=0, atol=1e-4)
    adapted, restored = tmp_path / "adapted.npz", tmp_path / "restored.npz"
    assert run_ppvit("adapt", "--key", key, "--checkpoint", tmp_path / "folder", "--output", adapted) == 0
    arguments = ("restore", "--key", key, "--checkpoint", adapted, "--output")
    assert run_ppvit(*arguments, f"{tmp_path}/tuned/") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "but not written to them; give --output a name that ends with .npz" in error
    assert not (tmp_path / "tuned").exists()
    assert run_ppvit(*arguments, restored) == 0
    np.testing.assert_allclose(compute(*checkpoint.read(restored)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "name", mark_slow([name for name in NAMES if "DINOv3" not in name], but=["timm: DINOv2", "Hugging Face: ViT"])
)
def test_a_published_model_is_read_adapted_restored_and_loaded_by_its_program(tmp_path, capsys, name):
    model, key = publish(tmp_path / "folder", name), make_key(tmp_path)
    own, theirs = normalization(name), outputs(model, name, IMAGES)
    arrays, metadata = published.read(tmp_path / "folder")
    assert {"mean": metadata.mean, "std": metadata.std} == own
    assert ("head/kernel" in arrays) == has_head(name) and theirs.std() > 0.1
    np.testing.assert_allclose(compute(arrays, metadata), theirs, rtol=0, atol=1e-4)

    adapted, tuned = tmp_path / "adapted.npz", tmp_path / "tuned"
    assert run_ppvit("adapt", "--key", key, "--checkpoint", tmp_path / "folder", "--output", adapted) == 0
    _, record = checkpoint.read(adapted)
    assert record.mean == record.std == (0.5,) * 3
    assert (record.own_mean, record.own_std) == (((), ()) if own == HALF else (own["mean"], own["std"]))
    status = run_ppvit("restore", "--key", key, "--checkpoint", adapted, "--output", f"{tuned}/")
    assert status == 0, capsys.readouterr().err
    restored = load(tuned, name)
    found = outputs(restored, name, IMAGES)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-4)
    back, record = published.read(tuned)
    assert dataclasses.replace(record, resize="", model_options={}) == dataclasses.replace(
        metadata, resize="", model_options={}
    )
    for array in arrays:
        np.testing.assert_allclose(back[array], arrays[array], rtol=0, atol=1e-6)


def test_precisions_forms_of_files_and_shards_give_the_same_model(tmp_path):
    publish(tmp_path / "folder", "timm: DINOv2")
    state, config = load_file(tmp_path / "folder" / "model.safetensors"), tmp_path / "folder" / "config.json"
    whole, metadata = published.read(tmp_path / "folder")
    for number, dtype in enumerate([np.float16, ml_dtypes.bfloat16]):
        (folder := tmp_path / str(number)).mkdir()
        shutil.copy(config, folder)
        save_file({name: tensor.astype(dtype) for name, tensor in state.items()}, folder / "model.safetensors")
        arrays, record = published.read(folder)
        assert record == metadata and {str(array.dtype) for array in arrays.values()} == {np.dtype(dtype).name}
        assert all((arrays[name] == whole[name].astype(dtype)).all() for name in whole)
    (folder := tmp_path / "torch").mkdir()
    shutil.copy(config, folder)
    torch.save({"state_dict": {name: torch.as_tensor(tensor) for name, tensor in state.items()}}, folder / "model.pth")
    arrays, record = published.read(folder / "model.pth", skip=("head/",))
    assert_same_tree(arrays, {name: array for name, array in whole.items() if not name.startswith("head/")})
    assert record == dataclasses.replace(metadata, class_names=())
    (folder := tmp_path / "shards").mkdir()
    shutil.copy(config, folder)
    write_shards(folder, state)
    arrays, record = published.read(folder)
    assert_same_tree(arrays, whole)
    assert record == metadata


def write_shards(folder, state):
    """Writes tensors in two files with an index."""
    names = sorted(state)
    places = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("stacked", [False, True])
def test_the_image_tower_of_big_visions_siglip_is_read(tmp_path, stacked):
    publish(tmp_path / "folder", "timm: SigLIP")
    arrays, _ = published.read(tmp_path / "folder", skip=("head/",))
    renamed = (("LayerNorm_2", "LayerNorm_1"), ("MlpBlock_3", "MlpBlock_0"), ("Attention_1", "Attention_0"))
    theirs = {}
    for name, array in arrays.items():
        for ours, other in renamed if name.startswith("Transformer/") else ():
            name = name.replace(ours, other)
        theirs[name] = array
    if stacked:
        for name in [name for name in theirs if "encoderblock_0/" in name]:
            blocks = [theirs.pop(name.replace("_0/", f"_{number}/", 1)) for number in range(2)]
            theirs[name.replace("encoderblock_0", "encoderblock")] = np.stack(blocks)
    named: dict[str, Any] = {f"params/img/{name}": array for name, array in theirs.items()}
    named |= {"params/txt/head/bias": np.ones(3), "params/t": np.ones(1)}
    with (tmp_path / "siglip.npz").open("wb") as file:
        np.savez(file, **named)
    for read in (published.read, checkpoint.open_checkpoint):
        found, metadata = read(tmp_path / "siglip.npz")
        assert_same_tree(found, arrays)
        assert (metadata.mean, metadata.std) == ((0.5,) * 3, (0.5,) * 3)
    assert convert("big_vision_to_npz", tmp_path / "siglip.npz", tmp_path / "ours.npz") == 0
    assert_same_tree(checkpoint.read(tmp_path / "ours.npz")[0], arrays)


def test_a_head_that_hugging_face_has_no_class_for_is_named(tmp_path, capsys):
    publish(tmp_path / "folder", "Hugging Face: CLIP")
    arrays, metadata = published.read(tmp_path / "folder")
    arrays |= {"head/kernel": np.ones((32, 2), np.float32), "head/bias": np.ones(2, np.float32)}
    key = make_key(tmp_path)
    checkpoint.write(tmp_path / "tuned.npz", unflatten_dict(arrays, sep="/"), metadata)
    adapt = ("adapt", "--key", key, "--checkpoint", tmp_path / "tuned.npz", "--output", tmp_path / "adapted.npz")
    assert run_ppvit(*adapt) == 0
    capsys.readouterr()
    options = ("--key", key, "--checkpoint", tmp_path / "adapted.npz")
    assert run_ppvit("restore", *options, "--output", f"{tmp_path}/out/") == 1
    errors = capsys.readouterr().err
    assert "pooled by 'token', but Hugging Face's classifier" in errors and errors.count("\n") == 1
    assert "ends with .npz" in errors and not (tmp_path / "out").exists()
    assert run_ppvit("restore", *options, "--output", tmp_path / "out.npz") == 0


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "token_mean"])
def test_a_new_head_on_dinov2_is_written_to_hugging_faces_classifier(tmp_path, pool):
    publish(tmp_path / "folder", "Hugging Face: DINOv2")
    arrays, metadata = published.read(tmp_path / "folder", skip=("head/",))
    width = 32 if pool == "token" else 64
    kernel = np.random.default_rng(0).standard_normal((width, 5)).astype(np.float32)
    arrays |= {"head/kernel": kernel, "head/bias": np.ones(5, np.float32)}
    options = {} if pool == "token" else {"pool": pool}
    metadata = dataclasses.replace(metadata, model_options=options)
    checkpoint.write_folder(tmp_path / "tuned", unflatten_dict(arrays, sep="/"), metadata)
    theirs = outputs(load(tmp_path / "tuned", "Hugging Face: DINOv2"), "Hugging Face: DINOv2", IMAGES)
    np.testing.assert_allclose(compute(arrays, metadata), theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_head_on_the_class_token_of_a_distilled_deit_is_written_to_both_heads_of_timm(tmp_path):
    name = "timm: DeiT distilled"
    publish(tmp_path / "folder", name)
    arrays, metadata = published.read(tmp_path / "folder")
    arrays = {array: value for array, value in arrays.items() if not array.startswith("head_dist/")}
    metadata = dataclasses.replace(metadata, model_options={"pool": "token"})
    checkpoint.write_folder(tmp_path / "tuned", unflatten_dict(arrays, sep="/"), metadata)
    theirs = outputs(load(tmp_path / "tuned", name), name, IMAGES)
    np.testing.assert_allclose(compute(arrays, metadata), theirs, rtol=0, atol=1e-4)


def test_names_of_hugging_face_without_config_need_it(tmp_path, capsys):
    publish(tmp_path / "folder", "Hugging Face: DINOv2")
    (tmp_path / "folder" / "config.json").unlink()
    with pytest.raises(UserError, match=r"names of Hugging Face, but no config.json beside it"):
        published.read(tmp_path / "folder")


@pytest.mark.slow
def test_restore_into_a_folder_needs_the_program_that_the_model_came_from(tmp_path, capsys):
    key = make_key(tmp_path)
    plain, adapted = tmp_path / "plain.npz", tmp_path / "adapted.npz"
    checkpoint.write(plain, random_params(tiny_model()), Metadata("", 16))
    assert run_ppvit("adapt", "--key", key, "--checkpoint", plain, "--output", adapted) == 0
    capsys.readouterr()
    assert run_ppvit("restore", "--key", key, "--checkpoint", adapted, "--output", f"{tmp_path}/out/") == 1
    errors = capsys.readouterr().err
    assert "does not record that it came from timm or Hugging Face" in errors and errors.count("\n") == 1
    # A name without an ending is a file, as ever.
    assert run_ppvit("restore", "--key", key, "--checkpoint", adapted, "--output", tmp_path / "out") == 0
    assert_same_tree(checkpoint.read(tmp_path / "out")[0], flatten(random_params(tiny_model())))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DINOv2 with registers", "DeiT distilled", "SigLIP by the mean"])
def test_the_scripts_convert_the_families_there_and_back(tmp_path, name):
    """timm's class token with registers contains its position, and Hugging Face's does not."""
    for program, script in (("timm", "timm_to_npz"), ("Hugging Face", "hf_to_npz")):
        folder, title = tmp_path / program, f"{program}: {name}"
        model = publish(folder, title)
        source = folder / "model.safetensors" if program == "timm" else folder
        assert convert(script, source, tmp_path / f"{program}.npz") == 0
        arrays, _ = checkpoint.read(tmp_path / f"{program}.npz")
        assert convert("npz_to_timm", tmp_path / f"{program}.npz", tmp_path / f"{program}.safetensors") == (
            1 if title == "Hugging Face: DINOv2 with registers" else 0
        )
        if title == "timm: DINOv2 with registers" or program == "Hugging Face":
            assert convert("npz_to_hf", tmp_path / f"{program}.npz", tmp_path / f"{program}_back") == 0
            back = load(tmp_path / f"{program}_back", f"Hugging Face: {name}")
            theirs = outputs(model, title, IMAGES)
            np.testing.assert_allclose(outputs(back, f"Hugging Face: {name}", IMAGES), theirs, rtol=0, atol=1e-4)
        if program == "timm":
            assert convert(script, tmp_path / "timm.safetensors", tmp_path / "back.npz") == 0
            assert_same_tree(checkpoint.read(tmp_path / "back.npz")[0], arrays)


@pytest.mark.slow
def test_info_and_predict_take_a_folder(tmp_path, capsys):
    name = "Hugging Face: DINOv2"
    model = publish(tmp_path / "folder", name)
    assert run_ppvit("info", tmp_path / "folder") == 0
    facts = capsys.readouterr().out
    for text in ("DINOv2", "32x32, patches of 8x8", "mean (0.485, 0.456, 0.406)", "token_mean"):
        assert text in facts, facts
    assert run_ppvit("info", tmp_path / "folder" / "model.safetensors") == 0
    assert capsys.readouterr().out == facts
    (images := tmp_path / "images").mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(images / f"{number}.png")
    arguments = ("--checkpoint", tmp_path / "folder", "--input", images, "--output", tmp_path / "out.npz")
    assert run_ppvit("predict", *arguments) == 0
    found = np.load(tmp_path / "out.npz")["logits"]
    np.testing.assert_allclose(found, outputs(model, name, IMAGES), rtol=0, atol=1e-4)
