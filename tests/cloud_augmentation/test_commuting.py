"""The encryptions that each augmentation is said to commute with, checked on encrypted bytes under random keys."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_images

from ppvit_jax import cloud_augmentation, models
from ppvit_jax.cloud_augmentation import (
    METHODS,
    brightness,
    commutes_exactly,
    contrast,
    cutmix,
    find_obstacle,
    mixup,
    next_examples,
)
from ppvit_jax.encryption import METHODS as ENCRYPTIONS
from ppvit_jax.encryption import parse
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

SIZE, COUNT = 16, 3
# Encryption, and the sides of its blocks and of the model's patches.
CASES = [
    *[(spec, 4, 4) for spec in ("bs", "ps", "bs+ps", "restricted", "np", "bs+ps+np", "bs+ps+np:shared=False")],
    *[(spec, 4, 4) for spec in ("bs+pps", "bs+pps:shared=none", "etc", "etc:sub_block_size=2,shared=True")],
    *[(spec, 4, 4) for spec in ("etc:negative_positive=False", "etc:channels=published", "etc:channels=in_place")],
    *[(spec, 4, 4) for spec in ("pe", "pe:colour=False", "pe:keys=per_image", "le", "le:np_key=independent", "ele")],
    *[(spec, 4, 4) for spec in ("color-neuracrypt:depth=1", "color-neuracrypt:depth=1,separate=True")],
    ("color-neuracrypt:depth=1,statistics=batch", 4, 4),
    *[(spec, 4, 8) for spec in ("bs", "ps", "np", "bs+ps", "pe", "le", "ele", "color-neuracrypt:depth=1")],
    *[(spec, 8, 4) for spec in ("bs+ps", "ps", "le")],
]


@functools.cache
def _encryption(spec, block_size):
    """Returns a function that encrypts numbered images."""
    method = parse(spec, block_size)
    secret = method.derive(SecretKey(bytes(range(32))), height=SIZE, width=SIZE)
    return lambda images: np.asarray(method.encrypt(np.asarray(images, np.uint8), secret, np.arange(COUNT)))


def _images():
    # Odd, so that the mean of two is whole; and far from black and white.
    return random_images(COUNT, SIZE) // 4 * 2 + 65


def _computes_alike(encrypt, change, images):
    """Tests encrypt(change(images)) = change(encrypt(images)) for a function of floating-point images."""
    changed = np.asarray(change(jnp.asarray(images, jnp.float32)))
    assert (changed == changed.round()).all() and changed.min() >= 0 and changed.max() <= 255
    other = np.asarray(change(jnp.asarray(encrypt(images), jnp.float32)))
    return np.allclose(encrypt(changed), other, atol=1e-4)


def _patches(images, patch):
    grid = images.reshape(len(images), SIZE // patch, patch, SIZE // patch, patch, 3).swapaxes(2, 3)
    return grid.reshape(len(images), (SIZE // patch) ** 2, -1)


def _places(encrypt, patch):
    """Traces patches: returns the place of each in the encrypted image, or None if a change of one reaches several."""
    before, places = _patches(encrypt(_images()), patch), []
    for row in range(0, SIZE, patch):
        for column in range(0, SIZE, patch):
            images = _images()
            images[:, row : row + patch, column : column + patch] ^= 255
            moved = np.argwhere((_patches(encrypt(images), patch) != before).any((0, 2))).ravel()
            if len(moved) != 1:
                return None
            places += moved.tolist()
    return np.array(places) if len(set(places)) == len(places) else None


def _exchanges_alike(encrypt, patch, places):
    """Tests that patches of the plain images can be exchanged in the encrypted ones, at the places where they are."""
    images = _images()
    taken = np.random.default_rng(0).random((COUNT, len(places))) < 0.5
    moved = np.empty_like(taken)
    moved[:, places] = taken
    plain, encrypted = (
        np.asarray(cutmix.exchange(jnp.asarray(array), next_examples(jnp.asarray(array)), jnp.asarray(sets), patch))
        for array, sets in ((images, taken), (encrypt(images), moved))
    )
    return np.allclose(encrypt(plain), encrypted, atol=1e-4)


CHANGES = {
    "mixup": lambda x: mixup.mix(x, next_examples(x), jnp.full(COUNT, 0.5)),
    "contrast": lambda x: contrast.scale(x, jnp.full(COUNT, 3.0)),
    "brightness": lambda x: brightness.shift(x, jnp.full(COUNT, 40.0)),
}


@pytest.mark.parametrize(("spec", "block_size", "patch"), CASES)
def test_each_method_commutes_with_exactly_those_encryptions_that_it_accepts(spec, block_size, patch):
    encrypt, encryption = _encryption(spec, block_size), parse(spec, block_size)
    for name, change in CHANGES.items():
        accepted = not find_obstacle(METHODS[name](), encryption, patch)
        assert _computes_alike(encrypt, change, _images()) == accepted, name
        assert commutes_exactly(METHODS[name](), encryption)
    places = _places(encrypt, patch)
    assert (places is not None) == (not find_obstacle(METHODS["token_drop"](), encryption, patch))
    exchanges = places is not None and _exchanges_alike(encrypt, patch, places)
    assert exchanges == (not find_obstacle(METHODS["cutmix"](), encryption, patch))
    if places is not None:
        in_place = (places == np.arange(len(places))).all()
        assert in_place == commutes_exactly(METHODS["token_drop"](), encryption)


def test_the_cases_cover_every_encryption_of_images_and_every_method_has_its_change():
    assert {spec.partition(":")[0] for spec, _, _ in CASES} == ENCRYPTIONS.keys() - {"neuracrypt"}
    assert CHANGES.keys() == {name for name, method in METHODS.items() if not method.draws_blocks}


REASONS = {
    ("mixup", "pe:keys=per_image"): "because every image has a key of its own, and the mixture would belong to none",
    ("cutmix", "pe:keys=per_image"): "because every image has a key of its own",
    ("mixup", "le"): "because it changes values in a way that is not linear: leave mixup out",
    ("contrast", "neuracrypt"): "because it changes values in a way that is not linear",
    ("cutmix", "neuracrypt"): "because every image has a key of its own",
    ("brightness", "np"): "because it inverts values, and those become darker where the image becomes brighter",
    ("brightness", "etc:shared=True"): "because it inverts values",
    ("token_drop", "color-neuracrypt:statistics=batch"): "an encrypted patch depends on all images of its batch",
}


@pytest.mark.parametrize(("method", "encryption"), REASONS)
def test_what_does_not_commute_is_refused_by_name(method, encryption):
    augmentations = cloud_augmentation.parse(method)
    with pytest.raises(UserError, match=REASONS[method, encryption]) as caught:
        augmentations.check_encryption(parse(encryption, 16), 16)
    text = str(caught.value)
    assert text.startswith(
        f"config.cloud_augmentation has {method}, which does not commute with encryption {encryption}"
    )
    assert "\n" not in text
    augmentations.check_encryption(None, 16)


def test_blocks_that_tear_patches_apart_are_refused():
    with pytest.raises(UserError, match=r"its blocks of 8x8 tear the model's patches of 16x16 apart: leave cutmix out"):
        cloud_augmentation.parse("cutmix").check_encryption(parse("bs+ps", 8), 16)


def _model(name):
    return models.parse_name(name, image_size=32, num_classes=2)


@pytest.mark.parametrize(
    ("spec", "model", "batch_size", "message"),
    [
        ("mixup", "ViT-Ti/16", 1, "has mixup, which mixes two images, and config.batch_size is 1: give at least 2"),
        ("cutmix", "ResNet-18", 8, "has cutmix, which needs a model that cuts images into patches"),
        ("cutmix", "NeuraCrypt-64/16", 8, "has cutmix, which needs a model that cuts images into patches"),
        ("token_drop", "ConvMixer-64/2", 8, "has token_drop, which needs a Vision Transformer"),
    ],
)
def test_models_and_batches_that_do_not_suit_are_named(spec, model, batch_size, message):
    with pytest.raises(UserError, match=message):
        cloud_augmentation.parse(spec).check_model(_model(model), batch_size)


def test_models_and_batches_that_suit_are_accepted():
    cloud_augmentation.parse("+".join(METHODS)).check_model(_model("DINOv3-S/16"), 2)
    cloud_augmentation.parse("mixup+cutmix").check_model(_model("ConvMixer-64/2"), 2)
    cloud_augmentation.parse("mixup+contrast+brightness").check_model(_model("ResNet-18"), 2)
    cloud_augmentation.parse("token_drop").check_model(_model("ViT-Ti/16"), 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "has '': use none, or some of contrast, brightness, mixup, cutmix, token_drop joined by +"),
        ("flip", "has 'flip': use none, or some of"),
        ("mixup+none", "has 'none': use none, or some of"),
        ("mixup+mixup:alpha=1", "has mixup twice: give each method once"),
        ("mixup:beta=1", "mixup has no option 'beta=1': give alpha=0.2, or another value"),
        ("cutmix:alpha", "cutmix has no option 'alpha': give alpha=1.0"),
        ("mixup:alpha=0", "alpha of mixup is 0.0: give a positive number"),
        ("mixup:alpha=some", "alpha of mixup is 'some': give a number that is above 0"),
        ("mixup:alpha=nan", "alpha of mixup is nan: give a number"),
        ("mixup:alpha=1e+3", "alpha of mixup is 1000.0: give at most 100"),
        ("token_drop:rate=1", "rate of token_drop is 1.0: give less than 1"),
        ("contrast:strength=2", "strength of contrast is 2.0: give at most 1"),
    ],
)
def test_impossible_specs_are_named_in_one_line(spec, message):
    with pytest.raises(UserError, match=message.replace("+", r"\+")) as caught:
        cloud_augmentation.parse(spec)
    assert str(caught.value).startswith("config.cloud_augmentation") and "\n" not in str(caught.value)


def test_options_are_read():
    first, second = cloud_augmentation.parse("token_drop:rate=0.5+mixup:alpha=1e+1").methods
    assert (first, second) == (METHODS["mixup"](alpha=10.0), METHODS["token_drop"](rate=0.5))  # type: ignore[call-arg]
