import io

import jax
import numpy as np
import pytest
from helpers.tiny import random_images
from PIL import Image

from ppvit_jax import encryption
from ppvit_jax.data.preprocess import preprocess
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.offline.recipe import Augmentation, Recipe, make_decryptor, make_encryptor

PERMUTATIONS = Permutations(
    block=np.random.default_rng(0).permutation(64).astype(np.int32),
    pixel=np.random.default_rng(1).permutation(192).astype(np.int32),
)


def _encrypt(image, _):
    return encryption.encrypt(image, PERMUTATIONS, 8)


def _keep(image, _):
    return image


def _decode(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("size", [32, 64, 100])
def test_files_are_bit_for_bit_what_is_encrypted_on_the_device(size):
    """The device encrypts batches, a recipe single images."""
    images = random_images(16, size)
    on_device = encryption.encrypt(jax.jit(preprocess, static_argnums=1)(images, 64), PERMUTATIONS, 8)
    recipe = Recipe(64, _encrypt)
    for number, image in enumerate(images):
        (content,) = recipe.apply(image, number, "it", augments=True)
        np.testing.assert_array_equal(_decode(content), np.asarray(on_device[number]))


def test_files_carry_pixels_and_nothing_else():
    (content,) = Recipe(64, _keep).apply(random_images(1, 64)[0], 0, "it", augments=True)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
    assert {content[8 + 4 : 8 + 8], content[-8:-4]} == {b"IHDR", b"IEND"}


@pytest.mark.slow
def test_augmented_copies_depend_on_seed_image_and_copy_alone():
    image = random_images(1, 64)[0]
    recipe = Recipe(64, _keep, augmentation=Augmentation("flip+crop", copies=3, seed=5))
    first = recipe.apply(image, 7, "it", augments=True)
    assert len(first) == 3 and len(set(first)) > 1
    assert recipe.apply(image, 7, "it", augments=True) == first
    assert recipe.apply(image, 8, "it", augments=True) != first
    other = Recipe(64, _keep, augmentation=Augmentation("flip+crop", copies=3, seed=6))
    assert other.apply(image, 7, "it", augments=True) != first
    (plain,) = recipe.apply(image, 7, "it", augments=False)
    np.testing.assert_array_equal(_decode(plain), image)


@pytest.mark.slow
def test_augmentation_comes_before_encryption():
    image = random_images(1, 64)[0]
    augmentation = Augmentation("flip+crop", copies=4)
    plain = Recipe(64, _keep, augmentation=augmentation).apply(image, 0, "it", augments=True)
    encrypted = Recipe(64, _encrypt, augmentation=augmentation).apply(image, 0, "it", augments=True)
    for one, other in zip(plain, encrypted, strict=True):
        np.testing.assert_array_equal(encryption.encrypt(_decode(one), PERMUTATIONS, 8), _decode(other))


def test_an_encrypted_image_is_never_resized():
    with pytest.raises(UserError, match="it has 32 x 32 pixels, but encrypted images have 64 x 64"):
        Recipe(64, _encrypt, resizes=False).apply(random_images(1, 32)[0], 0, "it", augments=False)


def test_a_decryptor_is_the_inverse_of_an_encryptor():
    method = encryption.parse("etc", 8)
    assert method is not None
    secret = method.derive(SecretKey(bytes(32)), height=64, width=64)
    image = random_images(1, 64)[0]
    encrypted = make_encryptor(method, secret)(image, 7)
    assert (encrypted != image).any()
    np.testing.assert_array_equal(make_decryptor(method, secret)(encrypted, 3), image)


def test_a_method_without_an_inverse_for_all_images_has_no_decryptor():
    method = encryption.parse("pe:keys=per_image", 8)
    assert method is not None
    with pytest.raises(UserError):
        make_decryptor(method, method.derive(SecretKey(bytes(32)), height=64, width=64))
