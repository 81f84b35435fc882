"""Checkpoints by name, from a server of this machine: the real hub is not reached."""

import datetime
import errno
import hashlib
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from helpers.command import ROOT
from helpers.hub_server import COMMIT, Hub, serve

from ppvit_jax import checkpoint
from ppvit_jax import config as configuration
from ppvit_jax.__main__ import main
from ppvit_jax.checkpoint import download, hub
from ppvit_jax.command_line import run_command
from ppvit_jax.config import default_config
from ppvit_jax.errors import UserError
from ppvit_jax.training import identity

constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")

NAME = "hf:someone/vit-tiny"
WEIGHTS = bytes(range(256)) * 40
FILES = {
    "someone/vit-tiny/config.json": b'{"model_type": "vit"}',
    "someone/vit-tiny/preprocessor_config.json": b'{"image_mean": [0.5, 0.5, 0.5]}',
    "someone/vit-tiny/model.safetensors": WEIGHTS,
    "someone/vit-tiny/pytorch_model.bin": b"old",
    "someone/vit-tiny/weights/vit.npz": checkpoint.resolve("embedded").read_bytes(),
}


@pytest.fixture
def state():
    return Hub(dict(FILES))


@pytest.fixture(autouse=True)
def server(state, tmp_path, monkeypatch):
    """A hub, with an empty cache, in place of the real one."""
    server = serve(state)
    _use(server, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.005)))
    hub.fetch_once.cache_clear()
    yield server
    server.stop()


def _use(server, monkeypatch):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.incomplete")]


def test_the_first_run_downloads_and_the_second_needs_no_server(state, server, capsys):
    fetched = hub.fetch(NAME)
    assert sorted(path.name for path in fetched.path.iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    assert (fetched.source, fetched.revision) == (NAME, COMMIT)
    notes = capsys.readouterr().err
    assert f"note: {NAME} is commit {COMMIT}; write {NAME}@{COMMIT} to pin it\n" in notes
    assert f"note: downloading model.safetensors of {NAME} (10.2 kB)\n" in notes
    server.stop()
    assert hub.fetch(NAME) == fetched
    assert f"the hub cannot be reached, so {NAME} is commit {COMMIT}, which is here already" in capsys.readouterr().err


def test_a_pinned_commit_needs_no_request_once_it_is_here(state, capsys):
    name = f"{NAME}@{COMMIT}"
    fetched = hub.fetch(name)
    assert fetched.revision == COMMIT and not any(path.startswith("/api/") for _, path, _ in state.requests)
    state.requests.clear()
    capsys.readouterr()
    assert hub.fetch(name) == fetched
    assert state.requests == [] and capsys.readouterr().err == ""


def test_absent_files_are_not_asked_for_again(state):
    del state.files["someone/vit-tiny/preprocessor_config.json"], state.files["someone/vit-tiny/model.safetensors"]
    name = f"{NAME}@{COMMIT}"
    fetched = hub.fetch(name)
    assert sorted(path.name for path in fetched.path.iterdir()) == ["config.json", "pytorch_model.bin"]
    state.requests.clear()
    assert hub.fetch(name) == fetched and state.requests == []


def test_a_branch_that_moves_is_followed_and_a_run_keeps_its_commit(state):
    first = checkpoint.resolve(NAME)
    state.commit = "f" * 40
    assert checkpoint.resolve(NAME) == first
    assert hub.fetch(NAME).revision == "f" * 40


def test_shards_are_fetched_by_their_index(state):
    del state.files["someone/vit-tiny/model.safetensors"]
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    state.files["someone/vit-tiny/model.safetensors.index.json"] = json.dumps(index).encode()
    state.files["someone/vit-tiny/model-1.safetensors"] = WEIGHTS
    with pytest.raises(UserError, match=r"lacks model-2\.safetensors, which its index names: use another revision"):
        hub.fetch(NAME)
    state.commit = "1" * 40
    state.files["someone/vit-tiny/model-2.safetensors"] = WEIGHTS[::-1]
    folder = hub.fetch(NAME).path
    assert (folder / "model-2.safetensors").read_bytes() == WEIGHTS[::-1] and not (
        folder / "pytorch_model.bin"
    ).exists()
    state.commit = "2" * 40
    index["weight_map"]["d"] = "../../elsewhere.safetensors"
    state.files["someone/vit-tiny/model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(UserError, match="does not list files"):
        hub.fetch(NAME)


def test_one_file_is_named_by_its_path(state, capsys):
    name = f"{NAME}@main:weights/vit.npz"
    path = hub.fetch(name).path
    assert checkpoint.read(path)[0].keys() == checkpoint.read(checkpoint.resolve("embedded"))[0].keys()
    assert run_command(main, ["info", name]) == 0 and "ViT-Micro/8" in capsys.readouterr().out
    assert [path.name for path in path.parent.parent.iterdir()] == ["weights"]
    # The description of the weights comes along, because it has the normalization.
    folder = hub.fetch(f"{NAME}:model.safetensors").path.parent
    assert {"config.json", "preprocessor_config.json"} < {path.name for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"there is no file other\.npz: choose one of http://.*/someone/vit-tiny"):
        hub.fetch(f"{NAME}:other.npz")


@pytest.mark.slow
def test_training_takes_names_and_checks_the_sha256_of_a_file(tmp_path, capsys):
    demo, name = ROOT / "configs" / "demo.py", f"{NAME}:weights/vit.npz"
    arguments = [f"--config={demo}", f"--workdir={tmp_path / 'run'}", f"--config.checkpoint={name}"]
    assert run_command(main, ["train", *arguments, f"--config.checkpoint_sha256={'0' * 64}"]) == 1
    assert f"vit.npz has the SHA-256 {_sha256('weights/vit.npz')} and not 000" in capsys.readouterr().err


def test_a_run_is_identified_by_the_files_of_its_checkpoint(tmp_path):
    config = default_config()
    config.checkpoint = NAME
    digest = identity._digest_checkpoint(config)
    assert len(digest) == 64
    folder = checkpoint.resolve(NAME)
    (folder / "README.md").write_text("from another program")
    assert identity._digest_checkpoint(config) == digest
    config.checkpoint = str(folder)
    assert identity._digest_checkpoint(config) == digest
    (folder / "config.json").unlink()
    assert identity._digest_checkpoint(config) not in ("", digest)
    config.checkpoint = f"{NAME}:weights/vit.npz"
    assert identity._digest_checkpoint(config) == _sha256("weights/vit.npz")


def test_the_paper_s_configuration_names_its_weights_unless_they_lie_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "configs" / "cifar10.py"
    assert configuration.load(str(file)).checkpoint == "hf:timm/vit_base_patch16_224.augreg_in21k"
    Path("ViT-B_16.npz").touch()
    assert configuration.load(str(file)).checkpoint == "ViT-B_16.npz"


@pytest.mark.slow
def test_the_environment_names_the_hub(server, tmp_path):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "ppvit_jax", "info", f"{NAME}:weights/vit.npz"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "ViT-Micro/8" in done.stdout, done.stderr
    assert (tmp_path / "home" / "hub" / "models--someone--vit-tiny").is_dir()


def test_a_lost_connection_is_opened_again(state):
    state.cut = [3500, 3000]
    assert (hub.fetch(NAME).path / "model.safetensors").read_bytes() == WEIGHTS
    assert state.ranges("model.safetensors") == ["", "bytes=3000-", "bytes=6000-"]


def test_an_interrupted_download_continues_in_the_next_run(state, tmp_path, capsys, request):
    def interrupt():
        # Time to receive what was sent; the connection stays open until the signal has come.
        threading.Event().wait(0.5)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.5)

    state.cut, state.on_cut = [3500], interrupt
    # A shell starts a process in the background with this signal ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    with pytest.raises(KeyboardInterrupt):
        hub.fetch(NAME)
    assert f"3.0 kB of 10.2 kB of model.safetensors of {NAME} are kept: the next run" in capsys.readouterr().err
    (partial,) = (tmp_path / "hub").rglob("*.incomplete")
    assert partial.read_bytes() == WEIGHTS[:3000]
    state.requests.clear()
    assert (hub.fetch(NAME).path / "model.safetensors").read_bytes() == WEIGHTS
    assert state.ranges("model.safetensors") == ["bytes=3000-"] and _leftovers(tmp_path) == []


def test_a_server_that_goes_away_leaves_a_part_that_the_next_run_continues(state, server, tmp_path, monkeypatch):
    state.cut, state.on_cut = [3500], lambda: server.stop()
    with pytest.raises(UserError, match=r"cannot be reached .*: run the same command again with a network"):
        hub.fetch(NAME)
    second = serve(state)
    _use(second, monkeypatch)
    state.requests.clear()
    assert (hub.fetch(NAME).path / "model.safetensors").read_bytes() == WEIGHTS
    assert state.ranges("model.safetensors")[0] == "bytes=3000-"
    second.stop()


def test_a_damaged_part_is_downloaded_again_from_the_beginning(state, tmp_path):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    blobs = tmp_path / "hub" / "models--someone--vit-tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.incomplete").write_bytes(b"x" * 5000)
    assert (hub.fetch(NAME).path / "model.safetensors").read_bytes() == WEIGHTS
    assert state.ranges("model.safetensors") == ["bytes=5000-", ""]


def test_two_processes_download_a_file_once(state, capsys):
    state.cut, state.on_cut = [3500], lambda: threading.Event().wait(0.3)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(hub.fetch, [f"{NAME}@{COMMIT}"] * 2)
    assert first == second and (first.path / "model.safetensors").read_bytes() == WEIGHTS
    assert state.ranges("model.safetensors") == ["", "bytes=3000-"]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_content_with_another_hash_is_refused_and_removed(state, tmp_path, file):
    content = bytearray(FILES[f"someone/vit-tiny/{file}"])
    content[7] ^= 1
    state.tampered[file] = bytes(content)
    with pytest.raises(UserError, match=rf"download of {file} of {NAME} does not have the hash \w+ and was removed"):
        hub.fetch(NAME)
    assert not list(tmp_path.rglob(file)) and _leftovers(tmp_path) == []
    state.tampered.clear()
    assert (hub.fetch(NAME).path / file).read_bytes() == FILES[f"someone/vit-tiny/{file}"]


def test_a_file_that_was_damaged_in_the_cache_is_not_used(state, server, tmp_path, capsys):
    path = hub.fetch(NAME).path / "model.safetensors"
    path.resolve().write_bytes(WEIGHTS[::-1])
    assert (hub.fetch(NAME).path / "model.safetensors").read_bytes() == WEIGHTS
    assert f"note: {path} does not have the hash" in capsys.readouterr().err
    path.resolve().write_bytes(WEIGHTS[::-1])
    server.stop()
    with pytest.raises(UserError, match="not complete in the cache"):
        hub.fetch(NAME)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            (404, "RepoNotFound"),
            "has no someone/vit-tiny, or it is private: check the name, or log in by hf",
        ),
        (
            (401, "RepoNotFound"),
            "has no someone/vit-tiny, or it is private: check the name, or log in by hf",
        ),
        ((404, "RevisionNotFound"), "there is no revision main: choose one of http://.*/someone/vit-tiny/commits"),
        ((403, "GatedRepo"), "needs your consent: accept its license on http://.*/someone/vit-tiny, and log in by hf"),
        (
            (403, ""),
            "needs your consent: accept its license on http://.*/someone/vit-tiny, and log in by hf auth login",
        ),
        ((418, ""), "answers 418: try again later"),
        (
            (503, ""),
            r"cannot be reached \(.*503.*download config.json, preprocessor_config.json \(if",
        ),
    ],
)
def test_refusals_of_the_hub_are_one_line(state, status, message, capsys):
    state.status = status
    assert run_command(main, ["info", NAME]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {NAME}")
    with pytest.raises(UserError, match=message):
        hub.fetch(NAME)


def test_a_gated_file_of_a_repository_that_is_shown_is_named(state, monkeypatch):
    state.status = (403, "GatedRepo")
    with pytest.raises(UserError, match="accept its license"):
        hub.fetch(f"{NAME}@{COMMIT}")


def test_without_a_network_the_message_says_which_files_to_put_where(server):
    server.stop()
    for revision, view in (("", "tree/main"), (f"@{COMMIT}", f"tree/{COMMIT}")):
        with pytest.raises(UserError) as caught:
            hub.fetch(NAME + revision)
        message = str(caught.value)
        assert "\n" not in message and "config.json" in message and "model.safetensors" in message
        assert (
            f"{constants.ENDPOINT}/someone/vit-tiny/{view} to a folder, and give --config.checkpoint=FOLDER" in message
        )


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:x", "hf:a/b/c", "hf:a/b@", "hf:a/b:", "hf:a/b@../x", "hf:a/b:../x", "hf:a/b:/x", "hf:../b", "hf:a/b c",
     "hf:a/b@x\\y", "hf:a/b--c..d"],
)  # fmt: skip
def test_wrong_names_are_refused(name, state):
    with pytest.raises(UserError, match="is not a name on the hub"):
        hub.fetch(name)
    assert state.requests == []


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(1, 1, 100))
    with pytest.raises(UserError, match=r"no space is left for model\.safetensors of .*: free some, or set HF_HOME"):
        hub.fetch(NAME)
    monkeypatch.undo()
    wanted = download.Download(tmp_path / "x", tmp_path / "x.lock", "x", "")

    def fill(file, begin):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="no space is left for x"):
        download.receive(wanted, fill)


def test_requests_tell_nothing_but_the_names_of_versions(state, monkeypatch):
    hub.fetch(NAME)
    assert state.agents and not any("torch" in agent or "ppvit" in agent for agent in state.agents)
    hosts = {path.split("?")[0].split("/")[1] for _, path, _ in state.requests}
    assert hosts == {"api", "someone", "cdn"}


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub: run pip install 'ppvit-jax\[hub\]'"):
        hub.fetch(NAME)


# URLs.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 with its private key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + built.public_bytes(encoding))
    return path


@pytest.fixture
def web(state, certificate, monkeypatch):
    """A server of files by https; returns the server and the address of weights."""
    server = serve(state)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    yield server, f"https://127.0.0.1:{server.server_address[1]}/cdn/someone/vit-tiny/"
    server.stop()


def _sha256(name: str) -> str:
    return hashlib.sha256(FILES[f"someone/vit-tiny/{name}"]).hexdigest()


def test_a_url_with_its_sha256_is_downloaded_once(state, web, tmp_path, capsys):
    server, folder = web
    digest = _sha256("weights/vit.npz")
    url = f"{folder}weights/vit.npz#sha256={digest}"
    fetched = hub.fetch(url)
    assert fetched == hub.Fetched(tmp_path / "cache" / "ppvit_jax" / digest / "vit.npz", url, digest)
    assert run_command(main, ["info", url]) == 0 and "ViT-Micro/8" in capsys.readouterr().out
    server.stop()
    assert hub.fetch(url) == fetched and hub.fetch(url.partition("#")[0], digest.upper()).path == fetched.path
    assert state.ranges("vit.npz") == [] and len([1 for _, path, _ in state.requests if "vit.npz" in path]) == 1


def test_a_url_without_its_sha256_is_refused(state, capsys):
    for name in ("https://host/x.npz", "https://host/x.npz#sha256=12", "https://host/x.npz#1"):
        with pytest.raises(UserError, match=r"has no SHA-256: append #sha256= and the 64 hexadecimal digits"):
            checkpoint.resolve(name)
    for name in ("https://", "https://[x", "https://höst/x", "https://host/x y"):
        with pytest.raises(UserError, match=r"is not a URL: give https://HOST/FILE#sha256=HEX"):
            checkpoint.resolve(f"{name}#sha256={'0' * 64}")
    with pytest.raises(UserError, match="name different hashes"):
        checkpoint.resolve(f"https://host/x#sha256={'0' * 64}", "1" * 64)
    for option in (["--checkpoint", "https://host/x"], ["--checkpoint=https://host/x"]):
        assert run_command(main, ["predict", *option, "--input=embedded:digits", "--output=o.csv"]) == 1
        assert "error: https://host/x has no SHA-256" in capsys.readouterr().err
    with pytest.raises(UserError, match="http:// is not supported"):
        checkpoint.resolve("http://host/x#sha256=" + "0" * 64)
    assert state.requests == []


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_the_download_of_a_url_continues(state, web, tmp_path, ignores_ranges):
    url = f"{web[1]}model.safetensors?bytes#sha256={_sha256('model.safetensors')}"
    state.cut, state.ignores_ranges = [3500, 100], ignores_ranges
    assert hub.fetch(url).path.read_bytes() == WEIGHTS
    spans = ["", "bytes=3500-", "bytes=100-" if ignores_ranges else "bytes=3600-"]
    assert state.ranges("model.safetensors") == spans


def test_a_server_that_always_stops_at_the_same_place_is_given_up(state, web, tmp_path):
    state.cut, state.ignores_ranges = [3500] * 50, True
    with pytest.raises(UserError, match="run the same command again when there is a network"):
        hub.fetch(f"{web[1]}model.safetensors#sha256={_sha256('model.safetensors')}")
    assert len(state.cut) == 45


def test_the_part_of_a_url_is_kept_for_the_next_run(state, web, tmp_path, monkeypatch):
    url = f"{web[1]}model.safetensors?bytes#sha256={_sha256('model.safetensors')}"
    monkeypatch.setattr(download, "_ATTEMPTS", 0)
    digest = _sha256("model.safetensors")
    folder = tmp_path / "cache" / "ppvit_jax" / digest
    with pytest.raises(UserError, match=f"or download it elsewhere to {folder}/model.safetensors"):
        hub.fetch(url)
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    state.cut = [4000, 0]
    with pytest.raises(UserError, match="run the same command again when there is a network"):
        hub.fetch(url)
    assert (folder / "model.safetensors.incomplete").read_bytes() == WEIGHTS[:4000]
    state.requests.clear()
    assert hub.fetch(url).path.read_bytes() == WEIGHTS
    assert state.ranges("model.safetensors") == ["bytes=4000-"] and _leftovers(tmp_path) == []


def test_a_url_with_other_content_is_refused(state, web, tmp_path):
    digest = _sha256("model.safetensors")
    state.tampered["model.safetensors"] = WEIGHTS[::-1]
    with pytest.raises(UserError, match=f"model.safetensors does not have the hash {digest} and was removed"):
        hub.fetch(f"{web[1]}model.safetensors#sha256={digest}")
    assert _leftovers(tmp_path) == [] and not list(tmp_path.rglob("model.safetensors"))
    with pytest.raises(UserError, match=r"the server answers 404 .*: check the URL"):
        hub.fetch(f"{web[1]}absent?password=x#sha256={digest}")


def test_a_url_without_a_network_is_one_line(web):
    server, folder = web
    server.stop()
    with pytest.raises(UserError, match=r"cannot download https://.*x\.npz \(.*refused.*\): run the same command"):
        hub.fetch(f"{folder}x.npz?password=1#sha256={'0' * 64}")
