import hashlib
import hmac
import itertools
import json
import re
import stat
import struct
import traceback
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvit_jax import keys
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

VECTOR_KEY = SecretKey(bytes(range(32)))
DOCUMENT = Path(__file__).parents[1] / "docs" / "key_format.md"


def _document_vectors():
    row = re.compile(r"^\| `(\w+)/(\d+)` \| ([\d ]+) \| ([\d ]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
    return row.findall(DOCUMENT.read_text())


def _reference_subkey(master, label, length):
    """HKDF-SHA256 as RFC 5869 writes it, by the standard library alone."""
    pseudorandom = hmac.new(bytes(32), master, hashlib.sha256).digest()
    block = output = b""
    for counter in range(1, 1 + -(-length // 32)):
        block = hmac.new(pseudorandom, block + b"ppvit/v1/" + label + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:length]


def _reference_permutation(master, kind, length):
    subkey = _reference_subkey(master, f"{kind}/{length}".encode(), 32)
    count = 4 * length + 256
    words = iter(struct.unpack(f"<{count}I", hashlib.shake_256(subkey).digest(4 * count)))
    order = list(range(length))
    for i in reversed(range(1, length)):
        j = next(word for word in words if word < 2**32 - 2**32 % (i + 1)) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


@pytest.mark.parametrize(("kind", "length"), [("block", 64), ("block", 196), ("pixel", 192), ("pixel", 768)])
def test_published_vectors(kind, length):
    permutation = VECTOR_KEY.permutation(kind, length)
    numbers = permutation.tolist()
    assert (
        kind,
        str(length),
        " ".join(map(str, numbers[:8])),
        " ".join(map(str, numbers[-8:])),
        hashlib.sha256(permutation.astype("<i4").tobytes()).hexdigest(),
    ) in _document_vectors()
    assert numbers == _reference_permutation(VECTOR_KEY.master, kind, length)


def test_published_fingerprint():
    assert f"Fingerprint: `{VECTOR_KEY.fingerprint}`" in DOCUMENT.read_text()
    assert VECTOR_KEY.fingerprint == _reference_subkey(VECTOR_KEY.master, b"fingerprint", 16).hex()


def test_published_authentication():
    subkey = _reference_subkey(VECTOR_KEY.master, b"authentication", 32)
    expected = hmac.new(subkey, b"ppvit", hashlib.sha256).hexdigest()
    assert VECTOR_KEY.authenticate(b"ppvit") == expected
    assert f"`{expected}`" in DOCUMENT.read_text()


@settings(deadline=None, max_examples=50)
@given(
    master=st.binary(min_size=32, max_size=32),
    kind=st.sampled_from(["block", "pixel"]),
    length=st.integers(1, 800),
)
def test_permutations_are_bijections_and_those_of_a_second_implementation(master, kind, length):
    permutation = SecretKey(master).permutation(kind, length)
    assert permutation.dtype == np.int32
    np.testing.assert_array_equal(np.sort(permutation), np.arange(length))
    assert permutation.tolist() == _reference_permutation(master, kind, length)


def test_words_that_would_bias_are_rejected_however_many(monkeypatch):
    """A stream that begins with 200 words to reject: more than the spare words of the first reading."""
    length = 7

    class Stream:
        def __init__(self, subkey):
            pass

        def digest(self, size):
            rejected = [2**32 - 1] * 200
            return struct.pack(f"<{size // 4}I", *itertools.islice(rejected + list(range(1000, 3000)), size // 4))

    monkeypatch.setattr(keys.hashlib, "shake_256", Stream)
    # 2^32 mod 7 = 4 and mod 6 = 4, mod 5 = 1, mod 3 = 1; for i + 1 = 4 and 2 no word is rejected.
    expected = list(range(length))
    words = iter(range(1000, 3000))
    for i in reversed(range(1, length)):
        j = next(words) % (i + 1)
        expected[i], expected[j] = expected[j], expected[i]
    assert VECTOR_KEY.permutation("block", length).tolist() == expected


def test_every_order_of_four_is_equally_frequent():
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for number in range(2400):
        counts[tuple(SecretKey(number.to_bytes(32)).permutation("block", 4).tolist())] += 1
    chi_squared = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_squared < 49.7  # the 99.9 % quantile for 23 degrees of freedom


def test_permutations_of_an_encryption():
    for encryption, block, pixel in (
        ("none", None, None),
        ("bs", 196, None),
        ("ps", None, 768),
        ("bs+ps", 196, 768),
    ):
        permutations = VECTOR_KEY.permutations(encryption, image_size=224, patch_size=16)
        for permutation, kind, length in ((permutations.block, "block", block), (permutations.pixel, "pixel", pixel)):
            if length is None:
                assert permutation is None
            else:
                np.testing.assert_array_equal(permutation, VECTOR_KEY.permutation(kind, length))


@pytest.mark.parametrize(
    ("encryption", "image_size", "message"), [("rot13", 224, "unknown encryption"), ("bs", 225, "not a multiple")]
)
def test_impossible_permutations_are_named(encryption, image_size, message):
    with pytest.raises(UserError, match=message):
        VECTOR_KEY.permutations(encryption, image_size=image_size, patch_size=16)


def test_generated_keys_differ():
    assert len({keys.generate().master for _ in range(100)}) == 100


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_saved_key_is_read_again(tmp_path, passphrase):
    key, path = keys.generate(), tmp_path / "secret.key"
    keys.save(key, path, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load(path, passphrase) == key
    content = json.loads(path.read_text())
    assert (content["version"], content["fingerprint"]) == (1, key.fingerprint)
    plain = b64encode(key.master).decode() in path.read_text()
    assert plain == (passphrase is None)


def test_a_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "secret.key"
    keys.save(VECTOR_KEY, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        keys.save(keys.generate(), path)
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="cannot create the key file"):
        keys.save(VECTOR_KEY, tmp_path / "no" / "folder")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_open_to_others_is_refused(tmp_path, mode):
    path = tmp_path / "secret.key"
    keys.save(VECTOR_KEY, path)
    path.chmod(mode)
    with pytest.raises(UserError, match="chmod 600"):
        keys.load(path)


def _change(**fields):
    return lambda content: json.dumps(content | fields)


DAMAGES = {
    "cut short": (lambda content: json.dumps(content)[:60], "not a key file"),
    "empty": (lambda content: "", "not a key file"),
    "a list": (lambda content: "[]", "not a key file"),
    "another format": (_change(format="ssh"), "not a key file"),
    "of the future": (_change(version=2), "version 2"),
    "short master": (_change(master=b64encode(bytes(31)).decode()), "damaged"),
    "not base64": (_change(master="?" * 44), "damaged"),
    "no master": (lambda content: json.dumps({n: v for n, v in content.items() if n != "master"}), "damaged"),
    "another master": (_change(master=b64encode(bytes(32)).decode()), "damaged"),
    "a sealed list": (_change(sealed=[]), "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_key_file_gives_one_line_that_tells_nothing_of_the_key(tmp_path, damage):
    path = tmp_path / "secret.key"
    keys.save(VECTOR_KEY, path)
    change, message = DAMAGES[damage]
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UserError, match=message) as caught:
        keys.load(path, b"passphrase")
    assert "\n" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (b64encode(VECTOR_KEY.master).decode(), VECTOR_KEY.master.hex(), repr(VECTOR_KEY.master)[2:-1]):
        assert secret not in shown


def test_missing_and_wrong_passphrase(tmp_path):
    path = tmp_path / "secret.key"
    keys.save(VECTOR_KEY, path, b"correct horse")
    with pytest.raises(UserError, match="sealed: give its passphrase"):
        keys.load(path)
    with pytest.raises(UserError, match="does not open"):
        keys.load(path, b"battery staple")
    with pytest.raises(UserError, match="cannot read the key file"):
        keys.load(tmp_path / "missing.key")


def test_a_key_never_shows_itself():
    for text in (repr(VECTOR_KEY), str(VECTOR_KEY), f"{VECTOR_KEY}", repr({"key": [VECTOR_KEY]})):
        assert VECTOR_KEY.fingerprint in text
        assert VECTOR_KEY.master.hex() not in text and repr(VECTOR_KEY.master)[2:-1] not in text
    with pytest.raises(UserError) as caught:
        SecretKey(b"secret")
    assert "secret" not in str(caught.value)
