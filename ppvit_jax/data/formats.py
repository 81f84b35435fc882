"""Formats of image files: recognized by usual endings, without opening a file, or by the first bytes."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from PIL import Image, features

# Raster formats that Pillow decodes by itself. Its other plugins call programs (EPS), draw vectors (WMF), hold films
# (FLI, MPEG), are stubs (BUFR, GRIB, HDF5) or recognize text and raw data as images (IM, SPIDER, XBM, PCD).
_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM"),
    *("ICO", "PCX", "PSD", "QOI", "SGI", "DDS", "SUN"),
)
# A TGA file has no mark at its beginning, so only its ending tells.
_TGA_ENDINGS = frozenset({".tga", ".icb", ".vda", ".vst"})
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_USUAL = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
    }
)
# Endings of pictures that Pillow does not read.
_UNREADABLE = frozenset(
    {".heic", ".heif", ".hif", ".avif", ".jxl", ".svg", ".eps", ".pdf", ".dcm", ".dng", ".nef", ".cr2"}
)
# Endings of files that never are images, however many there are.
OTHER_ENDINGS = frozenset(
    {
        *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".htm", ".md", ".rst", ".log", ".yaml", ".yml"),
        *(".toml", ".ini", ".cfg", ".db", ".sqlite", ".py", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl"),
        *(".pt", ".pth", ".h5", ".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".md5", ".sha256", ".lnk", ".url"),
    }
)


def split_ending(name: str) -> tuple[str, str]:
    """Splits a file's name or path before its ending; the ending is in lower case, or "" if there is none."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:].lower()) if dot > name.rfind("/") + 1 else (name, "")


@functools.cache
def usual_endings() -> frozenset[str]:
    """Returns the endings, in lower case, of files that count as images without being opened."""
    reads_avif = "avif" in features.modules and features.check("avif")
    return _USUAL | {".avif"} if reads_avif else _USUAL


def is_picture_that_cannot_be_read(ending: str) -> bool:
    """Returns True for the endings of pictures, such as HEIC, that Pillow on this machine cannot read."""
    return ending in _UNREADABLE - usual_endings()


def accepted_formats(ending: str) -> tuple[str, ...]:
    """Returns Pillow's names of the formats that a file with this ending, in lower case, may have."""
    return (*_registered(), "TGA") if ending in _TGA_ENDINGS else _registered()


def is_image(path: Path, ending: str) -> bool:
    """Recognizes an image by its first bytes, unless its ending is that of other data.

    Args:
      path: the file.
      ending: its ending, in lower case.

    Raises:
      OSError: the file cannot be opened.
    """
    if ending in OTHER_ENDINGS:
        return False
    with path.open("rb") as file:
        try:
            with Image.open(file, formats=accepted_formats(ending)):
                return True
        except Image.DecompressionBombError:
            return True
        # Pillow's parsers raise almost anything on a damaged file.
        except Exception:
            return False


def is_heic(file: Path | bytes) -> bool:
    """Returns True for the first bytes of a HEIC image, which phones also give the ending .jpg."""
    try:
        with contextlib.ExitStack() as stack:
            first = file[:12] if isinstance(file, bytes) else stack.enter_context(file.open("rb")).read(12)
    except OSError:
        return False
    return first[4:8] == b"ftyp" and first[8:] in _HEIC_BRANDS


@functools.cache
def _registered() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
