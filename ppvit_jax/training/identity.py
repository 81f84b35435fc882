"""Identity of a run: the record of what it was begun with, in config.json, and its comparison before it continues."""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax

import ppvit_jax
from ppvit_jax import checkpoint
from ppvit_jax.config import Config, default_config
from ppvit_jax.data import Dataset
from ppvit_jax.data.manifest import Header
from ppvit_jax.data.source import ArraySource
from ppvit_jax.errors import UserError

# Files of a checkpoint's folder, without those that other programs may add.
_CHECKPOINT_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "pytorch_model*.bin")
# Fields of the configuration that may change when a run is resumed: paths, logging, and the use of devices.
_CHANGEABLE_FIELDS = (
    "key_file",
    "passphrase_file",
    "data.dir",
    "data.download",
    "data.on_device",
    "sharding",
    "accumulation",
    "remat",
    "log_steps",
    "tensorboard",
    "report",
    "loggers",
    "eval_batch_size",
    "checkpoint_steps",
    "deterministic",
)
# Fields that another test set changes.
_TEST_FIELDS = ("dataset.digest", "dataset.test_examples")
# Fields of the metadata that earlier versions did not have.
_NEW_METADATA = ("own_mean", "own_std", "origin", "task")
_SHOWN_CHARACTERS = 80

Record = dict[str, Any]


def versions() -> dict[str, str]:
    """Returns the versions of this package and of the libraries that compute."""
    return {
        "ppvit_jax": ppvit_jax.__version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }


def describe_run(config: Config, dataset: Dataset, metadata: checkpoint.Metadata, images: Header) -> Record:
    """Returns the content of config.json.

    Args:
      config: configuration of the run.
      dataset: its images.
      metadata: metadata for `checkpoint.npz`.
      images: encryption and key fingerprint of the training images.
    """
    return {
        "config": json.loads(config.to_json()),
        "encryption": images.encryption,
        "key_fingerprint": images.key_fingerprint,
        "metadata": json.loads(metadata.to_json()),
        "dataset": {
            "name": dataset.name,
            "train_examples": len(dataset.train),
            "test_examples": len(dataset.test),
            **({} if dataset.validation is None else {"validation_examples": len(dataset.validation)}),
            "class_names": list(dataset.class_names),
            "digest": dataset.digest or _digest_arrays(dataset),
            "train_digest": dataset.train_digest,
        },
        "checkpoint_sha256": _digest_checkpoint(config),
        "versions": versions(),
    }


def compare(recorded: Record, current: Record, workdir: Path, *, evaluated: bool) -> str:
    """Compares the record of a workdir with that of the run that wants to continue there.

    Args:
      recorded: the content of the workdir's config.json; those of earlier versions lack some fields.
      current: see `describe_run`.
      workdir: the folder, for messages.
      evaluated: the run has evaluated an epoch. Before that, test images may change, such as one that cannot be read.

    Returns:
      A note about what could not be compared, or "" if everything was.

    Raises:
      UserError: they differ; the message shows both values.
    """
    differences, note = _differences(recorded, current), ""
    if not evaluated and _have_same_training_images(recorded, current):
        if differences.keys() & set(_TEST_FIELDS):
            note = f"the test images are not those with which the run in {workdir} began; it has not used them yet"
        differences = {name: pair for name, pair in differences.items() if name not in _TEST_FIELDS}
    if differences:
        *others, last = dict.fromkeys(_thing(name) for name in differences)
        things = f"{', '.join(others)} and {last}" if others else last
        listed = "; ".join(f"{name} was {before} and is {now}" for name, (before, now) in differences.items())
        raise UserError(
            f"the workdir {workdir} holds a run with another {things} ({listed}): use another workdir, or the same "
            f"{things} to continue that run"
        )
    if "dataset" not in recorded:
        return (
            f"the run in {workdir} is of an earlier version, which recorded neither its images nor the content of its "
            "checkpoint: they are assumed to be the same"
        )
    if not (recorded["dataset"].get("digest") and current["dataset"]["digest"]):
        return f"nothing has recorded the content of the images of {workdir}: they are assumed to be the same"
    return note


def changed_versions(recorded: Record, current: Record) -> str:
    """Returns a note about libraries that have other versions than when the run began, or "" without any."""
    before, now = recorded.get("versions", {}), current["versions"]
    changed = [f"{name} {before[name]} (now {now[name]})" for name in now if before.get(name, now[name]) != now[name]]
    return f"the run began with {', '.join(changed)}: its numbers may differ by rounding" if changed else ""


def changed_arithmetic(recorded: Record, current: Record, platform: str) -> str:
    """Returns a note about products or determinism that are not those with which the run began, or "" if they are.

    Args:
      recorded: the content of the workdir's config.json; those of earlier versions lack both fields, and computed with
        the platform's default precision, not deterministically.
      current: see `describe_run`.
      platform: "cpu", "gpu" or "tpu"; a CPU computes the same bits with all values of these fields.
    """
    before, now, notes = recorded["config"], current["config"], []
    if platform == "cpu":
        return ""
    precision = now["matmul_precision"]
    if now["dtype"] == "float32" and precision != before.get("matmul_precision", "default"):
        notes.append(
            "the run began with an earlier version, whose float32 products had the device's default precision, and "
            f"continues with config.matmul_precision={precision}; with =default it continues as it began"
        )
    if platform == "gpu" and now["deterministic"] != before.get("deterministic", False):
        notes.append(
            f"the run began with config.deterministic={not now['deterministic']} and continues with "
            f"{now['deterministic']}: another run like it may end in other bits"
        )
    return "; ".join(notes)


def is_record(content: object) -> bool:
    """Returns True if the content of a config.json has the structure of a record."""
    if not isinstance(content, dict):
        return False
    fields = {"dataset": {}, "versions": {}} | content
    return all(isinstance(fields.get(name), dict) for name in ("config", "metadata", "dataset", "versions"))


def complete_record(recorded: Record, current: Record) -> Record:
    """Returns the record of a run that continues: its beginning, and the fields that `recorded` lacks.

    The run counts as deterministic only if every part of it was.
    """
    config = {**current["config"], **recorded["config"]}
    config["deterministic"] = current["config"]["deterministic"] and recorded["config"].get("deterministic", False)
    kept = {**current, "config": config}
    if not current["dataset"]["digest"]:
        kept["dataset"] = recorded.get("dataset", current["dataset"])
    return kept | {"versions": recorded.get("versions", current["versions"])}


def _digest_arrays(dataset: Dataset) -> str:
    """Returns the SHA-256 of images and labels that are in memory, or "" if they are decoded on access."""
    digest = hashlib.sha256()
    for source in (dataset.train, dataset.test, *filter(None, (dataset.validation,))):
        if not isinstance(source, ArraySource):
            return ""
        digest.update(f"{source.images.shape}".encode())
        for array in (source.images, source.labels):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _digest_checkpoint(config: Config) -> str:
    """Returns the SHA-256 of the checkpoint: of the file, or of the names and SHA-256 of a folder's files."""
    if not config.checkpoint:
        return ""
    try:
        path = checkpoint.resolve(config.checkpoint, config.checkpoint_sha256)
        if not path.is_dir():
            return _digest_file(path)
        files = sorted(file for pattern in _CHECKPOINT_FILES for file in path.glob(pattern))
        lines = [f"{_digest_file(file)}  {file.name}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    except (OSError, UserError):
        # The parameters were given in memory, beside the name of a file that is not here.
        return ""


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(recorded: Record, current: Record) -> dict[str, tuple[str, str]]:
    """Returns the values that were and that are, shortened for a message, by the name of each field that differs."""
    before, now = _flatten(recorded), _flatten(current)
    ignored = {f"config.{name}" for name in _CHANGEABLE_FIELDS} | {"dataset.name"}
    ignored |= {name for name in now if name.startswith("versions.")}
    missing = {name for name in now if name.split(".")[0] not in recorded}
    if "dataset" not in recorded:
        # The metadata of earlier versions lacks fields as well.
        missing |= {name for name in now.keys() - before.keys() if name.startswith("metadata.")}
    else:
        ignored |= {"metadata.class_names"}
    if before.get("checkpoint_sha256") and before["checkpoint_sha256"] == now["checkpoint_sha256"]:
        # The same file under another name.
        ignored |= {"config.checkpoint", "config.checkpoint_sha256", "metadata.delta.base"}
    # Earlier versions did not record the origin of a model.
    ignored |= {f"metadata.{name}" for name in _NEW_METADATA if f"metadata.{name}" not in before}
    for name in ("dataset.digest", "dataset.train_digest", "checkpoint_sha256"):
        if not (before.get(name) and now.get(name)):
            ignored.add(name)
    if "config.matmul_precision" not in before or now["config.dtype"] == "bfloat16":
        # `changed_arithmetic` tells of the first; bfloat16 products have one precision.
        ignored.add("config.matmul_precision")
    # A field that an earlier version did not have does now what its default does.
    defaults = _flatten({"config": json.loads(default_config().to_json())})
    before = {name: value for name, value in defaults.items() if name in now and name not in before} | before
    return {
        name: _shorten(before.get(name), now.get(name))
        for name in sorted((before.keys() | now.keys()) - ignored - missing)
        if before.get(name) != now.get(name)
    }


def _have_same_training_images(recorded: Record, current: Record) -> bool:
    digest = current["dataset"]["train_digest"]
    return bool(digest) and recorded.get("dataset", {}).get("train_digest") == digest


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _flatten(branch, f"{prefix}.{key}" if prefix else key).items()
    }


def _thing(name: str) -> str:
    first = name.split(".")[0]
    return {"dataset": "data set", "checkpoint_sha256": "checkpoint"}.get(first, "configuration")


def _shorten(before: Any, now: Any) -> tuple[str, str]:
    """Returns two values as text: of a SHA-256 its beginning, of two long lists the first elements that differ."""
    texts = [f"{value[:12]}..." if _is_digest(value) else repr(value) for value in (before, now)]
    if max(map(len, texts)) <= _SHOWN_CHARACTERS:
        return texts[0], texts[1]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        place = next(number for number, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
        return f"{before[place]!r} in place {place}", f"{now[place]!r}"
    before, now = (text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..." for text in texts)
    return before, now


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
