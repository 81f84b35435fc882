"""Tests of models as StableHLO programs for several platforms."""

import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.command import ROOT
from helpers.pages import blocks
from helpers.tiny import random_images, random_params, tiny_model
from helpers.tiny_families import CASES, IMAGENET, tiny_family

import ppvit_jax
from ppvit_jax import export, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.errors import UserError
from ppvit_jax.export import stablehlo

METADATA = Metadata(mean=IMAGENET[0], std=IMAGENET[1], class_names=("cat", "dog", "owl"))


def _expected(config, params, images, statistics=None):
    images = normalize_images(images, *METADATA.normalization, config.dtype)
    return np.asarray(models.build(config).apply(params, images, statistics))


def _compare(config, params, statistics, folder):
    size = config.image_size
    images, path = random_images(5, size), folder / "model.stablehlo"
    export.write_stablehlo(path, config, params, statistics, METADATA)
    function, description = export.load_stablehlo(path)
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    expected = _expected(config, params, images, statistics)
    assert expected.std() > 0.1
    for count in (1, 5):
        logits = np.asarray(function(images[:count]))
        assert (logits.shape, logits.dtype) == ((count, config.num_classes), np.float32)
        np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_program_computes_the_models_logits_for_batches_of_any_size(case, tmp_path):
    config = tiny_family(case)
    _compare(config, random_params(config), {}, tmp_path)


@pytest.mark.slow
def test_the_lines_in_the_docs_run_both_kinds_of_files(tmp_path, monkeypatch):
    config, images = tiny_model(), random_images(2, 16)
    params = random_params(config)
    export.write_stablehlo(tmp_path / "tuned.stablehlo", config, params, {}, METADATA)
    export.write_onnx(tmp_path / "tuned.onnx", config, params, METADATA)
    monkeypatch.chdir(tmp_path)
    programs = [block.text for block in blocks(ROOT / "docs" / "export.md") if block.language == "python"]
    assert len(programs) == 3 and len(list(filter(None, programs[0].splitlines()))) == 5
    for program in programs:
        variables: dict = {"images": images}
        exec(program, variables)
        np.testing.assert_allclose(variables["logits"], _expected(config, params, images), rtol=0, atol=1e-4)
        if "names" in variables:
            assert variables["names"] == ["cat", "dog", "owl"]


@pytest.mark.slow
def test_a_convmixer_has_a_program_with_its_statistics(tmp_path):
    config = models.parse_name("ConvMixer-16/2", image_size=16, num_classes=3)
    model = models.build(config)
    statistics = jax.tree.map(lambda leaf: leaf + 0.5, model.init_statistics(jax.random.key(0)))
    _compare(config, random_params(config), statistics, tmp_path)


def test_one_module_is_for_all_three_platforms_and_calls_no_library_of_one():
    for dtype in ("float32", "bfloat16"):
        config = tiny_model(dtype=dtype)
        exported = stablehlo.export_program(config, random_params(config), {}, METADATA)
        assert exported.platforms == ("cpu", "cuda", "tpu")
        assert [str(dim) for dim in exported.in_avals[0].shape] == ["batch", "16", "16", "3"]
        # The assertion checks the shape of the input before it is compiled.
        assert set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) == {"shape_assertion"}
        assert "cudnn" not in exported.mlir_module()


@pytest.mark.slow
def test_a_model_gives_the_same_file_each_time_without_paths_of_this_machine(tmp_path):
    config = tiny_model()
    for name in ("one", "other"):
        export.write_stablehlo(tmp_path / name, config, random_params(config), {}, METADATA)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "other").read_bytes()
    assert b"encoderblock_0" in content and not re.search(rb"\w+\.py", content)
    assert jax.config.jax_traceback_in_locations_limit > 0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_each_platform_alone_can_be_lowered():
    config = tiny_model()
    params = random_params(config)
    model = models.build(models.retarget(config, models.Target("any")))
    for platform in stablehlo.PLATFORMS:
        apply = jax.jit(lambda images: model.apply(params, images))
        lowered = apply.trace(jnp.zeros((5, 16, 16, 3))).lower(lowering_platforms=(platform,))
        assert "dot_general" in lowered.as_text()


@pytest.mark.slow
def test_bfloat16_halves_the_file_and_stays_close(tmp_path):
    config = tiny_model(dtype="float32", image_size=32)
    config = models.ViTConfig(**{**vars(config), "hidden_size": 128, "mlp_size": 512, "heads": 2})
    params, images = random_params(config), random_images(3, 32)
    sizes = []
    for dtype in ("float32", "bfloat16"):
        path = tmp_path / f"{dtype}.stablehlo"
        export.write_stablehlo(path, models.ViTConfig(**{**vars(config), "dtype": dtype}), params, {}, METADATA)
        sizes.append(path.stat().st_size)
        function, description = export.load_stablehlo(path)
        assert description["dtype"] == dtype
        logits = np.asarray(function(images))
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, _expected(config, params, images), atol=0.1 if dtype == "bfloat16" else 1e-4)
    assert sizes[1] < 0.6 * sizes[0]


def test_weights_that_no_file_takes_are_refused(tmp_path, monkeypatch):
    config = tiny_model()
    params = random_params(config)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    for largest, advice in ((size - 1, "give --dtype bfloat16, or give --output"), (size // 2 - 1, "give --output")):
        monkeypatch.setattr(stablehlo, "LARGEST_WEIGHTS", largest)
        with pytest.raises(UserError, match=rf"at most 0.0 GB: {advice} .* \.onnx"):
            export.write_stablehlo(tmp_path / "m.stablehlo", config, params, {}, METADATA)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "model.stablehlo"
    config = tiny_model(num_classes=3)
    export.write_stablehlo(path, config, random_params(config), {}, METADATA)
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "short": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "text": b"nothing",
    }
    for name, wrong in damaged.items():
        path.write_bytes(wrong)
        with pytest.raises(UserError, match="export the model again") as caught:
            ppvit_jax.load_stablehlo(path)
        assert "\n" not in str(caught.value), name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("description.json", "{}")
        archive.writestr("program.bin", b"no program")
    with pytest.raises(UserError, match="export the model again"):
        ppvit_jax.load_stablehlo(path)


@pytest.mark.slow
def test_vit_s_16_at_full_size(tmp_path):
    config = models.parse_name("ViT-S/16", image_size=224, num_classes=1000)
    params, images = random_params(config), random_images(2, 224)
    export.write_stablehlo(tmp_path / "model.stablehlo", config, params, {}, METADATA)
    function, _ = export.load_stablehlo(tmp_path / "model.stablehlo")
    expected = jax.jit(models.build(config).apply)(params, normalize_images(images, *METADATA.normalization, "float32"))
    np.testing.assert_allclose(function(images), expected, rtol=0, atol=1e-4)
