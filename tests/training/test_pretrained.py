"""The checkpoint that a run starts from: its record decides, or the run is refused with both values."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.command import make_key
from helpers.tiny import assert_same_tree, random_dataset, random_images, random_params

from ppvit_jax import checkpoint, keys, models
from ppvit_jax.adaptation import restore
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import check, default_config
from ppvit_jax.data.manifest import Header, Manifest
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment, loop
from ppvit_jax.training.identity import _differences

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
NAMES = ("class 0", "class 1", "class 2")
# A record of the run's own values: nothing is assumed, changed or refused.
RECORD = Metadata("ViT-Micro/8", 16, class_names=NAMES, mean=HALF, std=HALF)
MODEL = models.parse_name("ViT-Micro/8", image_size=16, num_classes=3)
PARAMS = random_params(MODEL)


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Returns a function that prepares a run from a checkpoint with this record, and returns it without training."""
    runs = []

    def begin(run, workdir):
        loop._print_messages(run)
        runs.append(run)

    monkeypatch.setattr(experiment, "train", begin)
    make_key(tmp_path, 1)

    def prepare(metadata, params=PARAMS, dataset=None, **fields):
        checkpoint.write(tmp_path / "model.npz", params, metadata)
        config = default_config()
        config.update({"checkpoint": str(tmp_path / "model.npz"), "model": "ViT-Micro/8", "image_size": 16})
        config.update({"encryption": "none", "head": "keep", "key_file": str(tmp_path / "1.key"), "batch_size": 8})
        options = fields.pop("model_options", {})
        config.update(fields)
        config.model_options.update(options)
        experiment.run(check(config), tmp_path / "run", dataset or random_dataset(num_classes=3))
        return runs[-1]

    return prepare


def _tokens(params, images, mean, std):
    """Returns the patch embedding of pixels, computed by numpy in float64; a model's logits depend on it alone."""
    inputs = (images.astype(np.float64) / 255 - np.float64(mean)) / np.float64(std)
    patches = inputs.reshape(len(images), 2, 8, 2, 8, 3)
    kernel, bias = params["embedding"]["kernel"], params["embedding"]["bias"]
    return np.einsum("nahbwc,hwcd->nabd", patches, kernel.astype(np.float64)) + bias


@pytest.mark.slow
def test_a_record_of_the_same_values_changes_nothing_and_says_nothing(prepare, capsys):
    run = prepare(RECORD)
    assert_same_tree(run.params, PARAMS)
    assert run.metadata == RECORD
    assert capsys.readouterr().err == ""


def test_another_normalization_is_folded_into_the_patch_embedding(prepare, capsys):
    images = random_images(3, 16)
    for head in ("keep", "new"):
        run = prepare(dataclasses.replace(RECORD, mean=MEAN, std=STD), head=head)
        assert "from mean (0.485, 0.456, 0.406) and std" in (said := capsys.readouterr().err) and said.count("\n") == 1
        assert (run.metadata.mean, run.metadata.std) == (HALF, HALF)
        np.testing.assert_allclose(
            _tokens(run.params, images, HALF, HALF), _tokens(PARAMS, images, MEAN, STD), rtol=0, atol=2e-5
        )
    # The other way round, the run's own values are not one half.
    run = prepare(RECORD, mean=MEAN, std=STD)
    np.testing.assert_allclose(
        _tokens(run.params, images, MEAN, STD), _tokens(PARAMS, images, HALF, HALF), rtol=0, atol=2e-5
    )
    assert (run.metadata.mean, run.metadata.std) == (MEAN, STD)


def test_an_unrecorded_normalization_is_taken_to_be_that_of_the_run(prepare, capsys):
    run = prepare(dataclasses.replace(RECORD, mean=(), std=()), mean=(0.1,) * 3, std=(0.2,) * 3)
    assert_same_tree(run.params, PARAMS)
    expected = "model.npz does not record its normalization: mean 0.1 and std 0.2 are assumed\n"
    assert capsys.readouterr().err.endswith(expected)


@pytest.mark.slow
def test_a_model_without_a_patch_embedding_is_refused_with_both_normalizations(prepare, tmp_path):
    config = models.parse_name("ResNet-18", image_size=16, num_classes=3)
    shapes = models.parameter_shapes(config)
    params = unflatten_dict({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, sep="/")
    statistics = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), models.abstract_statistics(config))
    record = dataclasses.replace(RECORD, model="ResNet-18", mean=MEAN, std=STD)
    content = checkpoint.join(params, statistics)
    with pytest.raises(UserError, match=r"0.485, 0.456, 0.406.*mean 0.5 and std 0.5"):
        prepare(record, content, model="ResNet-18")
    assert prepare(record, content, model="ResNet-18", mean=MEAN, std=STD).metadata.mean == MEAN


def test_the_outputs_of_a_kept_head_follow_the_names_of_the_classes(prepare, capsys):
    order = [2, 0, 1]
    run = prepare(dataclasses.replace(RECORD, class_names=tuple(NAMES[i] for i in order)))
    # Output i of the checkpoint is of class order[i].
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(run.params["head"][name][..., order], PARAMS["head"][name])
    assert run.metadata.class_names == NAMES
    said = capsys.readouterr().err
    assert "from class 2, class 0, class 1 to class 0, class 1, class 2" in said and said.count("\n") == 1


def test_a_new_head_has_no_names_to_compare(prepare, capsys):
    run = prepare(dataclasses.replace(RECORD, class_names=("x", "y", "z")), head="new")
    assert run.metadata.class_names == NAMES and not run.params["head"]["kernel"].any()
    assert capsys.readouterr().err == ""


def test_a_head_without_names_gets_a_note(prepare, capsys):
    run = prepare(dataclasses.replace(RECORD, class_names=()))
    assert_same_tree(run.params, PARAMS)
    assert "does not name the outputs of its head: they are taken for class 0, class 1," in capsys.readouterr().err


@pytest.mark.slow
def test_another_size_resizes_the_positions_with_a_note(prepare, capsys):
    run = prepare(RECORD, image_size=24)
    assert run.params["Transformer"]["posembed_input"]["pos_embedding"].shape == (1, 10, 128)
    assert "is resized from 16 to 24 pixels a side" in capsys.readouterr().err and run.metadata.image_size == 24


def test_another_way_of_resizing_gets_a_warning(prepare, capsys):
    data = dataclasses.replace(random_dataset(), resize="centre_crop")
    run = prepare(dataclasses.replace(RECORD, resize="squash"), dataset=data)
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and "resized by squash, and config.data.resize is center_crop" in said
    assert run.metadata.resize == "centre_crop"
    assert prepare(dataclasses.replace(RECORD, resize="squash"), dataset=random_dataset()).metadata.resize == ""


def test_a_recorded_option_is_used_unless_the_configuration_has_another(prepare, capsys):
    def model(matrix):
        options = {"patch_size": 4, "kernel_size": 3, "adaptive_matrix": matrix}
        return models.parse_name("ConvMixer-16/1", image_size=16, num_classes=3, options=options)

    config = model("softmax")
    statistics = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), models.abstract_statistics(config))
    content = checkpoint.join(random_params(config), statistics)
    record = dataclasses.replace(RECORD, model="ConvMixer-16/1", model_options=models.recorded_options(config))

    def start(metadata, **options):
        shape = {"patch_size": 4, "kernel_size": 3}
        return prepare(metadata, content, model="ConvMixer-16/1", model_options=shape | options)

    run = start(record)
    assert run.model_config == config and run.metadata.model_options == {"adaptive_matrix": "softmax"}
    assert "adaptive_matrix is 'softmax', which" in capsys.readouterr().err
    assert start(record, adaptive_matrix="softmax").model_config == config and capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"adaptive_matrix='softmax', but config.*adaptive_matrix is 'free'"):
        start(record, adaptive_matrix="free")
    # A checkpoint without any record, of a former version.
    old = start(Metadata(), adaptive_matrix="free")
    assert old.model_config == model("free")
    assert "does not record the model option adaptive_matrix: 'free'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_new_head_may_take_another_pooling_and_a_kept_one_may_not(prepare, capsys):
    run = prepare(RECORD, head="new", model_options={"pool": "mean"})
    assert run.model_config.pool == "mean" and run.metadata.model_options == {"pool": "mean"}
    assert "takes the pooling 'mean' of the configuration" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"model option pool='', but config.model_options.pool is 'mean'"):
        prepare(RECORD, model_options={"pool": "mean"})
    assert prepare(dataclasses.replace(RECORD, model_options={"pool": "mean"})).model_config.pool == "mean"


@pytest.mark.slow
def test_the_layer_before_a_kept_head_is_kept(prepare, capsys):
    config = dataclasses.replace(MODEL, representation_size=16)
    params = random_params(config)
    run = prepare(RECORD, params)
    assert_same_tree(run.params, params)
    assert "config.representation_size is 16, because the head of" in capsys.readouterr().err
    assert "pre_logits" not in prepare(RECORD, params, head="new").params


ENCRYPTED = dataclasses.replace(RECORD, images_encryption="bs", images_key_fingerprint="aa" * 16)
REFUSED = {
    "a class by another name": (
        dataclasses.replace(RECORD, class_names=("class 0", "Class 1", "class 2")),
        {},
        r"classes \(class 0, Class 1, class 2\), but the data set has 3 \(class 0, class 1, class 2\); the data set "
        r"lacks 'Class 1' and the checkpoint lacks 'class 1'",
    ),
    "fewer names than outputs": (
        dataclasses.replace(RECORD, class_names=NAMES[:2]),
        {},
        "records 2 class names, but its head has 3 outputs",
    ),
    "another size than the positions'": (
        dataclasses.replace(RECORD, image_size=32),
        {},
        "records images of 32x32 pixels, but its position embedding has 4 blocks of 8x8",
    ),
    "an unknown option": (
        dataclasses.replace(RECORD, model_options={"window": 7}),
        {},
        "records the model option 'window', which this version does not know",
    ),
    "an unknown way of resizing": (
        dataclasses.replace(RECORD, resize="letterbox"),
        {},
        "records the way of resizing 'letterbox'",
    ),
    "trained on encrypted images, plain images": (
        ENCRYPTED,
        {},
        r"was trained on images encrypted with 'bs' \(key fingerprint a{32}\), but the images in noise count as plain",
    ),
    "trained on encrypted images, another key": (
        ENCRYPTED,
        {"encryption": "bs"},
        r"key fingerprint a{32}\), but the images in noise are encrypted with 'bs' \(key fingerprint [0-9a-f]{32}\)",
    ),
    "trained on encrypted images, another size": (
        ENCRYPTED,
        {"image_size": 24},
        "trained on encrypted images of 16x16, so its position embedding cannot be resized",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_contradiction_is_refused_in_one_line_with_both_values(prepare, capsys, case):
    metadata, fields, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        prepare(metadata, **fields)
    assert "\n" not in str(caught.value) and capsys.readouterr().err == ""


def test_the_images_of_a_run_are_recorded_apart_from_what_restore_undoes(prepare, tmp_path):
    fingerprint = keys.load(tmp_path / "1.key").fingerprint
    adapted = prepare(RECORD, encryption="bs+ps").metadata
    assert (adapted.encryption, adapted.images) == ("bs+ps", ("bs+ps", fingerprint))
    assert not adapted.images_encryption
    plain = prepare(RECORD, encryption="bs+ps", adapt=False).metadata
    assert (plain.encryption, plain.images) == ("none", ("bs+ps", fingerprint))
    # Such a model goes on with the same images, unadapted; and it is not adapted by config.adapt.
    again = prepare(plain, encryption="bs+ps", adapt=True)
    assert_same_tree(again.params, PARAMS)
    assert again.metadata == plain
    other = prepare(plain, allow_mismatch=True).metadata
    assert (other.encryption, other.images) == ("none", ("none", None))
    blocks = prepare(RECORD, encryption="bs+ps", adapt=False, block_size=4).metadata
    assert (blocks.images, blocks.images_block_size) == (("bs+ps", fingerprint), 4)
    with pytest.raises(UserError, match="in blocks of 8x8, but the model was trained on images in blocks of 4x4"):
        prepare(blocks, encryption="bs+ps", adapt=False)
    assert prepare(blocks, encryption="bs+ps", adapt=False, block_size=4).metadata == blocks


def test_an_adapted_model_on_other_images_keeps_both_in_its_record(prepare, tmp_path):
    make_key(tmp_path, 2)
    adapted = prepare(RECORD, encryption="bs+ps").metadata
    mixed = prepare(adapted, encryption="bs+ps", key_file=str(tmp_path / "2.key"), allow_mismatch=True).metadata
    first, second = (keys.load(tmp_path / f"{number}.key").fingerprint for number in (1, 2))
    assert (mixed.key_fingerprint, mixed.images) == (first, ("bs+ps", second))
    with pytest.raises(UserError, match=f"trained on images encrypted with 'bs.ps' .key fingerprint {second}"):
        prepare(mixed, encryption="bs+ps")


@pytest.mark.slow
def test_a_model_for_imagenets_constants_is_adapted_by_a_run(prepare, tmp_path):
    run = prepare(dataclasses.replace(RECORD, mean=MEAN, std=STD), encryption="bs+ps+np")
    key, images = keys.load(tmp_path / "1.key"), random_images(3, 16)
    plain = restore(run.params, key.permutations("bs+ps+np", image_size=16, patch_size=8))
    np.testing.assert_allclose(
        _tokens(plain, images, HALF, HALF), _tokens(PARAMS, images, MEAN, STD), rtol=0, atol=2e-5
    )


@pytest.mark.slow
def test_images_that_the_owner_encrypted_keep_the_records_way_of_resizing(prepare):
    header = Header("bs+ps", "cc" * 16, 16, 8, "")
    data = dataclasses.replace(random_dataset(), manifest=Manifest(Path("e"), header, {}, "", None))
    record = dataclasses.replace(RECORD, encryption="bs+ps", key_fingerprint="cc" * 16, resize="squash")
    assert prepare(record, dataset=data).metadata == record


def test_a_workdir_of_a_former_version_is_continued():
    record = dataclasses.replace(RECORD, images_encryption="bs", images_key_fingerprint="aa")
    now = {"config": {"seed": 0}, "metadata": json.loads(record.to_json())}
    former = ("model", "image_size", "encryption", "key_fingerprint", "class_names")
    before = {"config": {"seed": 0}, "metadata": {name: now["metadata"][name] for name in former}}
    assert _differences(before, now) == {}
    before["metadata"]["image_size"] = 24
    assert _differences(before, now) == {"metadata.image_size": ("24", "16")}
