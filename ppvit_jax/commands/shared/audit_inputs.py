"""Inputs of the attacks of `ppvit audit`, read from files: images, models and, for the scoring alone, the key."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from ppvit_jax import checkpoint, keys, models
from ppvit_jax.adaptation import restore
from ppvit_jax.audit.attack import Attack, EncryptedImages, Inputs
from ppvit_jax.audit.methods import Material, Models
from ppvit_jax.commands.shared import adapted_model
from ppvit_jax.commands.shared import arguments as shared
from ppvit_jax.commands.shared.audit_arguments import Sources
from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.images import MAX_PIXELS_LIMIT, ImageReader
from ppvit_jax.data.listing import Images, open_folder
from ppvit_jax.data.preprocess import preprocess
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import Permutations, derive_permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models import Params

PHOTOGRAPHS = "photographs"
_REFERENCES = 200


def open_inputs(attack: Attack, sources: Sources) -> Inputs:
    """Reads the inputs that an attack needs, and those that it uses if they are given.

    Raises:
      UserError: models or images cannot be read, or do not belong together.
    """
    inputs = Inputs(counts=sources.counts, seed=sources.seed)
    if attack.on_models:
        inputs = _add_models(inputs, attack, sources)
    if "encrypted" in attack.needs:
        inputs = _add_images(inputs, attack, sources)
    return inputs


def open_material(sources: Sources, attacks: Sequence[Attack], size: int, noise: float) -> Material:
    """Reads the images and models on which attacks are tried with new keys.

    Args:
      sources: without `plain` there is nothing for attacks on images, without `base` nothing for those on models.
      attacks: the attacks to try.
      size: side of the images in pixels.
      noise: see `Material`.

    Raises:
      UserError: images or models cannot be read, or an adapted model lacks its key.
    """
    plain = reference = pair = None
    if sources.plain and not all(attack.on_models for attack in attacks):
        counts = sources.counts
        needed = max([2 * max(counts.pairs), *counts.images, counts.candidates])
        plain = open_images(sources.plain, sources, size, needed)
        reference = _open_reference(sources, size)
    if sources.base and any(attack.on_models for attack in attacks):
        pair = _open_plain_models(sources.base, sources)
    return Material(plain, reference, sources.counts, noise, pair)


def describe_material(sources: Sources, material: Material, repetitions: int, draws: int | None = None) -> str:
    """Returns a line that describes the keys, draws of images, images and models of a measurement."""
    keys_used = "1 key" if repetitions == 1 else f"{repetitions} keys"
    drawn = "" if draws is None else f"{draws} draws of images, " if draws > 1 else "1 draw of images, "
    parts = [f"{keys_used}, {drawn}seed {sources.seed}"]
    if material.plain is not None:
        number, size = material.plain.shape[:2]
        parts.append(
            f"{number} images of {_folder_name(sources.plain)} at {size}x{size}, blocks of {sources.block_size} pixels "
            "(4 for LE and ELE)"
        )
    if material.noise:
        parts.append(f"the owner adds noise of standard deviation {material.noise:g} before encrypting")
    if material.reference is not None:
        parts.append(f"{len(material.reference)} reference images of {_folder_name(sources.reference)}")
    if material.models:
        side, patch_size = material.models.image_size, material.models.patch_size
        names = [Path(name or "").name for name in (sources.base, sources.model or sources.base)]
        parts.append(f"base {names[0]}, model {names[1]} for {side}x{side} with patches of {patch_size}")
    return "; ".join(parts)


def open_images(folder: str, sources: Sources, size: int, limit: int, draw: int = 0) -> np.ndarray:
    """Reads up to `limit` images of a folder, resized, or crops of scikit-learn's photographs.

    Args:
      folder: its path, or `PHOTOGRAPHS`.
      sources: those with `resize` and `seed`.
      size: side of the result in pixels.
      limit: the largest number of images to read.
      draw: number of the draw; each number draws other images.

    Returns:
      uint8 [n, size, size, 3].

    Raises:
      UserError: images cannot be read.
    """
    random = np.random.default_rng(sources.seed + draw)
    if folder == PHOTOGRAPHS:
        return _crop_photographs(size, limit, random)
    images = _open_unencrypted(Path(folder).expanduser(), size, sources)
    return _resize(images, random.permutation(images.count)[:limit], size)


def open_encrypted(sources: Sources, limit: int) -> tuple[EncryptedImages, np.ndarray, int]:
    """Reads up to `limit` of the encrypted images, drawn by the seed.

    Returns:
      The images, with their secret if the key is given; their places in the folder, int [n]; and the number of images
      in the folder.

    Raises:
      UserError: the images cannot be read, are not square, or have several sizes or an unknown encryption; or the key
        is not theirs.
    """
    path = Path(sources.encrypted or "").expanduser()
    manifest = manifests.read(path if path.is_dir() else path.parent)
    spec, block_size = sources.encryption, sources.block_size
    if manifest:
        if manifest.header.encryption == "none":
            raise UserError(f"the images in {path} are plain, according to their manifest: give encrypted ones")
        if spec not in (None, manifest.header.encryption):
            raise UserError(
                f"the images in {path} are encrypted by {manifest.header.encryption!r}, not by "
                f"{spec!r}: leave --encryption out"
            )
        spec, block_size = manifest.header.encryption, manifest.header.block_size
    if spec is None:
        raise UserError(f"{path} has no manifest.json: name the encryption of its images by --encryption")
    method = shared.open_encryption(spec, block_size)
    folder = open_folder(path, _make_reader(None, sources), manifest)
    numbers = np.sort(np.random.default_rng(sources.seed).permutation(folder.count)[:limit])
    arrays = [_read_image(folder, number) for number in numbers]
    if len({array.shape for array in arrays}) > 1:
        raise UserError(f"the images in {path} have several sizes, but encrypted images have one: give their folder")
    images = np.stack(arrays)
    height, width = images.shape[1:3]
    if height != width or (method.blocks and height % block_size):
        raise UserError(f"the images in {path} have {width}x{height} pixels: give square ones that divide into blocks")
    key, secret = _open_key(sources), None
    if key is not None:
        if manifest and manifest.header.key_fingerprint != key.fingerprint:
            raise UserError(
                f"the images in {path} are encrypted with the key of fingerprint {manifest.header.key_fingerprint}, "
                f"but --key has {key.fingerprint}: give their key, or leave --key out"
            )
        secret = method.derive(key, height=height, width=width)
    return EncryptedImages(images, method, secret), numbers, folder.count


def open_model(name: str, image_size: int | None = None) -> tuple[Params, checkpoint.Metadata, models.ModelConfig]:
    """Reads parameters, metadata and shape of a checkpoint; see `adapted_model.open_model`."""
    model = adapted_model.open_model(checkpoint.resolve(name), image_size)
    # `ppvit adapt` rewrites a model in the same way, so that base and adapted model are alike.
    model = model.with_standard_normalization("as ppvit adapt does")
    return model.params, model.metadata, model.shape


def _add_models(inputs: Inputs, attack: Attack, sources: Sources) -> Inputs:
    base = second_model = permutations = None
    model, metadata, shape = open_model(sources.model or "")
    if "base" in attack.needs:
        base = open_model(sources.base or "", shape.image_size)[0]
    if "second_model" in attack.needs:
        second_model = open_model(sources.second_model or "")[0]
    if "key" in attack.uses:
        permutations = _model_permutations(sources, metadata, shape)
    return dataclasses.replace(inputs, base=base, model=model, second_model=second_model, permutations=permutations)


def _add_images(inputs: Inputs, attack: Attack, sources: Sources) -> Inputs:
    plain = reference = None
    encrypted, numbers, total = open_encrypted(sources, attack.images_read(sources.counts))
    size = encrypted.images.shape[1]
    if sources.plain and "plain" in (*attack.needs, *attack.uses):
        path = Path(sources.plain).expanduser()
        images = _open_unencrypted(path, size, sources)
        # The order of the paths makes the pairs.
        if images.count != total:
            raise UserError(
                f"{path} has {images.count:,} images and the encrypted folder {total:,}: give the folder that was "
                "encrypted, without augmented copies"
            )
        plain = _resize(images, numbers, size)
    if "reference" in attack.uses:
        reference = _open_reference(sources, size)
    return dataclasses.replace(inputs, encrypted=encrypted, plain=plain, reference=reference)


def _open_reference(sources: Sources, size: int) -> np.ndarray | None:
    return open_images(sources.reference, sources, size, _REFERENCES, draw=1) if sources.reference else None


def _open_plain_models(base: str, sources: Sources) -> Models:
    """Reads the base and the tuned model; its key makes an adapted one plain, so that new keys can adapt it."""
    tuned, metadata, shape = open_model(sources.model or base)
    permutations = _model_permutations(sources, metadata, shape)
    if metadata.encryption != "none":
        if permutations is None:
            raise UserError(f"{sources.model} is adapted with a key: give its --key, to adapt it with new keys")
        tuned = restore(tuned, permutations)
    return Models(open_model(base, shape.image_size)[0], tuned, shape.patch_size, shape.image_size)


def _open_key(sources: Sources) -> keys.SecretKey | None:
    return shared.open_key(sources.key, sources.passphrase_file) if sources.key else None


def _model_permutations(
    sources: Sources, metadata: checkpoint.Metadata, shape: models.ModelConfig
) -> Permutations | None:
    """Returns the permutations that a model was adapted with, if the key is given.

    Raises:
      UserError: the key is not the model's.
    """
    key = _open_key(sources)
    if key is None:
        return None
    if metadata.key_fingerprint != key.fingerprint:
        raise UserError(
            f"the model is adapted with the key of fingerprint {metadata.key_fingerprint}, but --key has "
            f"{key.fingerprint}: give the model's key, or leave --key out"
        )
    sizes = {"image_size": shape.image_size, "block_size": shape.patch_size}
    return derive_permutations(key, metadata.encryption, **sizes)


def _open_unencrypted(path: Path, size: int, sources: Sources) -> Images:
    manifest = manifests.read(path if path.is_dir() else path.parent)
    if manifest and manifest.header.encryption != "none":
        raise UserError(f"the images in {path} are encrypted, according to their manifest: give plain ones")
    return open_folder(path, _make_reader(size, sources), manifest)


def _make_reader(size: int | None, sources: Sources) -> ImageReader:
    return ImageReader(size, sources.resize, MAX_PIXELS_LIMIT)


def _resize(images: Images, numbers: np.ndarray, size: int) -> np.ndarray:
    result = np.empty((len(numbers), size, size, 3), np.uint8)
    resize = jax.jit(lambda image: preprocess(image[None], size)[0])
    progress = Progress("reading", len(numbers))
    for place, number in enumerate(numbers):
        image = _read_image(images, number)
        # Images of one size are resized as `ppvit encrypt` resizes them.
        result[place] = image if image.shape[:2] == (size, size) else np.asarray(resize(image))
        progress.update(place + 1)
    progress.close()
    return result


def _read_image(images: Images, number: int) -> np.ndarray:
    split, index = images.locate(int(number))
    return split.read(index)[0]


def _crop_photographs(size: int, count: int, random: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    crops = []
    for _ in range(count):
        photograph = photographs[random.integers(len(photographs))]
        if min(photograph.shape[:2]) < size:
            raise UserError(f"the photographs have 427x640 pixels: choose an image size of at most 427, not {size}")
        row, column = (random.integers(side - size + 1) for side in photograph.shape[:2])
        crops.append(photograph[row : row + size, column : column + size])
    return np.stack(crops)


def _folder_name(folder: str | None) -> str:
    path = Path(folder or "").expanduser()
    return path.parent.name if (path / "dataset_info.json").is_file() else path.name
