"""Checkpoints by name: `hf:OWNER/NAME` on the Hugging Face hub, and `https://...#sha256=HEX`.

Requests ask for public weights alone. They hold nothing of a key, of images or of a run.
"""

import dataclasses
import functools
import json
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from ppvit_jax.checkpoint import download, hub_files
from ppvit_jax.checkpoint.hub_files import Source
from ppvit_jax.errors import UserError, print_note, require
from ppvit_jax.files import write_text

_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([^:@\s\\]+))?(?::([^:\s\\]+))?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PYTORCH_WEIGHTS = "pytorch_model.bin"

# Returns the local path of a file of a repository, or None if the repository does not have it.
GetFile = Callable[[str], Path | None]


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Checkpoint on this machine that was named by its place on a hub or in the web.

    Attributes:
      path: a folder with the weights and their description, or a file if the name has one.
      source: the name, with the revision or the SHA-256 that it was given with.
      revision: the commit of the hub, or the SHA-256 of a URL's file.
    """

    path: Path
    source: str
    revision: str


def fetch(name: str, sha256: str = "") -> Fetched:
    """Downloads a checkpoint, or takes it from the cache.

    Args:
      name: `hf:OWNER/NAME[@REVISION][:FILE]`, or an https URL.
      sha256: the SHA-256 of a URL's file in hexadecimal; "" if the URL ends with #sha256=HEX.

    Returns:
      The local path, and the revision to pin. A folder has config.json and preprocessor_config.json if the repository
      has them, and model.safetensors, or its index and shards, or pytorch_model.bin.

    Raises:
      UserError: the name is wrong, it cannot be downloaded, its hash differs, or huggingface_hub is not installed.
    """
    if name.startswith("https://"):
        url, digest = _split_url(name, sha256)
        return Fetched(download.fetch_url(url, digest), name, digest)
    return _fetch_from_hub(_parse(name))


@functools.cache
def fetch_once(name: str, sha256: str = "") -> Fetched:
    """Returns what `fetch` returns, the same for the life of the process: a run uses one commit of a branch."""
    return fetch(name, sha256)


def _split_url(text: str, sha256: str) -> tuple[str, str]:
    url, _, fragment = text.partition("#")
    try:
        host = urllib.parse.urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or not url.isascii() or re.search(r"\s", url):
        raise UserError(f"{text} is not a URL: give https://HOST/FILE#sha256=HEX")
    inside = fragment.removeprefix("sha256=").lower() if fragment.startswith("sha256=") else ""
    if inside and sha256 and inside != sha256.lower():
        raise UserError(f"{text} and config.checkpoint_sha256={sha256} name different hashes: remove one of them")
    digest = inside or sha256.lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise UserError(f"{text} has no SHA-256: append #sha256= and the 64 hexadecimal digits of the file's SHA-256")
    return url, digest


def _parse(name: str) -> Source:
    match = _NAME.fullmatch(name)
    if match is None or any(part in (".", "..", "") for text in match.groups("x") for part in text.split("/")):
        raise UserError(
            f"{name} is not a name on the hub: give hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME:FILE, such "
            "as hf:timm/vit_base_patch16_224.augreg_in21k"
        )
    return Source(name, match[1], match[2] or "main", match[3] or "")


def _fetch_from_hub(source: Source) -> Fetched:
    require(source.name, "hub", "huggingface_hub", instead="download its files and give their folder")
    from huggingface_hub import constants

    # The library tells the hub no more than the request needs.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    with hub_files.explained(source):
        commit = _resolve_commit(source)
        get_file = functools.partial(hub_files.get_file, source, commit)
        path = _fetch_file(source, get_file) if source.file else _fetch_folder(source, get_file)
    if source.revision != commit:
        # The library's own place for the commit of a branch; the next run finds it there without a network.
        reference = hub_files.cache_folder(source) / "refs" / source.revision
        if not reference.is_file() or reference.read_text() != commit:
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_text(reference, commit)
    return Fetched(path, source.name, commit)


def _resolve_commit(source: Source) -> str:
    """Returns the commit of a branch or tag: the hub's, or without a network the one that was used last."""
    if _COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import HfApi

    pinned = f"hf:{source.repository}@"
    try:
        commit = HfApi().model_info(source.repository, revision=source.revision, timeout=10).sha
    except Exception as error:
        reference = hub_files.cache_folder(source) / "refs" / source.revision
        if not hub_files.is_unreachable(error) or not reference.is_file():
            raise
        commit = reference.read_text().strip()
        print_note(f"the hub cannot be reached, so {source.name} is commit {commit}, which is here already")
        return commit
    if commit is None or not _COMMIT.fullmatch(commit):
        raise UserError(f"{source.name}: {hub_files.endpoint()} names no commit: check HF_ENDPOINT")
    print_note(f"{source.name} is commit {commit}; write {pinned}{commit} to pin it")
    return commit


def _fetch_folder(source: Source, get_file: GetFile) -> Path:
    """Fetches the weights of a repository and their description; returns the folder."""
    _fetch_descriptions("", get_file)
    if weights := get_file(_WEIGHTS):
        return weights.parent
    if index := get_file(_INDEX):
        for name in _list_shards(source, index):
            if get_file(name) is None:
                raise UserError(f"{source.name} lacks {name}, which its index names: use another revision")
        return index.parent
    if weights := get_file(_PYTORCH_WEIGHTS):
        return weights.parent
    raise UserError(
        f"{source.name} has neither {_WEIGHTS} nor {_PYTORCH_WEIGHTS}: name a file of {hub_files.page(source)}, as in "
        f"hf:{source.repository}:FILE"
    )


def _fetch_file(source: Source, get_file: GetFile) -> Path:
    """Fetches one file, and the description in its folder, which tells how its images are normalized."""
    folder, _, name = source.file.rpartition("/")
    if not name.endswith((".npz", ".json")):
        _fetch_descriptions(folder, get_file)
        if name.startswith("open_clip"):
            get_file(f"{folder}/open_clip_config.json".lstrip("/"))
    if path := get_file(source.file):
        return path
    raise UserError(f"{source.name}: there is no file {source.file}: choose one of {hub_files.page(source)}")


def _fetch_descriptions(folder: str, get_file: GetFile) -> None:
    """Fetches the files that tell the model's shape and the normalization of its images, if there are any."""
    config = get_file(f"{folder}/{hub_files.CONFIG}".lstrip("/"))
    # timm's file has the normalization as well.
    if config is None or b'"pretrained_cfg"' not in config.read_bytes():
        get_file(f"{folder}/{hub_files.PREPROCESSOR_CONFIG}".lstrip("/"))


def _list_shards(source: Source, index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if not names or not all(re.fullmatch(r"[\w-][\w.-]*\.safetensors", name) for name in names):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{source.name}: {_INDEX} does not list files: use another revision") from None
    return names
