import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import Permutations, decrypt, derive_permutations, encrypt, parse
from ppvit_jax.encryption.blockwise import Gather, make_secret
from ppvit_jax.encryption.permutations import split_blocks
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

DTYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
ABSORBED = ["none", "bs", "ps", "bs+ps", "np", "bs+ps+np", "bs+pps", "restricted", "etc:shared=True"]


def _draw(random, blocks, values, *, block, pixel, negative):
    """Draws random permutations; `pixel` and `negative` are "none", "alike" in all blocks, or different in "each"."""
    return Permutations(
        block=random.permutation(blocks).astype(np.int32) if block else None,
        pixel={
            "none": lambda: None,
            "alike": lambda: random.permutation(values).astype(np.int32),
            "each": lambda: np.stack([random.permutation(values) for _ in range(blocks)]).astype(np.int32),
        }[pixel](),
        negative={
            "none": lambda: None,
            "alike": lambda: random.random(values) < 0.5,
            "each": lambda: random.random((blocks, values)) < 0.5,
        }[negative](),
    )


@st.composite
def cases(draw):
    """Draws images of any shape, their permutations and the side of a block."""
    patch = draw(st.integers(1, 6))
    rows, columns, channels = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 4]))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = st.sampled_from(["none", "alike", "each"])
    block, pixel, negative = draw(st.booleans()), draw(parts), draw(parts)
    shape = (*batch, rows * patch, columns * patch, channels)
    dtype = draw(st.sampled_from(DTYPES)) if negative == "none" else np.uint8
    images = random.integers(0, 256, shape).astype(dtype)
    if dtype not in (np.uint8, np.uint16):
        images = (images / 255).astype(dtype)
    size = rows * columns, patch * patch * channels
    return images, _draw(random, *size, block=block, pixel=pixel, negative=negative), patch


def _loop(images, permutations, patch):
    """Encrypts value by value, by the definition: looks up the source of each place, and inverts it if so marked."""
    height, width, channels = images.shape[-3:]
    columns = width // patch
    result = np.empty_like(images)

    def of(part, block):
        return part if part is None or part.ndim == 1 else part[block]

    for target_block in range(height // patch * columns):
        source_block = target_block if permutations.block is None else permutations.block[target_block]
        pixel, negative = of(permutations.pixel, target_block), of(permutations.negative, target_block)
        for target in range(patch * patch * channels):
            source = target if pixel is None else pixel[target]

            def place(block, value):
                row, rest = divmod(int(value), patch * channels)
                column, channel = divmod(rest, channels)
                return (..., block // columns * patch + row, block % columns * patch + column, channel)

            moved = images[place(source_block, source)]
            result[place(target_block, target)] = moved if negative is None or not negative[target] else 255 - moved
    return result


@settings(deadline=None, max_examples=100)
@given(cases())
def test_encryption_is_its_definition_and_decryption_its_inverse(case):
    images, permutations, patch = case
    before = images.copy()
    encrypted = encrypt(images, permutations, patch)
    assert (encrypted.dtype, encrypted.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(encrypted, _loop(images, permutations, patch))
    np.testing.assert_array_equal(decrypt(encrypted, permutations, patch), images)
    np.testing.assert_array_equal(_loop(encrypted, permutations.inverse(), patch), images)
    np.testing.assert_array_equal(images, before)


@settings(deadline=None, max_examples=50)
@given(cases())
def test_the_inverse_of_the_inverse_moves_alike(case):
    _, permutations, _ = case
    twice = permutations.inverse().inverse()
    assert permutations.inverse().alike == twice.alike == permutations.alike
    for field in dataclasses.fields(Permutations):
        before, after = getattr(permutations, field.name), getattr(twice, field.name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(np.broadcast_to(before, after.shape), after)


@pytest.mark.slow
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
@given(cases(), st.booleans())
def test_block_scrambling_and_what_all_blocks_share_commute(case, inverted):
    images, _, patch = case
    images = images.astype(np.uint8) if inverted else images
    height, width, channels = images.shape[-3:]
    size = height * width // patch**2, patch * patch * channels
    negative = "alike" if inverted else "none"
    both = _draw(np.random.default_rng(0), *size, block=True, pixel="alike", negative=negative)
    scrambling, inside = Permutations(block=both.block), Permutations(pixel=both.pixel, negative=both.negative)
    scrambled_first = encrypt(encrypt(images, scrambling, patch), inside, patch)
    scrambled_last = encrypt(encrypt(images, inside, patch), scrambling, patch)
    np.testing.assert_array_equal(scrambled_first, scrambled_last)
    np.testing.assert_array_equal(scrambled_first, encrypt(images, both, patch))
    undone = decrypt(decrypt(scrambled_first, inside, patch), scrambling, patch)
    np.testing.assert_array_equal(undone, images)


def test_what_each_block_has_of_its_own_belongs_to_the_encrypted_block():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8)
    both = _draw(np.random.default_rng(0), 6, 48, block=True, pixel="each", negative="each")
    scrambling, inside = Permutations(block=both.block), Permutations(pixel=both.pixel, negative=both.negative)
    expected = encrypt(images, both, 4)
    np.testing.assert_array_equal(encrypt(encrypt(images, scrambling, 4), inside, 4), expected)
    assert (encrypt(encrypt(images, inside, 4), scrambling, 4) != expected).any()
    assert not both.alike and not inside.alike and scrambling.alike and Permutations().alike


@pytest.mark.slow
@pytest.mark.parametrize("encryption", ABSORBED)
def test_real_size(encryption):
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    permutations = derive_permutations(SecretKey(bytes(32)), encryption, image_size=224, block_size=16)
    encrypted = encrypt(images, permutations, 16)
    np.testing.assert_array_equal(encrypted[:1], _loop(images[:1], permutations, 16))
    np.testing.assert_array_equal(jax.jit(lambda x: encrypt(x, permutations, 16))(images), encrypted)
    np.testing.assert_array_equal(decrypt(encrypted, permutations, 16), images)
    assert (encrypted == images).all() == (encryption == "none")


@pytest.mark.parametrize("pixel", ["alike", "each"])
@pytest.mark.parametrize("negative", ["none", "alike", "each"])
def test_encryption_is_one_gather(pixel, negative):
    permutations = _draw(np.random.default_rng(0), 16, 192, block=True, pixel=pixel, negative=negative)
    images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    lowered = jax.jit(lambda x: encrypt(x, permutations, 8)).lower(images).as_text()
    assert lowered.count('"stablehlo.gather"') == 1
    assert lowered.count("stablehlo.xor") == (negative != "none")
    assert "stablehlo.transpose" not in lowered


@pytest.mark.parametrize("size", [(0, 8), (8, 12), (12, 8), (7, 7)])
def test_sizes_that_do_not_divide_are_named(size):
    named = rf"{size[0]}x{size[1]} does not divide into blocks of 8x8"
    with pytest.raises(UserError, match=named):
        encrypt(np.zeros((*size, 3), np.uint8), Permutations(), 8)
    with pytest.raises(UserError, match=named):
        make_secret(Permutations(negative=np.zeros(192, bool)), size[0], size[1], 8)


def test_permutations_of_another_size_are_named():
    image = np.zeros((16, 16, 3), np.uint8)
    for change in (encrypt, decrypt):
        with pytest.raises(UserError, match=r"block permutation has shape \(9,\).* need \(4,\)"):
            change(image, Permutations(block=np.arange(9)), 8)
        with pytest.raises(UserError, match=r"pixel permutation has shape \(64,\).* need \(192,\)"):
            change(image, Permutations(pixel=np.arange(64)), 8)
        with pytest.raises(UserError, match=r"pixel permutation has shape \(9, 192\).* need \(192,\)"):
            change(image, Permutations(pixel=np.tile(np.arange(192), (9, 1))), 8)
        with pytest.raises(UserError, match=r"mask of inverted values has shape \(9, 192\).* need \(192,\)"):
            change(image, Permutations(negative=np.zeros((9, 192), bool)), 8)
    with pytest.raises(UserError, match="an index for 768 values does not fit"):
        Gather(block_size=1).encrypt(np.zeros((8, 8, 3), np.uint8), make_secret(Permutations(), 16, 16, 8))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int8])
def test_only_bytes_are_inverted(dtype):
    images, permutations = np.zeros((16, 16, 3), dtype), Permutations(negative=np.ones(192, bool))
    for change in (encrypt, decrypt):
        with pytest.raises(UserError, match=f"values of {np.dtype(dtype)} cannot be inverted: give uint8 images"):
            change(images, permutations, 8)


def _tokens(images, kernels, positions, size):
    """Embeds patches: E_pos[i] + x[i] E[i], with x / 127.5 - 1 as values; float64 [images, patches, hidden]."""
    patches = split_blocks(images, size) / 127.5 - 1
    kernels = np.broadcast_to(kernels, (patches.shape[1], *kernels.shape[-2:]))
    return np.einsum("nij,ijh->nih", patches, kernels) + positions


@pytest.mark.parametrize("spec", ["etc", "etc:sub_block_size=4", "bs+ps+np:shared=False", "bs+pps:shared=none", "pe"])
def test_keys_for_each_block_are_absorbed_by_a_kernel_for_each_position_and_by_no_shared_one(spec):
    """With s the signs of inverted values, E'[i, j] = s[i, j] E[pixel[i, j]] and E_pos'[i] = E_pos[block[i]]."""
    size, side, hidden, random = 8, 32, 5, np.random.default_rng(0)
    method, key = parse(spec, size), SecretKey(bytes(32))
    with pytest.raises(UserError, match="the patch embedding has one kernel for all blocks"):
        method.absorb(key, height=side, width=side)
    images = random.integers(0, 256, (30, side, side, 3), np.uint8)
    blocks, values = (side // size) ** 2, size * size * 3
    kernel, positions = random.standard_normal((values, hidden)), random.standard_normal((blocks, hidden))
    secret = method.derive(key, height=side, width=side)
    encrypted = method.encrypt(images, secret)

    # The plain block and place that every encrypted value comes from.
    places = split_blocks(np.arange(side * side * 3).reshape(side, side, 3), size)
    source = split_blocks(np.asarray(secret["index"]).reshape(side, side, 3), size)
    block, pixel = np.divmod(np.argsort(places, axis=None)[source], values)
    assert (block == block[:, :1]).all()
    block = block[:, 0]
    negative = split_blocks(np.asarray(secret.get("mask", np.zeros(side * side * 3))).reshape(side, side, 3), size) > 0
    own = np.where(negative, -1, 1)[..., None] * kernel[pixel]

    plain = _tokens(images, kernel, positions, size)
    np.testing.assert_allclose(
        _tokens(encrypted, own, positions[block], size), plain[:, block], rtol=0, atol=1e-13 * abs(plain).max()
    )
    # The best shared kernel, by least squares, leaves most of the tokens' variance.
    wanted = (plain[:, block] - positions[block]).reshape(-1, hidden)
    seen = (split_blocks(encrypted, size) / 127.5 - 1).reshape(-1, values)
    shared = np.linalg.lstsq(seen, wanted, rcond=None)[0]
    assert np.square(seen @ shared - wanted).mean() > 0.1 * wanted.var()
