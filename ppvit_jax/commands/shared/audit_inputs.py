"""What the attacks of `ppvit audit` are given: images, models and, for the scoring alone, the key."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppvit_jax import checkpoint, keys
from ppvit_jax.commands.shared import adapted_model
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import MAX_PIXELS_LIMIT
from ppvit_jax.data.listing import Decoding, Images, open_folder
from ppvit_jax.data.preprocess import preprocess
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import Encryption, Permutations, Secret
from ppvit_jax.errors import UserError

PHOTOGRAPHS = "photographs"


@dataclasses.dataclass(frozen=True)
class Encrypted:
    """A folder of encrypted images.

    images: uint8 [n, side, side, 3], a part of the folder's.
    numbers: int [n], their places in it.
    total: how many images the folder has.
    method: how they are encrypted.
    truth: the secret, if the key was given.
    """

    images: np.ndarray
    numbers: np.ndarray
    total: int
    method: Encryption
    truth: Secret | None


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Adds these arguments, and those that go with them; a "?" after a name makes it optional."""
    for name in names:
        name, optional, _ = name.partition("?")
        required = not optional
        match name:
            case "base":
                parser.add_argument("--base", required=required, metavar="CKPT", help="a plain one, or `embedded`")
            case "model":
                parser.add_argument("--model", required=required, metavar="CKPT", help="adapted, fine-tuned or not")
            case "models":
                parser.add_argument(
                    "--model",
                    required=required,
                    action="append",
                    metavar="CKPT",
                    help="adapted, fine-tuned or not; given twice, to compare models of two keys",
                )
            case "plain":
                parser.add_argument("--plain", required=required, metavar="DIR", help="the plain images")
            case "encrypted":
                parser.add_argument("--encrypted", required=required, metavar="DIR", help="images of one key")
                shared.add_encryption(parser, default=None)
            case "reference":
                parser.add_argument(
                    "--reference", metavar="DIR", help="plain images of the same kind as those attacked"
                )
            case "pairs":
                parser.add_argument(
                    "--pairs", type=_numbers, default=[1, 2, 5, 10, 20], metavar="N,N", help="to learn from"
                )
            case "images":
                parser.add_argument("--images", type=_numbers, default=[1, 5, 20, 100], metavar="N,N", help="to attack")
            case "candidates":
                parser.add_argument("--candidates", type=int, default=500, metavar="N", help="(default: %(default)s)")
            case "key":
                parser.add_argument("--key", metavar="KEY", help="for the scoring alone: no attack sees it")
                parser.add_argument("--passphrase-file", metavar="F", help="file whose first line opens it")
    if any(name.startswith(("plain", "encrypted")) for name in names):
        parser.add_argument("--patch-size", type=int, default=16, help="without a manifest (default: %(default)s)")
        parser.add_argument(
            "--resize", choices=("centre_crop", "squash"), default="centre_crop", help="of plain images (%(default)s)"
        )


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 1 on, such as 1,5,20")
    return numbers


def open_key(arguments: argparse.Namespace) -> keys.SecretKey | None:
    """The key for the scoring, or None."""
    return shared.open_key(arguments.key, arguments.passphrase_file) if arguments.key else None


def open_encrypted(arguments: argparse.Namespace, limit: int) -> Encrypted:
    """Reads up to `limit` images of --encrypted, drawn by --seed.

    Raises:
      UserError: images that cannot be read, that are not square or of several sizes, or of which nothing says how they
        are encrypted; or a key that is another than theirs.
    """
    path = Path(arguments.encrypted).expanduser()
    manifest = manifests.read(path if path.is_dir() else path.parent)
    spec, block_size = arguments.encryption, arguments.patch_size
    if manifest:
        if manifest.header.encryption == "none":
            raise UserError(f"the images in {path} are plain, by their manifest: give encrypted ones")
        if spec not in (None, manifest.header.encryption):
            raise UserError(f"the images in {path} are encrypted by {manifest.header.encryption!r}, not by {spec!r}")
        spec, block_size = manifest.header.encryption, manifest.header.patch_size
    if spec is None:
        raise UserError(f"{path} has no manifest.json: say how its images are encrypted by --encryption")
    method = shared.open_encryption(spec, block_size)
    images, numbers, total = _read(open_folder(path, _decoding(None, arguments), manifest), limit, arguments.seed, path)
    side = images.shape[1]
    if images.shape[2] != side or (method.blocks and side % block_size):
        raise UserError(f"the images in {path} have {images.shape[2]}x{side} pixels: give square ones of whole blocks")
    key, truth = open_key(arguments), None
    if key is not None:
        if manifest and manifest.header.key_fingerprint != key.fingerprint:
            raise UserError(
                f"the images in {path} are encrypted with the key of fingerprint {manifest.header.key_fingerprint}, "
                f"and --key has {key.fingerprint}: give theirs, or none"
            )
        truth = method.derive(key, height=side, width=side)
    return Encrypted(images, numbers, total, method, truth)


def open_plain(folder: str, arguments: argparse.Namespace, like: Encrypted) -> np.ndarray:
    """The plain images of encrypted ones: uint8 [n, side, side, 3]. Pairs go by the order of the paths.

    Raises:
      UserError: images that cannot be read, or another number of them than of encrypted ones.
    """
    path = Path(folder).expanduser()
    size = like.images.shape[1]
    images = _open_unencrypted(path, size, arguments)
    if images.count != like.total:
        raise UserError(
            f"{path} has {images.count:,} images and the encrypted folder {like.total:,}: give the folder that was "
            "encrypted, without augmented copies"
        )
    return _fetch(images, like.numbers, size)


def open_images(folder: str, arguments: argparse.Namespace, size: int, limit: int, seed: int) -> np.ndarray:
    """Up to `limit` images of a folder, resized: uint8 [n, size, size, 3]; or crops of scikit-learn's photographs.

    Raises:
      UserError: images that cannot be read.
    """
    if folder == PHOTOGRAPHS:
        return _crops(size, limit, seed)
    images = _open_unencrypted(Path(folder).expanduser(), size, arguments)
    numbers = np.random.default_rng(seed).permutation(images.count)[:limit]
    return _fetch(images, numbers, size)


def open_model(name: str, image_size: int | None = None) -> tuple[Any, checkpoint.Metadata, Any]:
    """Parameters, metadata and shape of a checkpoint; see `adapted_model.open_model`."""
    model = adapted_model.open_model(checkpoint.resolve(name), image_size)
    return model.params, model.metadata, model.shape


def model_truth(arguments: argparse.Namespace, metadata: checkpoint.Metadata, shape: Any) -> Permutations | None:
    """The permutations that an adapted model was adapted with, if the key was given.

    Raises:
      UserError: the key is another than the model's.
    """
    key = open_key(arguments)
    if key is None:
        return None
    if metadata.key_fingerprint != key.fingerprint:
        raise UserError(
            f"the model is adapted with the key of fingerprint {metadata.key_fingerprint}, and --key has "
            f"{key.fingerprint}: give the model's, or none"
        )
    return key.permutations(metadata.encryption, image_size=shape.image_size, patch_size=shape.patch_size)


def _open_unencrypted(path: Path, size: int, arguments: argparse.Namespace) -> Images:
    manifest = manifests.read(path if path.is_dir() else path.parent)
    if manifest and manifest.header.encryption != "none":
        raise UserError(f"the images in {path} are encrypted, by their manifest: give plain ones")
    return open_folder(path, _decoding(size, arguments), manifest)


def _decoding(size: int | None, arguments: argparse.Namespace) -> Decoding:
    return Decoding(size, arguments.resize, MAX_PIXELS_LIMIT)


def _read(images: Images, limit: int, seed: int, path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    numbers = np.sort(np.random.default_rng(seed).permutation(images.count)[:limit])
    arrays = [_one(images, number) for number in numbers]
    if len({array.shape for array in arrays}) > 1:
        raise UserError(f"the images in {path} are of several sizes, and encrypted ones have one: give their folder")
    return np.stack(arrays), numbers, images.count


def _fetch(images: Images, numbers: np.ndarray, size: int) -> np.ndarray:
    result = np.empty((len(numbers), size, size, 3), np.uint8)
    resize = jax.jit(lambda image: preprocess(image[None], size)[0])
    progress = Progress("reading", len(numbers))
    for place, number in enumerate(numbers):
        image = _one(images, number)
        # Images of one size are resized as `ppvit encrypt` does.
        result[place] = image if image.shape[:2] == (size, size) else np.asarray(resize(image))
        progress.update(place + 1)
    progress.close()
    return result


def _one(images: Images, number: int) -> np.ndarray:
    split, index = images.locate(int(number))
    return split.read(index)[0]


def _crops(size: int, count: int, seed: int) -> np.ndarray:
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(seed)
    photographs = load_sample_images().images
    crops = []
    for _ in range(count):
        photograph = photographs[random.integers(len(photographs))]
        if min(photograph.shape[:2]) < size:
            raise UserError(f"the photographs have 427x640 pixels: choose an image size of at most 427, not {size}")
        row, column = (random.integers(side - size + 1) for side in photograph.shape[:2])
        crops.append(photograph[row : row + size, column : column + size])
    return np.stack(crops)
