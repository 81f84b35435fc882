"""Tests of models as ONNX files, which onnxruntime runs."""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.marks import mark_slow
from helpers.tiny import random_images, random_params, tiny_model
from helpers.tiny_families import CASES, HALF, IMAGENET, tiny_family

from ppvit_jax import export, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.errors import UserError
from ppvit_jax.export import onnx_file


def _run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images})
    return np.asarray(logits)


def _expected(config, params, images, metadata):
    mean, std = metadata.normalization
    return np.asarray(models.build(config).apply(params, normalize_images(images, mean, std, "float32")))


@pytest.mark.parametrize("case", mark_slow(CASES, but=["DeiT distilled"]))
def test_onnxruntime_computes_the_models_logits_for_batches_of_any_size(case, tmp_path):
    config, path = tiny_family(case), tmp_path / "model.onnx"
    params, images = random_params(config), random_images(5, 16)
    mean, std = HALF if "SigLIP" in case else IMAGENET
    metadata = Metadata(mean=mean, std=std)
    export.write_onnx(path, config, params, metadata)

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.value_info}
    assert shapes.keys() == {name for node in model.graph.node for name in node.output} - {"logits"}
    output = shapes["Transformer/encoderblock_1/output"]
    assert [dim.dim_param or dim.dim_value for dim in output] == ["batch", 16 + config.layout.prefix_tokens, 16]
    assert (model.opset_import[0].version, model.ir_version) == (20, 9)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used

    expected = _expected(config, params, images, metadata)
    assert expected.std() > 0.1
    for count in (1, 5):
        logits = _run(path, images[:count])
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_weights_of_a_large_model_are_in_a_second_file(tmp_path, monkeypatch):
    config = tiny_model(image_size=32)
    monkeypatch.setattr(onnx_file, "_ALIGNMENT", 512)
    params, images, metadata = random_params(config), random_images(2, 32), Metadata()
    path = tmp_path / "model.onnx"
    export.write_onnx(path, config, params, metadata, largest=1000)
    weights = onnx_file.weights_path(path)
    assert sorted(tmp_path.iterdir()) == [path, weights]
    onnx.checker.check_model(str(path), full_check=True)
    np.testing.assert_allclose(_run(path, images), _expected(config, params, images, metadata), rtol=0, atol=1e-4)
    model = onnx.load(path, load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.external_data]
    assert len(outside) > 10 and sum(np.prod(tensor.dims) * 4 for tensor in outside) <= weights.stat().st_size

    other = tmp_path / "other.onnx"
    onnx_file.weights_path(other).touch()
    with pytest.raises(UserError, match=r"other.onnx.data exists, .*: choose another name"):
        export.write_onnx(other, config, params, metadata, largest=1000)
    assert not other.exists() and onnx_file.weights_path(other).exists()


def test_neither_file_is_left_if_one_cannot_be_written(tmp_path, monkeypatch):
    config = tiny_model()
    monkeypatch.setattr(onnx_file, "_ALIGNMENT", 512)
    monkeypatch.setattr(onnx_file, "_to_model", lambda *arguments: 1 / 0)
    for largest in (1000, 10**9):
        with pytest.raises(ZeroDivisionError):
            export.write_onnx(tmp_path / "model.onnx", config, random_params(config), Metadata(), largest=largest)
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_other_families_and_dtypes_are_refused_before_anything_is_written(tmp_path):
    convmixer = models.parse_name("ConvMixer-16/2", image_size=16, num_classes=3)
    with pytest.raises(UserError, match=r"ONNX is for Vision Transformers, .* ConvMixer: .* \.stablehlo"):
        export.write_onnx(tmp_path / "model.onnx", convmixer, {}, Metadata())
    with pytest.raises(UserError, match=r"float32, .* bfloat16 on a CPU: leave --dtype out"):
        export.write_onnx(tmp_path / "model.onnx", tiny_model(dtype="bfloat16"), {}, Metadata())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_vit_b_16_at_full_size(tmp_path):
    config = models.parse_name("ViT-B/16", image_size=224, num_classes=1000)
    params, images, metadata = random_params(config), random_images(2, 224), Metadata()
    export.write_onnx(tmp_path / "model.onnx", config, params, metadata)
    expected = jax.jit(lambda params, images: models.build(config).apply(params, images))(
        params, normalize_images(images, *metadata.normalization, "float32")
    )
    np.testing.assert_allclose(_run(tmp_path / "model.onnx", images), expected, rtol=0, atol=1e-4)
