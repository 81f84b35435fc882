"""The public interface of the package: short functions for permutations, and imports that it avoids."""

import subprocess
import sys

import numpy as np
import pytest
from helpers.tiny import random_images

from ppvit_jax import encryption
from ppvit_jax.encryption import METHODS, Permutations, decrypt, derive_permutations, encrypt, usual_block_size
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEY = SecretKey(bytes(range(32)))


def test_permutations_are_those_that_a_method_absorbs():
    for spec, block, pixel in (("none", None, None), ("bs", 196, None), ("ps", None, 768), ("bs+ps", 196, 768)):
        permutations = derive_permutations(KEY, spec, image_size=224, block_size=16)
        for permutation, label, length in ((permutations.block, "block", block), (permutations.pixel, "pixel", pixel)):
            if length is None:
                assert permutation is None
            else:
                np.testing.assert_array_equal(permutation, KEY.permutation(label, length))


@pytest.mark.parametrize(
    ("spec", "image_size", "block_size", "message"),
    [
        ("rot13", 224, 16, "unknown encryption 'rot13'"),
        ("le", 224, 16, "cannot be adapted to le"),
        ("bs", 225, 16, "image size 225 is not a multiple of the block size 16"),
        ("none", 225, 16, "image size 225 is not a multiple of the block size 16"),
        ("none", 224, 0, "image size 224 is not a multiple of the block size 0"),
        ("bs", -16, 16, "image size -16 is not a multiple of the block size 16"),
    ],
)
def test_impossible_permutations_are_named(spec, image_size, block_size, message):
    with pytest.raises(UserError, match=message) as caught:
        derive_permutations(KEY, spec, image_size=image_size, block_size=block_size)
    assert "\n" not in str(caught.value)


def test_the_block_size_may_have_its_former_name():
    images, permutations = random_images(2, 16), derive_permutations(KEY, "bs+ps", image_size=16, block_size=4)
    encrypted = encrypt(images, permutations, 4)
    for options in ({"block_size": 4}, {"patch_size": 4}):
        np.testing.assert_array_equal(encrypt(images, permutations, **options), encrypted)
        np.testing.assert_array_equal(decrypt(encrypted, permutations, **options), images)
    with pytest.raises(UserError, match="does not divide into blocks of 0x0"):
        encrypt(images, Permutations())


def test_le_and_ele_usually_have_blocks_of_4_and_others_those_of_the_model():
    sizes = {name: usual_block_size(name, 16) for name in METHODS}
    assert {name for name, size in sizes.items() if size == 4} == {"le", "ele"}
    assert set(sizes.values()) == {4, 16}
    assert usual_block_size("le:np_key=independent", 16) == 4
    # `create` reports an unknown name, not this function.
    assert usual_block_size("rot13", 8) == 8


def test_the_face_of_the_package_has_no_internals():
    assert set(encryption.__all__) >= {"METHODS", "Permutations", "create", "derive_permutations", "encrypt", "decrypt"}
    for name in ("apply_index", "gather_index", "gather_mask"):
        assert not hasattr(encryption, name)


def test_encrypting_numpy_images_loads_neither_jax_nor_chex():
    program = """
import sys
import numpy as np
from ppvit_jax import encryption
from ppvit_jax.keys import SecretKey

for spec in [name for name in encryption.METHODS if name != "neuracrypt"] + ["pe:keys=per_image"]:
    method = encryption.parse(spec, 8)
    secret = method.derive(SecretKey(bytes(32)), height=16, width=16)
    method.encrypt(np.zeros((2, 16, 16, 3), np.uint8), secret, np.arange(2, dtype=np.uint32))
print([name for name in ("jax", "jaxlib", "chex", "flax") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
