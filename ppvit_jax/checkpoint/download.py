"""Downloads of public files: resumed after an interruption, checked by their hash, complete or absent."""

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import os
import re
import shutil
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import ppvit_jax
from ppvit_jax.data.lock import lock
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError, print_note, resuming

# Writes the bytes of a file from a position on.
Transfer = Callable[[BinaryIO, int], None]


_BLOCK = 2**20
_TIMEOUT_SECONDS = 30
# Connections in a row that bring nothing.
_ATTEMPTS = 4
_WAIT_SECONDS = 1.0
# Shorter downloads do not tell how long they took.
_SILENT_SECONDS = 3.0
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Download:
    """File to download.

    Attributes:
      path: the file to create.
      lock: file that the process locks which downloads it.
      title: the file's name in messages.
      digest: the hash; see `matches`.
      size: bytes of the whole file; None if unknown.
    """

    path: Path
    lock: Path
    title: str
    digest: str
    size: int | None = None


def matches(path: Path, digest: str) -> bool:
    """Returns True if a file has this hash, or if the hash is of an unknown kind.

    Args:
      path: the file.
      digest: SHA-256 in 64 hexadecimal digits, or SHA-1 in 40. The SHA-1 is that of git, which hashes
        `"blob " + size + "\\0" + content`, or that of the content alone.
    """
    with path.open("rb") as file:
        if _SHA256.fullmatch(digest):
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
        if re.fullmatch("[0-9a-f]{40}", digest):
            content = file.read()
            blob = b"blob %d\0" % len(content) + content
            return digest in (hashlib.sha1(blob).hexdigest(), hashlib.sha1(content).hexdigest())
    return True


def receive(download: Download, transfer: Transfer) -> None:
    """Downloads a file, or continues a download, unless the file is there.

    The bytes are collected in a file beside it, whose name ends with ".incomplete". This file stays after an
    interruption, and the next call continues it. It is renamed after its hash has been checked.

    Args:
      download: the file.
      transfer: called with a file open for appending, and the number of bytes that it has.

    Raises:
      UserError: the content has another hash, or the disk is full.
    """
    path, digest = download.path, download.digest
    path.parent.mkdir(parents=True, exist_ok=True)
    download.lock.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.incomplete")
    with _only_one_process(download):
        if path.exists():
            return
        if download.size is not None and partial.exists() and partial.stat().st_size > download.size:
            partial.unlink()
        resumed = partial.exists()
        _transfer(partial, download, transfer)
        if resumed and not matches(partial, digest):
            # The part of an earlier download was damaged.
            partial.unlink()
            _transfer(partial, download, transfer)
        if not matches(partial, digest):
            partial.unlink()
            raise UserError(
                f"the download of {download.title} does not have the hash {digest} and was removed: run the same "
                "command again, and if it fails again, get the file elsewhere"
            )
        partial.replace(path)


def fetch_url(url: str, sha256: str) -> Path:
    """Returns the file of a URL from the cache, downloaded if it is not there.

    Args:
      url: an https URL.
      sha256: the file's SHA-256 in hexadecimal.

    Raises:
      UserError: the file cannot be downloaded, or has another hash.
    """
    address = urllib.parse.urlsplit(url)
    name = re.sub(r"[^\w.-]", "_", urllib.parse.unquote(address.path).rpartition("/")[2]).lstrip(".") or "checkpoint"
    path = _downloads_folder() / sha256 / name[-150:]
    # The name of a user and a query may hold a password.
    title = address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()
    if path.exists() and not matches(path, sha256):
        path.unlink()
        print_note(f"{path} was damaged and is downloaded again")
    if not path.exists():
        download = Download(path, path.with_name(f"{path.name}.lock"), title, sha256)
        receive(download, lambda file, _: _get(url, title, file, path))
    return path


def _downloads_folder() -> Path:
    """Returns the folder for downloaded files: `ppvit_jax` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ppvit_jax"


def disk_is_full(folder: Path, title: str) -> UserError:
    """Returns the error for a download that has no space."""
    return UserError(
        f"no space is left for {title} in {folder}: free some, or set HF_HOME and XDG_CACHE_HOME to folders on another "
        "disk, and run the same command again"
    )


def _in_words(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _transfer(partial: Path, download: Download, transfer: Transfer) -> None:
    title, size = download.title, download.size
    begin = partial.stat().st_size if partial.exists() else 0
    if size is not None and shutil.disk_usage(partial.parent).free < size - begin:
        raise disk_is_full(partial.parent, title)
    whole = "" if size is None else f" of {_in_words(size)}"
    # On a terminal, the progress tells the same.
    if not sys.stderr.isatty():
        sizes = ([] if size is None else [_in_words(size)]) + [f"{_in_words(begin)} are here"] * (begin > 0)
        print_note(f"downloading {title}" + (f" ({', '.join(sizes)})" if sizes else ""))
    began = time.monotonic()
    try:
        with resuming(), partial.open("ab") as file:
            transfer(file, begin)
    except KeyboardInterrupt:
        print_note(f"{_in_words(partial.stat().st_size)}{whole} of {title} are kept: the next run continues from there")
        raise
    except OSError as error:
        if error.errno in _DISK_IS_FULL:
            raise disk_is_full(partial.parent, title) from None
        raise
    seconds = time.monotonic() - began
    if not sys.stderr.isatty() and seconds > _SILENT_SECONDS:
        received = partial.stat().st_size - begin
        print_note(f"downloaded {title} in {seconds:.0f} s, {_in_words(round(received / seconds))} a second")


def _get(url: str, title: str, file: BinaryIO, path: Path) -> None:
    """Appends the bytes of a URL that a file lacks; lost connections are opened again a few times."""
    # Imported here, because it is slow and the hub does not need it.
    import urllib.error
    import urllib.request

    reason, attempts, most = "the connection was closed", 0, file.tell()
    while attempts < _ATTEMPTS:
        begin = file.tell()
        headers = {"User-Agent": f"ppvit_jax/{ppvit_jax.__version__}", "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
                if response.status != 206:
                    # The server sends the whole file.
                    file.seek(0)
                    file.truncate()
                _copy(response, file, title)
                # Python takes a closed connection for the end of the file.
                if not response.length:
                    return
        except urllib.error.HTTPError as error:
            if error.code == 416:
                # Nothing is left, or what is here is too long: the hash tells.
                return
            if error.code < 500 and error.code != 429:
                raise UserError(
                    f"cannot download {title} (the server answers {error.code} {error.reason}): check the URL"
                ) from None
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in _DISK_IS_FULL:
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        file.flush()
        attempts, most = (0, file.tell()) if file.tell() > most else (attempts + 1, most)
        time.sleep(_WAIT_SECONDS)
    raise UserError(
        f"cannot download {title} ({reason}): run the same command again when there is a network, or download it "
        f"elsewhere to {path}"
    )


def _copy(response: http.client.HTTPResponse, file: BinaryIO, title: str) -> None:
    begin = file.tell()
    progress = Progress(f"downloading {title}", begin + response.length if response.length else 0, "bytes", begun=begin)
    with contextlib.closing(progress):
        while block := response.read1(_BLOCK):
            file.write(block)
            progress.update(file.tell())


@contextlib.contextmanager
def _only_one_process(download: Download) -> Iterator[None]:
    """Waits until no other process downloads the same file."""
    waiting = False
    with download.lock.open("ab") as file:
        while True:
            try:
                lock(file, download.path.parent)
                break
            except UserError:
                if not waiting:
                    print_note(f"another process downloads {download.title}: waiting for it")
                waiting = True
                time.sleep(_WAIT_SECONDS)
        yield
