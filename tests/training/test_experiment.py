import jax
import numpy as np
import pytest
from helpers.command import make_key
from helpers.tiny import assert_close_tree, random_dataset

from ppvit_jax import adaptation, checkpoint, keys, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.config import check, default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import experiment
from ppvit_jax.training.results import read_history

DATASET = random_dataset(train=64, test=30)
ARMS = {"plain": ("none", False), "adapted": ("bs+ps", True), "not-adapted": ("bs+ps", False)}


def _config(**fields):
    """Returns a configuration that runs the checkpoint for 64x64 at 32x32, so that positions are interpolated."""
    config = default_config()
    config.checkpoint = "embedded"
    config.model = "ViT-Micro/8"
    config.image_size = 32
    config.dtype = "float64"
    config.batch_size = config.eval_batch_size = 8
    config.epochs = 1
    config.optimizer.learning_rate = 0.01
    config.tensorboard = False
    config.update(fields)
    return check(config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trains three arms with the same key; returns the folder of their workdirs."""
    folder = tmp_path_factory.mktemp("runs")
    make_key(folder, 5).rename(folder / "secret.key")
    for name, (encryption, adapt) in ARMS.items():
        config = _config(encryption=encryption, adapt=adapt)
        experiment.run(config, folder / name, DATASET, key_folder=folder)
    return folder


def _model(image_size=32):
    return models.parse_name("ViT-Micro/8", image_size=image_size, num_classes=3, dtype="float64")


def _tuned(workdir):
    arrays, metadata = checkpoint.read(workdir / "checkpoint.npz")
    with jax.enable_x64(True):
        return checkpoint.to_params(arrays, _model(), keep_head=True), metadata


@pytest.mark.slow
def test_encrypted_and_adapted_is_trained_to_the_plain_model(runs):
    """They agree only because the position embedding is interpolated before it is permuted."""
    permutations = keys.load(runs / "secret.key").permutations("bs+ps", image_size=32, patch_size=8)
    plain, adapted = _tuned(runs / "plain")[0], _tuned(runs / "adapted")[0]
    assert_close_tree(adaptation.restore(adapted, permutations), plain, 1e-9)
    histories = [read_history(runs / name, "epoch")[0] for name in ARMS]
    assert histories[0]["test_accuracy"] == histories[1]["test_accuracy"]
    np.testing.assert_allclose(histories[1]["test_loss"], histories[0]["test_loss"], rtol=1e-6)
    assert abs(histories[2]["test_loss"] / histories[0]["test_loss"] - 1) > 1e-3


@pytest.mark.slow
def test_checkpoints_and_results_say_what_they_are(runs):
    fingerprint = keys.load(runs / "secret.key").fingerprint
    expected = {
        "plain": ("none", None, False, None),
        "adapted": ("bs+ps", fingerprint, True, fingerprint),
        "not-adapted": ("none", None, False, fingerprint),
    }
    for name, (encryption, model_fingerprint, adapted, images_fingerprint) in expected.items():
        half = (0.5, 0.5, 0.5)
        expected_metadata = Metadata(
            "ViT-Micro/8", 32, encryption, model_fingerprint, DATASET.class_names, mean=half, std=half
        ).trained_on(ARMS[name][0], images_fingerprint)
        assert _tuned(runs / name)[1] == expected_metadata
        result = experiment.run(
            _config(encryption=ARMS[name][0], adapt=ARMS[name][1]), runs / name, DATASET, key_folder=runs
        )
        assert (result["encryption"], result["adapt"]) == (ARMS[name][0], adapted)
        assert result["key_fingerprint"] == images_fingerprint


@pytest.mark.slow
def test_no_file_of_a_run_holds_the_key(runs):
    master = keys.load(runs / "secret.key").master
    text = (runs / "secret.key").read_text().split('"master": "')[1].split('"')[0].encode()
    files = [path for path in runs.rglob("*") if path.is_file() and path.name != "secret.key"]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert master not in content and text not in content and master.hex().encode() not in content, path


@pytest.mark.slow
def test_tuning_goes_on_from_an_adapted_checkpoint_as_from_the_plain_one(runs, tmp_path):
    settings = {"head": "keep", "seed": 1}
    experiment.run(
        _config(checkpoint=str(runs / "plain" / "checkpoint.npz"), encryption="none", **settings),
        tmp_path / "plain",
        DATASET,
    )
    experiment.run(
        _config(checkpoint=str(runs / "adapted" / "checkpoint.npz"), key_file=str(runs / "secret.key"), **settings),
        tmp_path / "adapted",
        DATASET,
    )
    permutations = keys.load(runs / "secret.key").permutations("bs+ps", image_size=32, patch_size=8)
    restored = adaptation.restore(_tuned(tmp_path / "adapted")[0], permutations)
    assert_close_tree(restored, _tuned(tmp_path / "plain")[0], 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {},
            r"adapted to 'bs\+ps' \(key fingerprint [0-9a-f]{32}\), .* \(key fingerprint [0-9a-f]{32}\)",
        ),
        ({"encryption": "bs"}, r"adapted to 'bs\+ps' \(key .* encrypted with 'bs' \(key"),
        ({"encryption": "none"}, r"adapted to 'bs\+ps' \(key .* but the images in noise count as plain"),
        ({"image_size": 64}, "adapted to encrypted images of 32x32.* use config.image_size=32"),
    ],
    ids=["key", "encryption", "plain images", "image size"],
)
def test_an_adapted_model_with_what_it_is_not_adapted_to_is_refused(runs, tmp_path, fields, message):
    config = _config(
        checkpoint=str(runs / "adapted" / "checkpoint.npz"), key_file=str(make_key(tmp_path, 7)), head="keep", **fields
    )
    with pytest.raises(UserError, match=message):
        experiment.run(config, tmp_path / "workdir", DATASET)
    assert not (tmp_path / "workdir").exists()


@pytest.mark.slow
def test_another_key_for_a_begun_workdir_is_refused(runs, tmp_path):
    config = _config(key_file=str(make_key(tmp_path, 7)))
    with pytest.raises(UserError, match="key_fingerprint was"):
        experiment.run(config, runs / "adapted", DATASET)


def test_a_sealed_key_is_opened_by_a_passphrase_file(tmp_path):
    (passphrase := tmp_path / "passphrase").write_text("correct horse\n")
    config = _config(passphrase_file=str(passphrase))
    made = experiment.open_key(config, tmp_path / "folder")
    assert experiment.open_key(config, tmp_path / "folder") == made
    with pytest.raises(UserError, match="sealed: give its passphrase"):
        experiment.open_key(_config(), tmp_path / "folder")
    for content in ("", None):
        passphrase.unlink() if content is None else passphrase.write_text(content)
        with pytest.raises(UserError, match="cannot read a passphrase"):
            experiment.open_key(config, tmp_path / "folder")


@pytest.mark.slow
def test_a_run_in_float64_leaves_the_precision_of_the_process_as_it_was(tmp_path, monkeypatch):
    inside = []

    def train(run, workdir):
        inside.append(jax.numpy.ones(1, "float64").dtype)
        if len(inside) == 2:
            raise UserError("no room")
        return {}

    monkeypatch.setattr(experiment, "train", train)
    config = _config(encryption="none")
    for before in (False, True):
        with jax.enable_x64(before):
            experiment.run(config, tmp_path, DATASET)
            assert jax.config.jax_enable_x64 is before  # pyright: ignore[reportAttributeAccessIssue]
            if not before:
                with pytest.raises(UserError):
                    experiment.run(config, tmp_path, DATASET)
            assert jax.numpy.ones(1).dtype == ("float64" if before else "float32")
    assert set(inside) == {np.dtype("float64")} and len(inside) == 3


@pytest.mark.slow
def test_the_secret_is_not_in_the_text_of_a_run(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(experiment, "train", lambda run, workdir: runs.append(run))
    experiment.run(_config(key_file=str(make_key(tmp_path, 5))), tmp_path, DATASET)
    (run,) = runs
    assert run.secret is not None and "secret=" not in repr(run)


@pytest.mark.slow
def test_a_model_from_scratch_has_parameters_of_the_compute_precision(tmp_path):
    experiment.run(_config(checkpoint="", encryption="none"), tmp_path, DATASET)
    arrays, _ = checkpoint.read(tmp_path / "checkpoint.npz")
    assert {array.dtype for array in arrays.values()} == {np.dtype("float64")}
