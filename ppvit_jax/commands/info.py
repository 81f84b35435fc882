"""The command `ppvit info`: describes a file or folder, without secrets."""

import argparse
import json
from pathlib import Path

import numpy as np

from ppvit_jax import checkpoint, export, models
from ppvit_jax.commands.shared.deltas import describe_delta
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.data import manifest as manifests
from ppvit_jax.errors import UserError

Facts = dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Describes a checkpoint, a key file, a folder of encrypted images, the workdir of a run or a program from "
        "ppvit export. Owner and cloud can run it: it prints fingerprints, and never a secret.",
        "ppvit info adapted.npz",
        "ppvit info encrypted",
        "ppvit info hf:facebook/dinov2-small",
    )
    parser.add_argument(
        "file",
        metavar="PATH",
        help="checkpoint (a .npz, a file or folder of timm or Hugging Face, or hf:OWNER/NAME on the Hugging Face hub), "
        "key file, folder of encrypted images, workdir of a run, or program from ppvit export",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prints a line for each fact.

    Raises:
      UserError: the file or folder is missing, damaged or of an unknown kind.
    """
    path = checkpoint.resolve(arguments.file)
    if path.name == manifests.NAME:
        path = path.parent
    if not path.exists():
        raise UserError(f"there is no {path}: check the path")
    facts = _folder(path) if path.is_dir() else _file(path)
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


def _file(path: Path) -> Facts:
    if checkpoint.is_checkpoint(path):
        return _checkpoint(path)
    if (description := export.read_description(path)) is not None:
        return _program(path, description)
    with path.open("rb") as file:
        begin = file.read(1)
    if begin == b"{":
        from ppvit_jax import keys

        return keys.describe(path)
    raise UserError(f"{path} is neither a checkpoint nor a key: choose another file")


def _program(path: Path, description: export.Description) -> Facts:
    """Returns the facts that the file of an exported program has."""
    lists = {"mean": "normalizes by mean", "std": "normalizes by std", "class_names": "class names"}
    facts = {"program": f"{description['model']}, {'ONNX' if path.suffix == '.onnx' else 'StableHLO'}"}
    for name, value in description.items():
        if name not in ("producer", "model"):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            facts[lists.get(name, name.replace("_", " "))] = text if text.isprintable() else repr(text)
    return facts


def _checkpoint(path: Path) -> Facts:
    if checkpoint.is_delta(path):
        return describe_delta(path) | _record(path, checkpoint.read(path, delta=True)[1])
    arrays, metadata = checkpoint.open_checkpoint(path)
    types = ", ".join(sorted({str(array.dtype) for array in arrays.values()}))
    millions = sum(array.size for array in arrays.values()) / 1e6
    arrays, statistics = checkpoint.split(arrays)
    names = metadata.class_names
    listed = f" ({', '.join(name if name.isprintable() else repr(name) for name in names)})" if names else ""
    shape = _shape(path, arrays, metadata)
    if shape is None:
        facts = {
            "checkpoint": f"{metadata.model}, {millions:.2f} million parameters and statistics, {types}",
            "image size": f"{metadata.image_size}x{metadata.image_size}",
            "classes": f"{len(names)}{listed}",
        } | _record(path, metadata)
        family = models.recognize(arrays)
        return facts | ({"family": family.title, "absorbs": f"nothing, because {family.limits}"} if family else {})
    family = models.family_of(shape)
    name = metadata.model or family.name(shape) or family.title
    content = "parameters and statistics" if statistics else "parameters"
    facts = {
        "checkpoint": f"{name}, {millions:.2f} million {content}, {types}",
        "family": family.title,
        "image size": f"{shape.image_size}x{shape.image_size}, patches of {shape.patch_size}x{shape.patch_size}",
    }
    classes = str(shape.num_classes) if shape.num_classes else "no head"
    if shape.num_classes and names and len(names) != shape.num_classes:
        listed = f", but {len(names)} names{listed}"
    facts |= family.describe(shape) | {"classes": classes + listed}
    return facts | _record(path, metadata) | _adaptation(family, arrays)


def _adaptation(family: models.Family, arrays: dict[str, np.ndarray]) -> Facts:
    """Returns what a model of the family absorbs by which weights, and what its weights show of a key."""
    places = {family.positions: "positions", family.mixing_matrix: "adaptive matrix"}
    blocks = next((f"permuted blocks ({title})" for name, title in places.items() if name in arrays), "")
    values = "permuted and inverted values (patch embedding)"
    private = family.in_the_clear or "nothing that ppvit audit finds"
    return {
        "absorbs": f"{values}, {blocks}" if blocks else f"{values}, and no permuted blocks",
        "shows of a key": f"all of it if the base is public (ppvit audit weights); if it is private, {private}",
    }


def _record(path: Path, metadata: checkpoint.Metadata) -> Facts:
    """Returns the facts that the record alone has; what it lacks is marked as assumed."""
    metadata = checkpoint.complete_record(path, metadata)
    normalization = checkpoint.describe_normalization(*metadata.normalization)
    resize = checkpoint.describe_resize(metadata.resize) if metadata.resize else "center_crop (assumed: not recorded)"
    images = checkpoint.describe_images(*metadata.images)
    if metadata.images_block_size:
        images += f" in blocks of {metadata.images_block_size}x{metadata.images_block_size}"
    nothing = "nothing, a plain model" if metadata.images[0] == "none" else "nothing"
    facts = {} if metadata.class_names else {"class names": "not recorded"}
    facts |= {
        "normalization": normalization + ("" if metadata.mean else " (assumed: not recorded)"),
    }
    if metadata.own_mean and metadata.own_std:
        facts["published with"] = checkpoint.describe_normalization(metadata.own_mean, metadata.own_std)
    facts |= {
        "resize": resize,
        "takes": images,
        "adapted to": metadata.encryption if metadata.encryption != "none" else nothing,
        "key fingerprint": metadata.key_fingerprint or "none",
    }
    if metadata.origin:
        program, _, architecture = metadata.origin.partition(":")
        facts["came from"] = f"{program}, {architecture}"
    if metadata.model_options:
        facts["model options"] = ", ".join(f"{name}={value}" for name, value in metadata.model_options.items())
    return facts


def _shape(path: Path, arrays: dict[str, np.ndarray], metadata: checkpoint.Metadata) -> models.ModelConfig | None:
    """Returns the model's shape, or None if the metadata alone names the model.

    Raises:
      UserError: the metadata does not name it either, or its family is one whose arrays should tell the shape.
    """
    try:
        return models.infer_config(
            arrays, where=str(path), image_size=metadata.image_size, options=metadata.model_options
        )
    except UserError:
        family = models.recognize(arrays)
        if not metadata.model or (family is not None and family.infer is not None and not family.recorded):
            raise
        return None


def _folder(path: Path) -> Facts:
    if not (path / manifests.NAME).exists():
        if checkpoint.is_checkpoint(path):
            return _checkpoint(path)
        if (path / "config.json").is_file():
            return _workdir(path)
    manifest = manifests.read(path)
    if manifest is None:
        raise UserError(
            f"{path} has neither a {manifests.NAME}, nor weights, nor a run's config.json: choose another folder"
        )
    header = manifest.header
    return {
        "images": f"{len(manifest.files):,} files of {path}",
        "image size": f"{header.image_size}x{header.image_size}, blocks of {header.block_size}x{header.block_size}",
        "encryption": header.encryption if header.encryption != "none" else "none, plain images",
        "key fingerprint": header.key_fingerprint or "none",
        "signed by owner": "yes" if manifest.authentication else "no",
    }


def _workdir(path: Path) -> Facts:
    try:
        content = json.loads((path / "config.json").read_text())
        config, metadata = content["config"], checkpoint.Metadata.from_json(json.dumps(content["metadata"]))
        facts = {
            "workdir": f"{metadata.model}, {metadata.image_size}x{metadata.image_size}, {config['epochs']} epochs",
            "model adapted to": f"{metadata.encryption}, key fingerprint {metadata.key_fingerprint or 'none'}",
            "normalization": checkpoint.describe_normalization(*metadata.normalization),
            "images": f"{content['encryption']}, key fingerprint {content['key_fingerprint'] or 'none'}",
        }
        if metadata.delta is not None:
            facts["trains"] = f"a delta of {metadata.delta.base}: {metadata.delta.title}"
        if not (path / "result.json").exists():
            return facts | {"result": "not complete"}
        result = json.loads((path / "result.json").read_text())
        return facts | {"result": f"test accuracy {result['test_accuracy']:.2%} on {result['test_examples']:,} images"}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the workdir of a run, or is damaged: choose another folder") from None
