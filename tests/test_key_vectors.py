"""Test vectors of docs/key_format.md, checked against the package and against a second implementation here."""

import hashlib
import hmac
import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax.encryption import METHODS, ColorNeuraCrypt, NeuraCrypt, chacha, parse
from ppvit_jax.encryption.neuracrypt import reference_images
from ppvit_jax.keys import SecretKey

KEY = SecretKey(bytes(range(32)))
DOCUMENT = (Path(__file__).parents[1] / "docs" / "key_format.md").read_text()


def _table(*header):
    """Returns the rows below a header, which occurs once in the document, without the marks of code."""
    lines = iter(DOCUMENT.split("## Test vectors\n")[1].split("\n## ")[0].splitlines())
    (start, *others) = [line for line in lines if line == f"| {' | '.join(header)} |"]
    assert not others
    below = DOCUMENT.split(f"{start}\n")[1].splitlines()[1:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), below)
    return [tuple(cell.strip().strip("`") for cell in row.strip("|").split("|")) for row in rows]


def _names(rows, column=0):
    return [row[column] for row in rows]


PERMUTATIONS = _table("Label", "First eight", "Last eight", "SHA-256")
DRAWN = _table("Drawn", "Label", "First eight", "Last eight", "SHA-256")
IMAGES = _table("Number", "First eight", "Last eight", "SHA-256")
NETWORKS = _table("Label", "First four", "SHA-256")
ENCRYPTIONS = _table("Encryption", "Block size", "SHA-256")
ENCODINGS = _table("Encryption", "Block size", "First four")


def _published(numbers):
    """Formats integers as the document shows them."""
    content = struct.pack(f"<{len(numbers)}I", *numbers)
    return *(" ".join(map(str, part)) for part in (numbers[:8], numbers[-8:])), hashlib.sha256(content).hexdigest()


def _reference_subkey(master, label, length):
    """Computes HKDF-SHA256 as RFC 5869 defines it, with the standard library alone."""
    pseudorandom = hmac.new(bytes(32), master, hashlib.sha256).digest()
    block = output = b""
    for counter in range(1, 1 + -(-length // 32)):
        block = hmac.new(pseudorandom, block + b"ppvit/v1/" + label + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:length]


def _reference_stream(master, label, count):
    """Computes the first `count` words of a label."""
    stream = hashlib.shake_256(_reference_subkey(master, label.encode(), 32)).digest(4 * count)
    return list(struct.unpack(f"<{count}I", stream))


def _reference_permutation(master, name, length):
    words = iter(_reference_stream(master, f"{name}/{length}", 4 * length + 256))
    order = list(range(length))
    for i in reversed(range(1, length)):
        j = next(word for word in words if word < 2**32 - 2**32 % (i + 1)) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def _reference_words(master, name, count):
    return _reference_stream(master, f"{name}/{count}", count)


def _reference_bits(master, name, count):
    return [word >> place & 1 for word in _reference_words(master, name, count) for place in range(32)][:count]


def _reference_integers(master, name, count, bound):
    words = _reference_stream(master, f"{name}/{count}", 4 * count + 256)
    return [word % bound for word in words if word < 2**32 - 2**32 % bound][:count]


def _reference_uniform(name, count, inputs):
    units = [(word >> 8) * 2**-24 for word in _reference_words(KEY.master, name, count)]
    return np.array([2 * unit - 1 for unit in units], np.float32) * np.float32(1 / math.sqrt(inputs))


@pytest.mark.parametrize(("label", "first", "last", "digest"), PERMUTATIONS, ids=_names(PERMUTATIONS))
def test_published_permutations(label, first, last, digest):
    name, length = label.rsplit("/", 1)
    numbers = KEY.permutation(name, int(length)).tolist()
    assert _published(numbers) == (first, last, digest)
    assert numbers == _reference_permutation(KEY.master, name, int(length))


@pytest.mark.parametrize(("drawn", "label", "first", "last", "digest"), DRAWN, ids=_names(DRAWN, 1))
def test_published_words_bits_and_integers(drawn, label, first, last, digest):
    name, count = label.rsplit("/", 1)
    draw, *bound = drawn.split(" below ")
    arguments = name, int(count), *map(int, bound)
    numbers = getattr(KEY, draw)(*arguments).astype(np.uint32).tolist()
    assert _published(numbers) == (first, last, digest)
    second = {"words": _reference_words, "bits": _reference_bits, "integers": _reference_integers}[draw]
    assert numbers == second(KEY.master, *arguments)


@pytest.mark.parametrize(("number", "first", "last", "digest"), IMAGES, ids=_names(IMAGES))
def test_published_words_of_images(number, first, last, digest):
    words = chacha.stream(KEY.words("pe/images", 8), np.array(int(number), np.uint32), 1120).tolist()
    assert _published(words) == (first, last, digest)
    key = struct.pack("<8I", *_reference_words(KEY.master, "pe/images", 8))
    nonce = struct.pack("<IIQ", 0, int(number), 0)
    stream = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(4 * 1120))
    assert words == list(struct.unpack("<1120I", stream))


@pytest.mark.parametrize(("label", "first", "digest"), NETWORKS, ids=_names(NETWORKS))
def test_published_arrays_of_networks(label, first, digest):
    name, array, count = label.split("/", 1)[0], *label.split("/", 1)[1].rsplit("/", 1)
    # The rows of `neuracrypt` show no hidden layer, so it gets none: its layers are wide and slow to derive.
    method = {"neuracrypt": NeuraCrypt(block_size=8, depth=0), "color-neuracrypt": ColorNeuraCrypt(block_size=8)}[name]
    values = method.derive(KEY, height=32, width=32)[array]
    assert values.size == int(count)
    np.testing.assert_allclose(values.reshape(-1)[:4], [float(text) for text in first.split()], rtol=1e-6)
    if array == "position":
        words = _reference_words(KEY.master, f"{name}/{array}", int(count))
        pairs = [
            (math.sqrt(-2 * math.log((v + 1) / 2**32)), 2 * math.pi * w / 2**32)
            for v, w in zip(words[::2], words[1::2], strict=True)
        ]
        expected = [radius * part(angle) for radius, angle in pairs for part in (math.cos, math.sin)]
        np.testing.assert_allclose(values.reshape(-1), expected, rtol=1e-6, atol=1e-7)
        assert digest == "-"
    else:
        assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == digest
        # A bias has the distribution of the kernel beside it, here with 192 inputs.
        expected = _reference_uniform(f"{name}/{array}", int(count), inputs=192).reshape(values.shape)
        np.testing.assert_array_equal(values, expected)


def _image():
    rows, columns, channels = np.ogrid[:32, :32, :3]
    return ((7 * rows + 13 * columns + 61 * channels) % 256).astype(np.uint8)


def _encrypt(spec, block_size):
    method = parse(spec, int(block_size))
    return method.encrypt(_image(), method.derive(KEY, height=32, width=32), np.uint32(0))


@pytest.mark.parametrize(("spec", "block_size", "digest"), ENCRYPTIONS, ids=_names(ENCRYPTIONS))
def test_published_encryptions(spec, block_size, digest):
    assert hashlib.sha256(_encrypt(spec, block_size).tobytes()).hexdigest() == digest


@pytest.mark.parametrize(("spec", "block_size", "first"), ENCODINGS, ids=_names(ENCODINGS))
def test_published_encodings(spec, block_size, first):
    expected = [float(text) for text in first.split()]
    np.testing.assert_allclose(_encrypt(spec, block_size).reshape(-1)[:4], expected, rtol=0, atol=1e-3)


def test_every_method_has_a_vector_and_all_its_labels_are_in_the_document():
    assert {spec.split(":")[0] for spec, *_ in ENCRYPTIONS + ENCODINGS} == set(METHODS)
    labels = DOCUMENT.split("## Labels\n")[1].split("\n## ")[0]
    for name in ("block", "restricted", "np", "bs+ps+np", "bs+pps", "etc", "pe", "le", "ele"):
        assert f"`{name}/" in labels


def test_published_reference_images():
    """Compares the images place by place, as the document lays them out."""
    height, width = 12, 20
    count = (24 * height * width + 1536) // 4
    stream = struct.pack(f"<{count}I", *_reference_words(KEY.master, "neuracrypt/reference", count))
    images = reference_images(KEY, "neuracrypt", height, width)
    begin = 8 * height * width * 3
    assert images[:8].tobytes() == stream[:begin]
    for number, row, column in itertools.product(range(8), range(height), range(width)):
        place = begin + 3 * ((number * 8 + 8 * row // height) * 8 + 8 * column // width)
        assert images[8 + number, row, column].tobytes() == stream[place : place + 3]


def test_published_fingerprint():
    assert f"Fingerprint: `{KEY.fingerprint}`" in DOCUMENT
    assert KEY.fingerprint == _reference_subkey(KEY.master, b"fingerprint", 16).hex()


def test_published_authentication():
    subkey = _reference_subkey(KEY.master, b"authentication", 32)
    expected = hmac.new(subkey, b"ppvit", hashlib.sha256).hexdigest()
    assert KEY.authenticate(b"ppvit") == expected
    assert f"`{expected}`" in DOCUMENT


@settings(deadline=None, max_examples=50)
@given(
    master=st.binary(min_size=32, max_size=32),
    name=st.sampled_from(["block", "pixel", "etc/sub-block/3"]),
    length=st.integers(1, 800),
)
def test_permutations_are_bijections_and_those_of_a_second_implementation(master, name, length):
    permutation = SecretKey(master).permutation(name, length)
    assert permutation.dtype == np.int32
    np.testing.assert_array_equal(np.sort(permutation), np.arange(length))
    assert permutation.tolist() == _reference_permutation(master, name, length)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(
    master=st.binary(min_size=32, max_size=32),
    name=st.sampled_from(["pe/negative", "etc/rotation"]),
    count=st.integers(0, 500),
    bound=st.one_of(st.integers(1, 300), st.integers(2**30, 2**31)),
)
def test_words_bits_and_integers_are_those_of_a_second_implementation(master, name, count, bound):
    key = SecretKey(master)
    words, bits, integers = key.words(name, count), key.bits(name, count), key.integers(name, count, bound)
    assert (words.dtype, bits.dtype, integers.dtype) == (np.uint32, bool, np.int32)
    assert words.tolist() == _reference_words(master, name, count)
    assert bits.tolist() == _reference_bits(master, name, count)
    assert integers.tolist() == _reference_integers(master, name, count, bound)
