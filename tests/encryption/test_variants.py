"""Every encryption, with numpy and on a device, compiled or not: one result, and one compilation for all keys."""

from typing import Any

import chex
import jax
import numpy as np
import pytest
from absl.testing import parameterized
from helpers.tiny import random_images

from ppvit_jax.encryption import METHODS, parse
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

# The networks are small, and per-image keys take another code path of the same method.
SPECS = [name for name in METHODS if name != "neuracrypt"] + ["neuracrypt:depth=1,width=16", "pe:keys=per_image"]
ALL_VARIANTS: Any = chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
KEYS = [SecretKey(bytes([number] * 32)) for number in range(3)]
IMAGES, NUMBERS = random_images(2, 12)[:, :8], np.arange(2, dtype=np.uint32)
# Methods whose secret is an "index" without a mask, so that they share one compiled program.
WITHOUT_MASK = ("bs", "ps", "bs+ps", "restricted", "bs+pps")


def _derive(spec, key):
    method = parse(spec, 4)
    return method, method.derive(key, height=8, width=12)


def _assert_same(method, actual, expected):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=0, atol=1e-5 if method.encodes else 0)


class VariantsTest(chex.TestCase):
    @ALL_VARIANTS
    @parameterized.parameters(*SPECS)
    def test_encryption_is_that_of_numpy(self, spec):
        method, secret = _derive(spec, KEYS[0])
        expected = method.encrypt(IMAGES, secret, NUMBERS)
        assert isinstance(expected, np.ndarray)
        _assert_same(method, self.variant(method.encrypt)(IMAGES, secret, NUMBERS), expected)

    @ALL_VARIANTS
    @parameterized.parameters(*SPECS)
    def test_decryption_gives_the_images_back(self, spec):
        method, secret = _derive(spec, KEYS[0])
        decrypt, encrypted = self.variant(method.decrypt), method.encrypt(IMAGES, secret, NUMBERS)
        if method.encodes:
            with pytest.raises(UserError, match="has no inverse"):
                decrypt(encrypted, secret, NUMBERS)
        else:
            _assert_same(method, decrypt(encrypted, secret, NUMBERS), IMAGES)


@pytest.mark.parametrize("spec", SPECS)
def test_another_key_does_not_compile_again(spec):
    chex.clear_trace_counter()
    method = parse(spec, 4)
    compiled = jax.jit(chex.assert_max_traces(method.encrypt, n=1))
    for key in KEYS:
        _, secret = _derive(spec, key)
        _assert_same(method, compiled(IMAGES, secret, NUMBERS), method.encrypt(IMAGES, secret, NUMBERS))


def test_methods_that_only_move_values_share_one_compilation():
    chex.clear_trace_counter()
    compiled = jax.jit(chex.assert_max_traces(parse("bs", 4).program.encrypt, n=1))
    for spec in WITHOUT_MASK:
        method, secret = _derive(spec, KEYS[0])
        _assert_same(method, compiled(IMAGES, secret), method.encrypt(IMAGES, secret))
    # The guard notices a second compilation.
    with pytest.raises(AssertionError, match="traced > 1 times"):
        compiled(IMAGES, _derive("np", KEYS[0])[1])
