"""Files of one repository on the Hugging Face hub, by the library huggingface_hub, each checked by its hash.

They lie in the library's own cache, which other programs share. The library starts a download again after an
interruption, so the bytes come by `download.receive`, which continues it.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ppvit_jax.checkpoint import download
from ppvit_jax.errors import UserError, print_note

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

CONFIG = "config.json"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
_HASH = re.compile("[0-9a-f]{64}|[0-9a-f]{40}")
_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2")


@dataclasses.dataclass(frozen=True)
class Source:
    """Place on the hub: a repository, a commit, tag or branch, and a file, or "" for the repository's weights."""

    name: str
    repository: str
    revision: str
    file: str


def get_file(source: Source, commit: str, name: str) -> Path | None:
    """Returns the path of a repository's file in the cache, downloaded and checked if it is not there.

    Args:
      source: the repository.
      commit: the commit in 40 hexadecimal digits.
      name: the file's path in the repository.

    Returns:
      The path, or None if the repository does not have the file. What is in the cache needs no request.

    Raises:
      UserError: the content has another hash than the hub tells, or the disk is full.
      Exception: one of the library or the network; see `explained`.
    """
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError

    cached = try_to_load_from_cache(source.repository, name, revision=commit)
    if isinstance(cached, str):
        path = Path(cached)
        # Other programs' files are links as well; without links a file does not tell its hash.
        if not path.is_symlink() or _is_intact(path, path.readlink().name):
            return path
    elif cached is not None:
        return None
    title = f"{name} of hf:{source.repository}"
    url = hf_hub_url(source.repository, name, revision=commit)
    try:
        file = get_hf_file_metadata(url)
    except EntryNotFoundError:
        # The library records in its cache that the file does not exist.
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(source.repository, name, revision=commit)
        return None
    if file.etag is None or not re.fullmatch(r"[\w.-]+", file.etag):
        raise UserError(f"{endpoint()} gives no hash for {title}: check HF_ENDPOINT")
    if not _HASH.fullmatch(file.etag):
        print_note(f"{endpoint()} gives no SHA-256 for {title}, so its content cannot be checked")
    blob = cache_folder(source) / "blobs" / file.etag
    lock = cache_folder(source).parent / ".locks" / cache_folder(source).name / f"{file.etag}.lock"
    if not _is_intact(blob, file.etag):
        wanted = download.Download(blob, lock, title, file.etag, file.size)
        download.receive(wanted, lambda content, _: _receive_bytes(url, content, name, file.size))
    return Path(hf_hub_download(source.repository, name, revision=commit))


def _receive_bytes(url: str, content: BinaryIO, name: str, size: int | None) -> None:
    """Appends the bytes of a URL that a file lacks; a connection that brought some is opened again."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    while True:
        begin = content.tell()
        try:
            return http_get(
                url,
                content,
                resume_size=begin,
                headers=build_hf_headers(),
                expected_size=size,
                displayed_filename=name,
            )
        # Version 2 of the library tries again by itself, and gives up after five times without a byte.
        except Exception as error:
            if not is_unreachable(error) or content.tell() <= begin:
                raise


def _is_intact(path: Path, digest: str) -> bool:
    """Checks the hash of a file in the cache; a file that differs is removed, with a note."""
    if not path.exists() or download.matches(path, digest):
        return path.exists()
    print_note(f"{path} does not have the hash {digest}, so it was damaged and is removed")
    if path.is_symlink():
        (path.parent / path.readlink()).unlink()
    path.unlink(missing_ok=True)
    return False


@contextlib.contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turns errors of the library and of the network into one line with advice."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise _forbidden(source) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{source.name}: {endpoint()} has no {source.repository}, or it is private: check the name, or log in "
            "by hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{source.name}: there is no revision {source.revision}: choose one of {page(source, 'commits/main')}"
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{source.name} is not a name on the hub ({error}): check it") from None
    except Exception as error:
        if isinstance(error, errors.HfHubHTTPError) and not is_unreachable(error):
            if _status(error) in (401, 403):
                raise _forbidden(source) from None
            raise UserError(
                f"{source.name}: {endpoint()} answers {_status(error)}: try again later, or check HF_ENDPOINT"
            ) from None
        if "Consistency check failed" in str(error):
            raise UserError(f"the download of {source.name} is incomplete: run the same command again") from None
        if not is_unreachable(error):
            raise
        files = source.file or f"{CONFIG}, {PREPROCESSOR_CONFIG} (if there is one) and model.safetensors"
        raise UserError(
            f"{source.name} is not complete in the cache, and {endpoint()} cannot be reached ({_reason(error)}): run "
            f"the same command again with a network, or download {files} from "
            f"{page(source, f'tree/{source.revision}')} to a folder, and give --config.checkpoint=FOLDER"
        ) from None


def _forbidden(source: Source) -> UserError:
    return UserError(
        f"{source.name} needs your consent: accept its license on {page(source)}, and log in by hf auth login"
    )


def is_unreachable(error: Exception) -> bool:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return _status(error) >= 500 or _status(error) == 429
    return isinstance(error, ConnectionError | TimeoutError | errors.LocalEntryNotFoundError) or (
        type(error).__module__.partition(".")[0] in _HTTP_LIBRARIES
    )


def _status(error: "HfHubHTTPError") -> int:
    return error.response.status_code if error.response is not None else 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def page(source: Source, view: str = "") -> str:
    return f"{endpoint()}/{source.repository}" + (f"/{view}" if view else "")


def cache_folder(source: Source) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=source.repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE).expanduser() / name
