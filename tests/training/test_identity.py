import copy
import dataclasses

import numpy as np
import pytest
from helpers.tiny import random_dataset

from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import default_config
from ppvit_jax.data.source import ArraySource, StreamSource
from ppvit_jax.errors import UserError
from ppvit_jax.training.identity import changed_versions, compare, complete_record, describe_run, is_record
from ppvit_jax.training.matching import PLAIN


def _record(dataset=None, checkpoint="", **fields):
    config = default_config()
    config.update({"checkpoint": str(checkpoint), **fields})
    dataset = dataset or random_dataset()
    return describe_run(config, dataset, Metadata("ViT-B/16", 16, class_names=dataset.class_names), PLAIN)


def _of_before(record):
    """Returns the record that an earlier version would have written."""
    old = {name: value for name, value in record.items() if name in ("config", "encryption", "key_fingerprint")}
    return old | {"metadata": {n: v for n, v in record["metadata"].items() if n not in ("mean", "std")}}


def test_the_record_holds_the_data_set_and_its_digest():
    dataset = random_dataset()
    described = _record(dataset)["dataset"]
    digest = described.pop("digest")
    assert described.pop("train_digest") == ""
    assert described == {
        "name": "noise",
        "train_examples": 24,
        "test_examples": 10,
        "class_names": ["class 0", "class 1", "class 2"],
    }
    assert len(digest) == 64
    assert _record(dataclasses.replace(dataset, digest="ab12"))["dataset"]["digest"] == "ab12"
    assert is_record(_record()) and not is_record([]) and not is_record({"config": {}, "metadata": {}, "dataset": 1})


def _with_a_changed_pixel(dataset):
    images = dataset.test.images.copy()
    images[3, 2, 1, 0] ^= 1
    return dataclasses.replace(dataset, test=ArraySource(images, dataset.test.labels))


def _with_a_changed_label(dataset):
    labels = dataset.train.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    return dataclasses.replace(dataset, train=ArraySource(dataset.train.images, labels))


@pytest.mark.parametrize("change", [_with_a_changed_pixel, _with_a_changed_label])
def test_a_changed_pixel_or_label_is_another_data_set(tmp_path, change):
    before, now = _record(), _record(change(random_dataset()))
    with pytest.raises(UserError, match=r"another data set .*: use another workdir, or the same data set to") as error:
        compare(before, now, tmp_path, evaluated=True)
    for record in (before, now):
        assert f" {record['dataset']['digest'][:12]}..." in str(error.value)


def test_other_numbers_and_classes_are_named_with_both_values(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.train_examples was 24 and is 32"):
        compare(_record(), _record(random_dataset(train=32)), tmp_path, evaluated=True)
    names = [f"a rather long name of a class, number {number}" for number in range(1000)]
    other = [*names[:700], "cat", *names[701:]]
    datasets = (dataclasses.replace(random_dataset(), class_names=tuple(n)) for n in (names, other, names[:-1]))
    before, now, fewer = (_record(dataset) for dataset in datasets)
    with pytest.raises(UserError, match=r"class_names was 'a rather .* 700' in place 700 and is 'cat'\)") as error:
        compare(before, now, tmp_path, evaluated=True)
    assert len(str(error.value)) < 500
    with pytest.raises(UserError, match=r"class_names was .*\.\.\. and is .*\.\.\.") as error:
        compare(before, fewer, tmp_path, evaluated=True)
    assert len(str(error.value)) < 700


def test_a_folder_may_move_if_its_content_is_the_same(tmp_path):
    dataset = dataclasses.replace(random_dataset(), digest="ab12")
    config = default_config()
    config.data.dir = "elsewhere"
    moved = _record(dataclasses.replace(dataset, name="elsewhere"), data=config.data)
    assert compare(_record(dataset), moved, tmp_path, evaluated=True) == ""


def test_the_content_of_the_checkpoint_counts_and_not_its_name(tmp_path):
    for name, content in (("a.npz", b"1"), ("copy.npz", b"1"), ("b.npz", b"2")):
        (tmp_path / name).write_bytes(content)
    before = _record(checkpoint=tmp_path / "a.npz")
    assert compare(before, _record(checkpoint=tmp_path / "copy.npz"), tmp_path, evaluated=True) == ""
    with pytest.raises(UserError, match=r"checkpoint_sha256 was 6b86b2\w{6}\.\.\. and is d4735e"):
        compare(before, _record(checkpoint=tmp_path / "b.npz"), tmp_path, evaluated=True)
    with pytest.raises(UserError, match=r"another checkpoint, configuration and data set \(checkpoint_sha256 was 6b86"):
        compare(before, _record(random_dataset(test=9), tmp_path / "b.npz"), tmp_path, evaluated=True)
    (tmp_path / "a.npz").write_bytes(b"2")
    with pytest.raises(UserError, match=r"holds a run with another checkpoint \(checkpoint_sha256 was"):
        compare(before, _record(checkpoint=tmp_path / "a.npz"), tmp_path, evaluated=True)


def test_a_workdir_of_before_continues_with_a_note(tmp_path):
    now = _record()
    now["metadata"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    old = _of_before(now)
    assert "earlier version" in compare(old, now, tmp_path, evaluated=True)
    assert changed_versions(old, now) == ""
    assert complete_record(old, now) == now
    other = copy.deepcopy(now)
    other["config"]["seed"] = 3
    with pytest.raises(UserError, match=r"another configuration \(config\.seed was 0 and is 3\)"):
        compare(old, other, tmp_path, evaluated=True)
    # A field that the earlier version did not have had the effect of its default.
    del old["config"]["label_smoothing"]
    assert "earlier version" in compare(old, now, tmp_path, evaluated=True)
    other = copy.deepcopy(now)
    other["config"]["label_smoothing"] = 0.1
    with pytest.raises(UserError, match=r"label_smoothing was 0\.0 and is 0\.1"):
        compare(old, other, tmp_path, evaluated=True)


def test_images_without_a_digest_get_a_note(tmp_path):
    source = random_dataset().train
    stream = StreamSource(np.asarray(source.labels), source.image_shape, source.fetch)
    record = _record(dataclasses.replace(random_dataset(), train=stream))
    assert record["dataset"]["digest"] == ""
    assert compare(record, record, tmp_path, evaluated=True).startswith(
        "nothing has recorded the content of the images of"
    )
    assert compare(_record(), _record(), tmp_path, evaluated=True) == ""


def test_another_version_of_a_library_is_noted_and_accepted(tmp_path):
    now = _record()
    before = copy.deepcopy(now)
    before["versions"]["jax"] = "0.4.1"
    assert compare(before, now, tmp_path, evaluated=True) == ""
    note = changed_versions(before, now)
    assert note == f"the run began with jax 0.4.1 (now {now['versions']['jax']}): its numbers may differ by rounding"


def test_test_images_may_change_before_they_are_used(tmp_path):
    dataset = dataclasses.replace(random_dataset(), digest="ab12", train_digest="cd34")
    healed = dataclasses.replace(dataset, digest="ef56", test=random_dataset(test=9).test)
    before, now = _record(dataset), _record(healed)
    assert compare(before, now, tmp_path, evaluated=False).startswith("the test images are not those with which")
    assert complete_record(before, now)["dataset"] == now["dataset"]
    assert compare(before, before, tmp_path, evaluated=False) == ""
    with pytest.raises(UserError, match=r"digest was 'ab12' and is 'ef56'; dataset\.test_examples was 10 and is 9"):
        compare(before, now, tmp_path, evaluated=True)
    for other in (dataclasses.replace(healed, train_digest="cd35"), dataclasses.replace(healed, train_digest="")):
        with pytest.raises(UserError, match=r"digest was 'ab12' and is 'ef56'"):
            compare(before, _record(other), tmp_path, evaluated=False)


def test_a_recipe_belongs_to_a_run_and_values_that_are_computed_again_do_not(tmp_path):
    recipe = {"ema_decay": 0.9, "drop_path": 0.1, "class_weights": "balanced"}
    nested = {"optimizer": {"layer_decay": 0.75}, "data": {"sampling": "balanced"}}
    begun = _record(remat="none")
    assert compare(begun, _record(remat="blocks"), tmp_path, evaluated=True) == ""
    # Runs of earlier versions had none of it.
    of_before = copy.deepcopy(begun)
    for name in (*recipe, "remat"):
        del of_before["config"][name]
    del of_before["config"]["optimizer"]["layer_decay"], of_before["config"]["data"]["sampling"]
    assert compare(of_before, begun, tmp_path, evaluated=True) == ""
    for fields in (*({name: value} for name, value in recipe.items()), *({k: v} for k, v in nested.items())):
        name = next(iter(fields))
        for record in (begun, of_before):
            with pytest.raises(UserError, match=rf"another configuration \(config\.{name}[a-z._]* was "):
                compare(record, _record(**fields), tmp_path, evaluated=True)
