import ast
import itertools
import json
import stat
import struct
import subprocess
import sys
import traceback
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest

from ppvit_jax import keys
from ppvit_jax.encryption import derive_permutations
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

VECTOR_KEY = SecretKey(bytes(range(32)))


@pytest.fixture
def rejected_stream(monkeypatch):
    """Replaces the stream by one that begins with 200 words to reject, more than the first reading has to spare."""

    class Stream:
        def __init__(self, subkey):
            pass

        def digest(self, size):
            rejected = [2**32 - 1] * 200
            return struct.pack(f"<{size // 4}I", *itertools.islice(rejected + list(range(1000, 3000)), size // 4))

    monkeypatch.setattr(keys.hashlib, "shake_256", Stream)


def test_words_that_would_bias_are_rejected_however_many(rejected_stream):
    length = 7
    # 2^32 is 4 mod 7, 4 mod 6, 1 mod 5 and 1 mod 3; for i + 1 = 4 and 2 no word is rejected.
    expected = list(range(length))
    words = iter(range(1000, 3000))
    for i in reversed(range(1, length)):
        j = next(words) % (i + 1)
        expected[i], expected[j] = expected[j], expected[i]
    assert VECTOR_KEY.permutation("block", length).tolist() == expected


@pytest.mark.parametrize("bound", [3, 5, 6, 7, 1000])
def test_integers_pass_over_words_that_would_bias_however_many(rejected_stream, bound):
    assert VECTOR_KEY.integers("label", 20, bound).tolist() == [word % bound for word in range(1000, 1020)]


@pytest.mark.parametrize("bound", [1, 2, 4, 8, 256])
def test_no_word_is_passed_over_where_none_would_bias(rejected_stream, bound):
    assert VECTOR_KEY.integers("label", 20, bound).tolist() == [(2**32 - 1) % bound] * 20


@pytest.mark.parametrize("bound", [3, 6, 2**31 - 1])
def test_the_first_word_that_would_bias_is_passed_over_and_the_last_that_would_not_is_taken(monkeypatch, bound):
    limit = 2**32 - 2**32 % bound
    words = np.array([limit, limit - 1, 2**32 - 1, 0, limit, bound, *[5] * 100], np.uint32)
    monkeypatch.setattr(keys, "_words", lambda subkey, count: words[:count])
    assert VECTOR_KEY.integers("label", 4, bound).tolist() == [bound - 1, 0, 0, 5 % bound]


def test_integers_and_bits_are_uniform():
    for bound in (6, 8, 100):
        counts = np.bincount(VECTOR_KEY.integers("label", 1000 * bound, bound), minlength=bound)
        assert counts.size == bound
        assert ((counts - 1000) ** 2 / 1000).sum() < bound - 1 + 4.5 * (2 * (bound - 1)) ** 0.5
    bits = VECTOR_KEY.bits("label", 64_000).reshape(-1, 32)
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.045  # 4 standard deviations for each bit of a word
    assert abs(np.corrcoef(bits.T.astype(float)) - np.eye(32)).max() < 0.1


def test_drawn_words_depend_on_label_count_and_key():
    streams = [
        key.words(label, count)[:8].tobytes()
        for key in (VECTOR_KEY, SecretKey(bytes(32)))
        for label in ("pe/images", "neuracrypt/order")
        for count in (8, 9)
    ]
    assert len(set(streams)) == 8
    assert VECTOR_KEY.words("pe/images", 8).tobytes() == VECTOR_KEY.words("pe/images", 8).tobytes()
    assert VECTOR_KEY.words("label", 0).shape == VECTOR_KEY.bits("label", 0).shape == (0,)


def test_every_order_of_four_is_equally_frequent():
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for number in range(2400):
        counts[tuple(SecretKey(number.to_bytes(32)).permutation("block", 4).tolist())] += 1
    chi_squared = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_squared < 49.7  # the 99.9% quantile for 23 degrees of freedom


@pytest.mark.parametrize("encryption", ["none", "bs", "ps", "bs+ps", "etc:shared=True"])
def test_a_key_has_a_shorthand_for_its_permutations(encryption):
    permutations = VECTOR_KEY.permutations(encryption, image_size=224, patch_size=16)
    expected = derive_permutations(VECTOR_KEY, encryption, image_size=224, block_size=16)
    for name in ("block", "pixel", "negative"):
        np.testing.assert_array_equal(getattr(permutations, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("encryption", "image_size", "message"), [("rot13", 224, "unknown encryption"), ("bs", 225, "not a multiple")]
)
def test_impossible_permutations_are_named(encryption, image_size, message):
    with pytest.raises(UserError, match=message):
        VECTOR_KEY.permutations(encryption, image_size=image_size, patch_size=16)


def test_keys_import_no_encryption():
    imported = set()
    for node in ast.walk(ast.parse(Path(keys.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert {name for name in imported if name.startswith("ppvit_jax")} == {"ppvit_jax.errors.UserError"}
    program = "import sys, ppvit_jax.keys; print([name for name in sys.modules if name.startswith('ppvit_jax.enc')])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


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


OTHERS = {
    "a checkpoint": (b"PK\3\4" + bytes(99999), "is a .npz checkpoint and not a key file"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(9), "is an image and not a key file"),
    "an SSH key": (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "is an SSH key and not a key file"),
    "a certificate": (b"-----BEGIN CERTIFICATE-----\n", "is a PEM file of another program and not a key file"),
    "empty": (b"", "is empty and not a key file"),
    "a manifest": (b'{"format": "ppvit-images", "version": 1}', "is JSON of another kind and not a key file"),
    "deep": (b"[" * 60000, "is damaged, or not a key file"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_another_file_is_called_that_whatever_its_permissions(tmp_path, other, mode):
    content, message = OTHERS[other]
    (tmp_path / "other").write_bytes(content)
    (tmp_path / "other").chmod(mode)
    for read in (keys.load, keys.describe):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / "other")
        assert "chmod" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_called_a_folder(tmp_path):
    with pytest.raises(UserError, match="is a folder and not a key file of ppvit: give the key file"):
        keys.load(tmp_path)


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
