import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import (
    ENCRYPTIONS,
    Permutations,
    apply_index,
    block_scrambling,
    decrypt,
    encrypt,
    gather_index,
    pixel_shuffling,
)
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

DTYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


@st.composite
def cases(draw):
    """Images of any shape, their permutations and the side of a block."""
    patch = draw(st.integers(1, 6))
    rows, columns, channels = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 4]))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (*batch, rows * patch, columns * patch, channels)
    dtype = draw(st.sampled_from(DTYPES))
    images = random.integers(0, 256, shape).astype(dtype)
    if dtype not in (np.uint8, np.uint16):
        images = (images / 255).astype(dtype)
    block = random.permutation(rows * columns).astype(np.int32)
    pixel = random.permutation(patch * patch * channels).astype(np.int32)
    block_used, pixel_used = draw(st.sampled_from(list(ENCRYPTIONS.values())))
    return images, Permutations(block if block_used else None, pixel if pixel_used else None), patch


def _loop(images, permutations, patch):
    """The definition, value by value: which place of which block goes where."""
    height, width, channels = images.shape[-3:]
    columns = width // patch
    result = np.empty_like(images)
    for target_block in range(height // patch * columns):
        source_block = target_block if permutations.block is None else permutations.block[target_block]
        for target in range(patch * patch * channels):
            source = target if permutations.pixel is None else permutations.pixel[target]

            def place(block, value):
                row, rest = divmod(int(value), patch * channels)
                column, channel = divmod(rest, channels)
                return (..., block // columns * patch + row, block % columns * patch + column, channel)

            result[place(target_block, target)] = images[place(source_block, source)]
    return result


@settings(deadline=None, max_examples=60)
@given(cases())
def test_encryption_is_its_definition_and_decryption_its_inverse(case):
    images, permutations, patch = case
    before = images.copy()
    encrypted = encrypt(images, permutations, patch)
    assert (encrypted.dtype, encrypted.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(encrypted, _loop(images, permutations, patch))
    np.testing.assert_array_equal(decrypt(encrypted, permutations, patch), images)
    np.testing.assert_array_equal(images, before)


@settings(deadline=None, max_examples=25)
@given(cases())
def test_on_device_and_offline_encryption_agree_bit_for_bit(case):
    images, permutations, patch = case
    with jax.enable_x64(True):
        jitted = jax.jit(lambda x: encrypt(x, permutations, patch))(images)
        back = jax.jit(lambda x: decrypt(x, permutations, patch))(jitted)
    offline = encrypt(images, permutations, patch)
    assert jitted.dtype == offline.dtype
    assert np.asarray(jitted).tobytes() == np.ascontiguousarray(offline).tobytes()
    assert np.asarray(back).tobytes() == np.ascontiguousarray(images).tobytes()


@settings(deadline=None, max_examples=25)
@given(cases())
def test_block_scrambling_and_pixel_shuffling_commute(case):
    images, _, patch = case
    height, width, channels = images.shape[-3:]
    random = np.random.default_rng(0)
    block = random.permutation(height * width // patch**2)
    pixel = random.permutation(patch * patch * channels)
    one = pixel_shuffling.encrypt(block_scrambling.encrypt(images, block, patch), pixel, patch)
    other = block_scrambling.encrypt(pixel_shuffling.encrypt(images, pixel, patch), block, patch)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, encrypt(images, Permutations(block, pixel), patch))
    undone = block_scrambling.decrypt(pixel_shuffling.decrypt(one, pixel, patch), block, patch)
    np.testing.assert_array_equal(undone, images)


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
def test_real_size(encryption):
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    permutations = SecretKey(bytes(32)).permutations(encryption, image_size=224, patch_size=16)
    encrypted = encrypt(images, permutations, 16)
    np.testing.assert_array_equal(encrypted[:1], _loop(images[:1], permutations, 16))
    np.testing.assert_array_equal(jax.jit(lambda x: encrypt(x, permutations, 16))(images), encrypted)
    np.testing.assert_array_equal(decrypt(encrypted, permutations, 16), images)
    assert (encrypted == images).all() == (encryption == "none")


@pytest.mark.parametrize("encryption", ["bs", "ps", "bs+ps"])
def test_encryption_is_one_gather(encryption):
    permutations = SecretKey(bytes(32)).permutations(encryption, image_size=32, patch_size=8)
    images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    lowered = jax.jit(lambda x: encrypt(x, permutations, 8)).lower(images).as_text()
    assert lowered.count('"stablehlo.gather"') == 1
    assert "stablehlo.transpose" not in lowered


@pytest.mark.parametrize("size", [(0, 8), (8, 12), (12, 8), (7, 7)])
def test_sizes_that_do_not_divide_are_named(size):
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]} does not divide into blocks of 8x8"):
        encrypt(np.zeros((*size, 3), np.uint8), Permutations(), 8)


def test_permutations_of_another_size_are_named():
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match=r"block permutation has shape \(9,\).* need \(4,\)"):
        block_scrambling.encrypt(image, np.arange(9), 8)
    with pytest.raises(UserError, match=r"pixel permutation has shape \(64,\).* need \(192,\)"):
        pixel_shuffling.decrypt(image, np.arange(64), 8)
    index = gather_index(Permutations(), height=16, width=16, patch_size=8)
    with pytest.raises(UserError, match="an index for 768 values does not fit"):
        apply_index(np.zeros((8, 8, 3), np.uint8), index)
