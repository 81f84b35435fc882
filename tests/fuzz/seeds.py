"""Small valid files of every kind that the commands read, and the commands that read them."""

import dataclasses
import hashlib
import json
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from helpers import toy
from helpers.command import make_key, run_ppvit
from helpers.tiny import random_images, random_params, tiny_model
from PIL import Image

from fuzz import mutations
from fuzz.mutations import Damage
from ppvit_jax import checkpoint, keys
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.data import manifest as manifests

# Arguments of a command. IN is the damaged file, or the folder that holds it, and OUT a path that is new.
Command = tuple[str, ...]
_TIMM = ("convert", "timm-to-npz", "IN", "OUT.npz", "--heads", "2")
_SIZES = ("--image-size", "16", "--block-size", "4")


@dataclasses.dataclass(frozen=True)
class Seed:
    """A file or folder that is valid, and what to do with it.

    Attributes:
      name: its name.
      path: the file, or the folder with the files.
      files: paths in the folder of the files to damage; "" for a seed that is a file.
      damage: damages the content of a file.
      commands: those that read it.
    """

    name: str
    path: Path
    files: tuple[str, ...]
    damage: Damage
    commands: tuple[Command, ...]


def make(root: Path, *, fast: bool) -> list[Seed]:
    """Makes the files below a folder that it creates; `fast` leaves out those of the libraries that load slowly."""
    root.mkdir(parents=True)
    key = make_key(root)
    made = [*_checkpoints(root, key), *_images(root, key), *_keys(root, key), *_folders(root, key), *_runs(root)]
    return made if fast else [*made, *_torch_files(root), *_data_sets(root, key), *_orbax_files(root)]


def _checkpoints(root: Path, key: Path) -> list[Seed]:
    names = ("a", "b", "c")
    checkpoint.write(root / "plain.npz", random_params(tiny_model()), Metadata(image_size=16, class_names=names))
    with np.load(root / "plain.npz") as arrays:
        np.savez_compressed(root / "compressed.npz", **arrays)
    _run(
        "adapt", "--key", key, "--checkpoint", root / "plain.npz", "--image-size", 16, "--output", root / "adapted.npz"
    )
    _run("convert", "npz-to-timm", root / "plain.npz", root / "timm.safetensors")
    _run("convert", "npz-to-hf", root / "plain.npz", root / "hf")
    images = _folder(root / "some", ["a.png"])
    npz: tuple[Command, ...] = (
        ("info", "IN"),
        ("info", "IN"),
        ("predict", "--checkpoint", "IN", "--input", str(images), "--output", "OUT.csv"),
        ("adapt", "--key", str(key), "--checkpoint", "IN", "--image-size", "16", "--output", "OUT.npz"),
        ("adapt", "--key", str(key), "--checkpoint", "IN", "--image-size", "32", "--output", "OUT.npz"),
        ("restore", "--key", str(key), "--checkpoint", "IN", "--output", "OUT.npz"),
        ("convert", "npz-to-timm", "IN", "OUT.safetensors"),
        ("convert", "npz-to-hf", "IN", "OUT"),
        ("convert", "big-vision-to-npz", "IN", "OUT.npz"),
    )
    files = ("config.json", "preprocessor_config.json", "model.safetensors")
    return [
        *(
            Seed(name, root / name, ("",), mutations.damage_npz, npz)
            for name in ("plain.npz", "compressed.npz", "adapted.npz")
        ),
        Seed("safetensors", root / "timm.safetensors", ("",), mutations.damage_safetensors, (_TIMM,)),
        Seed("hf", root / "hf", files, _by_ending, (("convert", "hf-to-npz", "IN", "OUT.npz"),)),
    ]


def _torch_files(root: Path) -> list[Seed]:
    import torch

    _run("convert", "npz-to-timm", root / "plain.npz", root / "timm.pth")
    content = {"state_dict": torch.load(root / "timm.pth"), "epoch": 1}
    torch.save(content, root / "old.pth", _use_new_zipfile_serialization=False)
    return [Seed(name, root / name, ("",), mutations.damage_bytes, (_TIMM,)) for name in ("timm.pth", "old.pth")]


def _images(root: Path, key: Path) -> list[Seed]:
    picture = Image.fromarray(random_images(1, 12)[0])
    exif = Image.Exif()
    exif[274] = 6
    gray = Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12) * 400)
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgb.png": (picture, {}),
        "palette.png": (picture.quantize(16), {"transparency": 3}),
        "gray16.png": (gray, {}),
        "exif.jpg": (picture, {"exif": exif}),
        "progressive.jpg": (picture.convert("CMYK"), {"progressive": True}),
        "raw.tif": (picture, {}),
        "deflate.tif": (picture, {"compression": "tiff_deflate"}),
        "float.tif": (Image.fromarray(np.linspace(0, 1, 144, dtype=np.float32).reshape(12, 12)), {}),
        "lossy.webp": (picture, {"exif": exif}),
        "moving.gif": (picture.quantize(8), {"save_all": True, "append_images": [picture.quantize(4)]}),
        "rgb.bmp": (picture, {}),
    }
    encrypt = ("encrypt", "--key", str(key), "--input", "IN", "--output", "OUT", *_SIZES)
    commands: tuple[Command, ...] = (
        *[encrypt] * 4,
        (*encrypt, "--skip-unreadable"),
        (*encrypt, "--resize", "squash", "--max-pixels", "1000"),
        ("predict", "--checkpoint", str(root / "plain.npz"), "--input", "IN", "--output", "OUT.npz"),
    )
    seeds = []
    for name, (image, options) in kinds.items():
        (folder := root / f"images {name}").mkdir()
        image.save(folder / name, **options)
        picture.save(folder / "other.png")
        # A prediction is compiled, and reads files as the others do.
        chosen = commands if name == "rgb.png" else commands[:-1]
        seeds.append(Seed(name, folder, (name,), mutations.damage_bytes, chosen))
    return seeds


def _keys(root: Path, key: Path) -> list[Seed]:
    (root / "passphrase").write_text("secret\n")
    keys.save(keys.load(key), root / "sealed.key", b"secret")
    images = str(_folder(root / "one", ["a.png"]))
    encrypt = ("encrypt", "--key", "IN", "--input", images, "--output", "OUT", *_SIZES)
    sealed = (*encrypt, "--passphrase-file", str(root / "passphrase"))
    return [
        Seed("key", key, ("",), mutations.damage_json, (("info", "IN"), encrypt)),
        Seed("sealed key", root / "sealed.key", ("",), mutations.damage_json, (("info", "IN"), sealed)),
    ]


def _folders(root: Path, key: Path) -> list[Seed]:
    images = _folder(
        root / "split", [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in "01"]
    )
    _run("encrypt", "--key", key, "--input", images, "--output", root / "encrypted", *_SIZES)
    _run("encrypt", "--key", key, "--input", images, "--output", root / "begun", *_SIZES)
    _interrupt(root / "begun")
    data = ("load", "--config.data.source=image_folder", "--config.data.dir=IN")
    checked = ("--key", str(key), "--input", "IN", "--output", "OUT")
    return [
        Seed(
            "manifest",
            root / "encrypted",
            ("manifest.json",),
            _manifest(keys.load(key)),
            (
                ("info", "IN"),
                ("decrypt", *checked),
                data,
                ("predict", "--checkpoint", str(root / "adapted.npz"), "--input", "IN/test", "--output", "OUT.csv"),
            ),
        ),
        Seed(
            "journal",
            root / "begun",
            (".unfinished.jsonl", ".unfinished/0.jsonl"),
            mutations.damage_json,
            (("encrypt", "--key", str(key), "--input", str(images), "--output", "IN", *_SIZES), ("info", "IN"), data),
        ),
    ]


def _data_sets(root: Path, key: Path) -> list[Seed]:
    with mock.patch.dict(toy.COUNTS, {"train": 6, "test": 3}):
        built = toy.build(root / "tfds", fixed=True)
    archive = root / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name in ("data_batch_1.bin", "test_batch.bin", "batches.meta.txt"):
            (root / name).write_bytes(b"airplane\n" * 400)
            file.add(root / name, f"cifar-10-batches-bin/{name}")
    tfds = tuple(path.name for path in built.iterdir() if path.is_file())
    return [
        Seed(
            "tfds",
            root / "tfds",
            tuple(f"toy/1.0.0/{name}" for name in tfds),
            _by_ending,
            (
                ("encrypt", "--key", str(key), "--tfds", "toy", "--data-dir", "IN", "--output", "OUT", *_SIZES),
                ("load", "--config.data.name=toy", "--config.data.dir=IN"),
            ),
        ),
        Seed(
            "cifar",
            archive,
            ("",),
            mutations.damage_bytes,
            (("prepare", "cifar10", "--archive", "IN", "--data-dir", "OUT"),),
        ),
    ]


def _runs(root: Path) -> list[Seed]:
    (run := root / "run").mkdir()
    metadata = json.loads(Metadata(model="ViT-Micro/8", image_size=16).to_json())
    config = {"config": {"epochs": 2, "seed": 0}, "encryption": "none", "key_fingerprint": None, "metadata": metadata}
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").write_text(json.dumps({"test_accuracy": 0.5, "test_examples": 10}))
    convert = ("convert", "orbax-to-npz", "IN", "OUT.npz")
    files = ("config.json", "result.json")
    return [Seed("workdir", run, files, mutations.damage_json, (("info", "IN"), ("info", "IN"), convert))]


def _orbax_files(root: Path) -> list[Seed]:
    import orbax.checkpoint as ocp

    shutil.copytree(root / "run", run := root / "saved")
    with ocp.CheckpointManager(run.absolute() / "checkpoints") as manager:
        manager.save(1, args=ocp.args.StandardSave({"params": random_params(tiny_model()), "step": np.int32(1)}))
    state = tuple(str(path.relative_to(run)) for path in (run / "checkpoints").rglob("*") if path.is_file())
    return [Seed("orbax", run, state, _by_ending, (("convert", "orbax-to-npz", "IN", "OUT.npz"),))]


def _by_ending(content: bytes, draw: random.Random) -> bytes:
    if content[8:9] == b"{" and content[:1] != b"{":
        return mutations.damage_safetensors(content, draw)
    try:
        json.loads(content)
    except ValueError:
        return mutations.damage_bytes(content, draw)
    return mutations.damage_json(content, draw)


def _manifest(key: keys.SecretKey) -> Damage:
    def damage(content: bytes, draw: random.Random) -> bytes:
        """Damages a manifest; the checks behind its checksums are reached where these are made to fit."""
        content = mutations.damage_json(content, draw)
        if draw.random() < 0.3:
            return content
        try:
            fields = json.loads(content)
            lines = [f"\n{sha256} {json.dumps(name)}" for name, sha256 in fields["files"].items()]
            header = json.dumps(manifests.Header.from_fields(fields).fields(), sort_keys=True)
            digest = hashlib.sha256("".join([header, *lines]).encode())
            fields |= {"sha256": digest.hexdigest(), "authentication": key.authenticate(digest.digest())}
            return json.dumps(fields).encode()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return content

    return damage


def _folder(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_images(1, 16, number)[0]).save(folder / name)
    return folder


def _interrupt(folder: Path) -> None:
    """Makes of a complete folder one that was left in the middle, with the record of a worker."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = list(manifest.pop("files").items())
    header = {
        name: value for name, value in manifest.items() if name not in ("format", "version", "sha256", "authentication")
    }
    (folder / "manifest.json").unlink()
    lines = [json.dumps(line) for line in (header, *({name: sha256} for name, sha256 in files[:3]))]
    (folder / ".unfinished.jsonl").write_text("\n".join(lines) + "\n")
    (folder / ".unfinished").mkdir()
    (folder / ".unfinished" / "0.jsonl").write_text(json.dumps([4, dict(files[4:5]), []]) + "\n")


def _run(*arguments: object) -> None:
    assert run_ppvit(*arguments) == 0, arguments


def copied(seed: Seed, target: Path) -> Path:
    """Copies a seed into a folder that exists; returns its path there."""
    path = target / seed.path.name
    if seed.path.is_dir():
        shutil.copytree(seed.path, path)
    else:
        shutil.copy(seed.path, path)
    return path
