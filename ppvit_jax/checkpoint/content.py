"""Recognition of a file's kind by its content, whatever the ending of its name."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Literal

Kind = Literal[
    "npz", "torch", "safetensors", "torchscript", "pickle", "index", "json", "page", "pointer", "empty", "folder",
    "image", "hdf5", "gguf", "program", "archive", "damaged", "unknown",
]  # fmt: skip

_TIMM = "convert it by ppvit convert timm-to-npz"
# Each kind in words, and advice.
_TITLES: dict[Kind, tuple[str, str]] = {
    "npz": ("a .npz file", "give it to ppvit as it is, or convert it by ppvit convert npz-to-timm or npz-to-hf"),
    "torch": ("a PyTorch file", _TIMM),
    "safetensors": ("a safetensors file", f"{_TIMM}, or convert its folder by ppvit convert hf-to-npz"),
    "torchscript": ("a TorchScript program", "load it by torch.jit.load and save its state_dict() by torch.save"),
    "pickle": ("a pickle of Python objects, which could run code", "save the model's state_dict() by torch.save"),
    "index": (
        "the index of weights in several files",
        "load the model once and save it in one file: model.save_pretrained(FOLDER, max_shard_size='100GB')",
    ),
    "json": ("JSON text", "give the file that holds the weights"),
    "page": ("a web page", "the download failed, so download the file again"),
    "pointer": ("a pointer of Git LFS", "run git lfs pull, or download the file itself"),
    "empty": ("empty", "download it again"),
    "folder": ("a folder", "give a file in it, or convert a folder of Hugging Face by ppvit convert hf-to-npz"),
    "image": ("an image", "give the file that holds the weights"),
    "hdf5": ("an HDF5 file, as Keras writes it", "only weights of timm, Hugging Face and big_vision can be converted"),
    "gguf": ("a GGUF file with quantized weights", "use the model's .safetensors file"),
    "program": ("a program from ppvit export", "give the checkpoint that it was exported from"),
    "archive": ("a compressed or packed archive", "unpack it first"),
    "damaged": ("a zip archive that is truncated or damaged", "download it again"),
    "unknown": ("of an unknown kind", "give the file that holds the weights"),
}
_IMAGES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_STARTS: tuple[tuple[Kind, tuple[bytes, ...]], ...] = (
    ("image", _IMAGES),
    ("hdf5", (b"\x89HDF\r\n",)),
    ("gguf", (b"GGUF",)),
    ("pointer", (b"version https://git-lfs",)),
    ("archive", (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")),
    ("pickle", tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))),
)
# PyTorch's files before version 1.6 start with this number as a pickle.
_TORCH_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")


def recognize(path: Path) -> Kind:
    """Recognizes the kind of a file by its content.

    Raises:
      OSError: the file cannot be read.
    """
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "empty"
    if start.startswith(b"PK"):
        return _recognize_zip(path)
    if start[0] == 0x80 and _TORCH_MAGIC in start[:32]:
        return "torch"
    # A length of eight bytes, and a JSON object.
    if len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < 2**32:
        return "safetensors"
    for kind, starts in _STARTS:
        if start.startswith(starts):
            return kind
    if start[257:262] == b"ustar":
        return "archive"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "page"
    return _recognize_json(path) if text.startswith((b"{", b"[")) else "unknown"


def refusal(path: Path, kind: Kind, wanted: str) -> str:
    """Words a message about a file of another kind than `wanted`, such as "a .npz file"."""
    title, advice = _TITLES[kind]
    return f"{path} is {title} and not {wanted}: {advice}"


def _recognize_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):
        return "damaged"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return "torchscript"
    if "program.bin" in names:
        return "program"
    return "torch" if any(name.endswith("data.pkl") for name in names) else "archive"


def _recognize_json(path: Path) -> Kind:
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size < 2**26 else None
    except ValueError:
        return "unknown"
    return "index" if isinstance(content, dict) and "weight_map" in content else "json"
