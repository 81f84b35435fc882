import hashlib
import hmac
import json

import pytest

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.manifest import Header
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEY = SecretKey(bytes(range(32)))
HEADER = Header("bs+ps", KEY.fingerprint, 16, 8, "0a1b")
CONTENTS = {"cat/0.png": b"zero", "cat/1.png": b"one", 'dog/a "name" é.png': b"two"}


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files = [(name, hashlib.sha256(content).hexdigest()) for name, content in CONTENTS.items()]
    manifests.write(tmp_path, HEADER, files, KEY.authenticate)
    return tmp_path


def _read(folder):
    manifest = manifests.read(folder)
    assert manifest is not None
    return manifest


def test_what_is_written_is_read_again(folder):
    manifest = _read(folder)
    assert manifest.header == HEADER
    assert manifest.files == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    manifest.check_files()
    manifest.check_listing(CONTENTS, folder)
    manifest.check_listing(["0.png", "1.png"], folder / "cat")
    for name, content in CONTENTS.items():
        manifests.check_content(folder / name, content, manifest.sha256(folder / name))
    assert sorted(path.name for path in folder.iterdir()) == ["cat", "dog", "manifest.json"]


def test_the_authentication_is_an_hmac_under_a_subkey_of_the_key(folder):
    subkey = hmac.new(bytes(32), KEY.master, hashlib.sha256).digest()
    subkey = hmac.new(subkey, b"ppvit/v1/authentication\x01", hashlib.sha256).digest()
    manifest = _read(folder)
    expected = hmac.new(subkey, bytes.fromhex(manifest.digest), hashlib.sha256).hexdigest()
    assert manifest.authentication == expected


def test_the_digest_is_of_the_bytes_that_the_document_describes(folder):
    content = json.loads((folder / "manifest.json").read_text())
    text = json.dumps({name: content[name] for name in sorted(HEADER.fields())})
    text += "".join(f"\n{sha256} {json.dumps(name)}" for name, sha256 in content["files"].items())
    assert content["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_folder_inside_finds_the_manifest_above(folder):
    assert _read(folder / "cat") == _read(folder)
    (folder / "other").mkdir()
    assert manifests.read(folder / "other") is None
    # A damaged manifest above does not matter to a folder that may not belong to it.
    (folder / "manifest.json").write_text("{")
    assert manifests.read(folder / "cat") is None


OTHERS = {
    "an object": '{"name": "a web application"}',
    "a list": '[{"prefix": "s3://bucket/"}, "train/ant/0.png"]',
    "lines": '{"source-ref": "s3://bucket/0.png", "class": 0}\n{"source-ref": "s3://bucket/1.png", "class": 1}\n',
    "deep nesting": "[" * 100_000,
    "text": "ant,0.png",
    "a number": "3",
}


@pytest.mark.parametrize("other", OTHERS)
def test_manifests_of_other_programs_are_ignored(tmp_path, other):
    assert manifests.read(tmp_path) is None
    (tmp_path / "manifest.json").write_text(OTHERS[other])
    assert manifests.read(tmp_path) is None


def test_a_folder_with_that_name_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    assert manifests.read(tmp_path) is None


def test_the_number_of_copies_is_written_only_if_there_are_copies(folder):
    content = json.loads((folder / "manifest.json").read_text())
    assert "copies" not in content and _read(folder).header.copies == 1
    header = Header("bs+ps", KEY.fingerprint, 16, 8, "0a1b", copies=3)
    manifests.write(folder, header, content["files"].items(), KEY.authenticate)
    assert _read(folder).header == header
    assert json.loads((folder / "manifest.json").read_text())["copies"] == 3


def test_files_that_are_missing_changed_or_too_many_are_named(folder):
    manifest = _read(folder)
    with pytest.raises(UserError, match=r"cat/2.png \(and 1 others\) is not in the manifest"):
        manifest.check_listing([*CONTENTS, "cat/2.png", "cat/3.png"], folder)
    with pytest.raises(UserError, match=r"cat/0.png is missing, but in the manifest"):
        manifest.check_listing([name for name in CONTENTS if name != "cat/0.png"], folder)
    with pytest.raises(UserError, match=r"cat/0.png is not the file that the manifest describes"):
        manifests.check_content(folder / "cat" / "0.png", b"another", manifest.sha256(folder / "cat" / "0.png"))
    (folder / "cat" / "1.png").write_bytes(b"another")
    with pytest.raises(UserError, match=r"cat/1.png is not the file that the manifest describes"):
        manifest.check_files()
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(UserError, match=r"cannot read .*cat/1.png"):
        manifest.check_files()


def _agreeing(content):
    """Changes a manifest deliberately, so that its SHA-256 matches again."""
    header = Header.from_fields(content)
    content["sha256"] = manifests._digest(header, content["files"].items()).hex()
    return json.dumps(content)


TAMPERINGS = {
    "another encryption": (lambda c: json.dumps(c | {"encryption": "bs"}), "its SHA-256 does not match"),
    "another key": (lambda c: json.dumps(c | {"key_fingerprint": "00"}), "its SHA-256 does not match"),
    "another file": (lambda c: json.dumps(c | {"files": c["files"] | {"cat/0.png": "00"}}), "does not match"),
    "a file less": (lambda c: json.dumps(c | {"files": dict(list(c["files"].items())[1:])}), "does not match"),
    "cut short": (lambda c: json.dumps(c)[:-100], "damaged"),
    "empty": (lambda c: "", "damaged"),
    "no files": (lambda c: json.dumps({n: v for n, v in c.items() if n != "files"}), "damaged"),
    "a list of files": (lambda c: json.dumps(c | {"files": []}), "damaged"),
    "cut within the first field": (lambda c: json.dumps(c, indent=1)[:15], "damaged"),
    "the beginning lost": (lambda c: json.dumps(c)[30:], "damaged"),
    "another format": (lambda c: json.dumps(c | {"format": "other"}), "another version"),
    "no format": (lambda c: json.dumps({n: v for n, v in c.items() if n != "format"}), "damaged"),
    "an origin that is no text": (
        lambda c: _agreeing(c | {"origin": 3}),
        "or a key that is no text",
    ),
    "an encryption that is no text": (
        lambda c: _agreeing(c | {"encryption": 3}),
        "or a key that is no text",
    ),
    "no copies": (lambda c: _agreeing(c | {"copies": 0}), "has 0 copies of an image"),
    "the future": (lambda c: json.dumps(c | {"version": 2}), "another version"),
    "path upwards": (lambda c: _agreeing(c | {"files": {"../evil.png": "00"}}), "a path outside the folder"),
    "absolute path": (lambda c: _agreeing(c | {"files": {"/etc/evil.png": "00"}}), "a path outside the folder"),
    "unknown encryption": (lambda c: _agreeing(c | {"encryption": "rot13"}), "unknown encryption 'rot13'"),
    "impossible sizes": (lambda c: _agreeing(c | {"patch_size": 5}), "impossible sizes"),
    "sizes of text": (lambda c: _agreeing(c | {"image_size": "16"}), "impossible sizes"),
    "encryption without a key": (lambda c: _agreeing(c | {"key_fingerprint": None}), "but key None"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_tampered_manifest_gives_one_line(folder, tampering):
    change, message = TAMPERINGS[tampering]
    path = folder / "manifest.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UserError, match=message) as caught:
        manifests.read(folder)
    assert "\n" not in str(caught.value)


def test_an_unfinished_folder_is_refused(folder):
    (folder / manifests.JOURNAL).write_text("")
    with pytest.raises(UserError, match="is not complete"):
        manifests.read(folder)
