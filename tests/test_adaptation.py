import dataclasses
import functools

import jax
import numpy as np
import pytest
from helpers.tiny import assert_close_tree, assert_same_tree, random_images, random_params, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import models
from ppvit_jax.adaptation import adapt, rekey, restore
from ppvit_jax.config import default_config
from ppvit_jax.data.preprocess import normalize_images
from ppvit_jax.encryption import Permutations, parse
from ppvit_jax.encryption.blockwise import make_secret
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.training.step import compile_steps

ARMS = ("bs", "ps", "bs+ps")
# Further encryptions that a model absorbs, beyond those of the paper.
MORE = (
    "restricted",
    "np",
    "bs+ps+np",
    "bs+pps",
    "bs+pps:sub_block=whole,shared=blocks",
    "etc:shared=True",
    "etc:sub_block_size=2,shared=True",
    "etc:rotation=False,negative_positive=False,channels=none",
)
ABSORBED = (*ARMS, *MORE)
HALF = (0.5, 0.5, 0.5)
keys = st.binary(min_size=32, max_size=32).map(SecretKey)


@functools.cache
def _forward(config: models.ViTConfig):
    def forward(params, images):
        return models.build(config).apply(params, normalize_images(images, HALF, HALF, config.dtype))

    return jax.jit(forward)


def _permutations(config: models.ViTConfig, encryption: str, key: SecretKey) -> Permutations:
    return key.permutations(encryption, image_size=config.image_size, patch_size=config.patch_size)


def _logits(config, params, images, encryption, key, *, adapted=True):
    if adapted:
        params = adapt(params, _permutations(config, encryption, key))
    method = parse(encryption, config.patch_size)
    secret = method.derive(key, height=config.image_size, width=config.image_size)
    return np.asarray(_forward(config)(params, method.encrypt(images, secret)))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(key=keys, encryption=st.sampled_from(ABSORBED), grid=st.sampled_from([(8, 4), (16, 4), (12, 6), (24, 8)]))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_adapted_model_on_encrypted_images_gives_the_plain_logits(dtype, tolerance, key, encryption, grid):
    with jax.enable_x64(dtype == "float64"):
        config = tiny_model(image_size=grid[0], patch_size=grid[1], dtype=dtype, representation_size=8)
        params, images = random_params(config, dtype=dtype), random_images(4, grid[0])
        plain = np.asarray(_forward(config)(params, images))
        assert plain.std() > 0.1
        np.testing.assert_allclose(_logits(config, params, images, encryption, key), plain, rtol=0, atol=tolerance)


@pytest.mark.parametrize("encryption", ABSORBED)
def test_a_model_that_is_not_adapted_gives_other_logits(encryption):
    config = tiny_model()
    params, images, key = random_params(config), random_images(4, 16), SecretKey(bytes(32))
    plain = np.asarray(_forward(config)(params, images))
    assert abs(_logits(config, params, images, encryption, key, adapted=False) - plain).max() > 0.01


# In bfloat16 each operand of the patch embedding is rounded by itself, so permuting does not change it. A sum in
# another order may still round differently, and twelve layers propagate that.
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12), ("bfloat16", 0.04)])
def test_exact_at_real_size(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        config = models.parse_name("ViT-B/16", image_size=224, num_classes=10, dtype=dtype)
        params = random_params(config, dtype=np.float64 if dtype == "float64" else np.float32)
        images = random_images(1, 224)
        plain = np.asarray(_forward(config)(params, images))
        assert plain.std() > 0.1
        for encryption in (*ARMS, "restricted", "bs+ps+np", "bs+pps", "etc:shared=True"):
            logits = _logits(config, params, images, encryption, SecretKey(bytes(range(32))))

            np.testing.assert_allclose(logits, plain, rtol=0, atol=tolerance)


@functools.cache
def _steps(config, optimizer, steps):
    """Returns the real training step, which is compiled once for the plain run and once for every kind of secret."""
    settings_ = default_config()
    settings_.dtype = "float64"
    # Every gather runs the same program, only with another secret, so it is compiled once.
    settings_.encryption = "bs+ps"
    settings_.augmentation = "flip+crop"
    settings_.label_smoothing = 0.1
    settings_.optimizer.update(dict(optimizer))
    return compile_steps(config, settings_, total_steps=steps)


def _train(optimizer, permutations=None, steps=20):
    """Returns the initial parameters, and the state after `steps` batches of the real training step."""
    config = tiny_model(dtype="float64")
    initial = params = random_params(config, dtype=np.float64)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (steps, 8, 12, 12, 3), np.uint8)
    labels = random.integers(0, 3, (steps, 8))
    functions = _steps(config, optimizer, steps)
    secret = None
    if permutations is not None:
        params = adapt(params, permutations)
        secret = make_secret(permutations, config.image_size, config.image_size, config.patch_size)
    state = functions.init_state(jax.tree.map(jax.numpy.array, params), {})
    for step in range(steps):
        batch = {"image": images[step], "label": labels[step]}
        state = functions.train_step(state, batch, jax.random.key(1), secret)
    return initial, jax.device_get(state)


_train_plain = functools.cache(_train)


@pytest.mark.slow
@pytest.mark.parametrize("encryption", (*ARMS, "restricted", "np", "bs+ps+np", "bs+pps", "etc:shared=True"))
@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "learning_rate": 0.05},
        {"name": "sgd", "learning_rate": 0.05, "nesterov": True, "clip_norm": 0.1, "schedule": "cosine"},
        {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.05, "warmup_steps": 5, "schedule": "cosine"},
    ],
    ids=["sgd", "sgd-nesterov-clipped", "adamw"],
)
def test_whole_training_trajectories_stay_equal(optimizer, encryption):
    with jax.enable_x64(True):
        permutations = _permutations(tiny_model(dtype="float64"), encryption, SecretKey(bytes(32)))
        params, plain = _train_plain(tuple(optimizer.items()))
        _, encrypted = _train(tuple(optimizer.items()), permutations)
    assert abs(plain["params"]["embedding"]["kernel"] - params["embedding"]["kernel"]).max() > 1e-3
    assert_close_tree(restore(encrypted["params"], permutations), plain["params"], 1e-9)
    # The optimizer's moments are permuted like the parameters.
    is_moments = lambda tree: isinstance(tree, dict) and "embedding" in tree  # noqa: E731
    moments = [
        [tree for tree in jax.tree.leaves(state["opt_state"], is_leaf=is_moments) if is_moments(tree)]
        for state in (plain, encrypted)
    ]
    assert len(moments[0]) == (2 if optimizer["name"] == "adamw" else 1)
    # A second moment consists of squares, whose sign does not change.
    follows = (permutations, dataclasses.replace(permutations, negative=None))
    for one, other, moved in zip(*moments, follows, strict=False):
        assert_close_tree(restore(other, moved), one, 1e-9)
    np.testing.assert_allclose(encrypted["metrics"]["loss"], plain["metrics"]["loss"], rtol=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(key=keys, other=keys, before=st.sampled_from(("none", *ABSORBED)), after=st.sampled_from(("none", *ABSORBED)))
def test_restore_undoes_adapt_and_rekey_is_both(key, other, before, after):
    config = tiny_model()
    params = random_params(config)
    old, new = _permutations(config, before, key), _permutations(config, after, other)
    assert_same_tree(restore(adapt(params, old), old), params)
    assert_same_tree(rekey(adapt(params, old), old, new), adapt(params, new))


def test_adapt_moves_two_tensors_and_leaves_the_rest_and_its_argument():
    config = tiny_model()
    params, untouched = random_params(config), random_params(config)
    permutations = _permutations(config, "bs+ps", SecretKey(bytes(32)))
    adapted = adapt(params, permutations)
    assert_same_tree(params, untouched)
    assert adapted["Transformer"]["encoder_norm"] is params["Transformer"]["encoder_norm"]
    assert adapted["embedding"]["bias"] is params["embedding"]["bias"]
    before = params["Transformer"]["posembed_input"]["pos_embedding"]
    after = adapted["Transformer"]["posembed_input"]["pos_embedding"]
    assert permutations.block is not None and permutations.pixel is not None
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    for i, source in enumerate(permutations.block):
        np.testing.assert_array_equal(after[0, 1 + i], before[0, 1 + source])
    rows, permuted = (tree["embedding"]["kernel"].reshape(-1, 16) for tree in (params, adapted))
    for i, source in enumerate(permutations.pixel):
        np.testing.assert_array_equal(permuted[i], rows[source])


def test_adapts_jax_arrays_under_jit():
    config = tiny_model()
    params, permutations = random_params(config), _permutations(config, "bs+ps", SecretKey(bytes(32)))
    jitted = jax.jit(lambda tree: adapt(tree, permutations))(params)
    assert_same_tree(jax.device_get(jitted), adapt(params, permutations))


@pytest.mark.parametrize(("encryption", "word"), [("bs", "patches"), ("ps", "values")])
def test_permutations_of_another_size_are_named(encryption, word):
    params = random_params(tiny_model(image_size=16, patch_size=4))
    permutations = SecretKey(bytes(32)).permutations(encryption, image_size=16, patch_size=8)
    for act in (adapt, restore):
        with pytest.raises(UserError, match=rf"permutation has \d+ places, and the model has \d+ {word}"):
            act(params, permutations)
    with pytest.raises(UserError, match="different sizes"):
        good = SecretKey(bytes(32)).permutations(encryption, image_size=16, patch_size=4)
        rekey(params, good, permutations)
