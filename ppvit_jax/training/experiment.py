"""The all-in-one experiment: loads key, data and pre-trained model, adapts the model, and trains, in one process."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.experimental import multihost_utils

from ppvit_jax import adaptation, checkpoint, cloud_augmentation, data, models
from ppvit_jax.config import Config, check_normalization, make_encryption, make_model
from ppvit_jax.data.manifest import Header
from ppvit_jax.data.validation import add_validation
from ppvit_jax.encryption import Encryption, Permutations, Secret, parse
from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path
from ppvit_jax.training import pretrained, tuning, writers
from ppvit_jax.training.loop import Messages, Run, train
from ppvit_jax.training.matching import PLAIN, LoadedImages, LoadedModel, check_match
from ppvit_jax.training.results import Result
from ppvit_jax.training.workdir import owned

if TYPE_CHECKING:
    from ppvit_jax import keys


def run(
    config: Config,
    workdir: str | Path,
    dataset: data.Dataset | None = None,
    key_folder: str | Path | None = None,
) -> Result:
    """Runs one experiment.

    Args:
      config: a configuration that has passed `ppvit_jax.config.check`.
      workdir: folder for the files of the run; see `ppvit_jax.training.loop.train`.
      dataset: a data set that is already loaded (default: load the one that `config.data` names).
      key_folder: folder of `secret.key` if `config.key_file` is empty (default: the workdir).

    Returns:
      The content of `result.json`.

    Raises:
      UserError: the user can fix the problem; the message says how.
    """
    workdir = local_path(workdir)
    # A missing library is told before the data are loaded.
    writers.named(config)
    with owned(workdir), compute_precision(config):
        return train(_prepare_run(config, dataset, Path(key_folder or workdir)), workdir)


def compute_precision(config: Config) -> contextlib.AbstractContextManager:
    """Returns a context in which JAX can compute in `config.dtype`; it enables float64 for this thread only."""
    return jax.enable_x64(True) if config.dtype == "float64" else contextlib.nullcontext()


def _prepare_run(config: Config, dataset: data.Dataset | None, key_folder: Path) -> Run:
    """Loads data, model and key, and checks that they match."""
    if dataset is None:
        dataset = data.load(config.data, config.image_size, config.seed)
    elif dataset.validation is None:
        dataset = add_validation(dataset, config.data.validation, config.seed)
    model_config = make_model(config, len(dataset.class_names))
    method = make_encryption(config, model_config)
    folder = str(dataset.manifest.folder) if dataset.manifest else dataset.name
    header = dataset.manifest.header if dataset.manifest else None
    if header and header.encryption != "none":
        _check_encrypted(config, header, folder)
        encryption = parse(header.encryption, header.block_size)
        cloud_augmentation.parse(config.cloud_augmentation).check_encryption(encryption, model_config.patch_size)
    start = pretrained.load(config, model_config, dataset, normalizes=method is None or not method.encodes)
    params, metadata, model_config = start.params, start.metadata, start.model_config
    is_plain = (metadata.encryption, metadata.images) == ("none", ("none", None))

    secret = None
    if method is not None:
        key = open_key(config, key_folder)
        size = config.image_size
        secret = method.derive(key, height=size, width=size)
        if is_plain and config.adapt:
            params = adaptation.adapt(params, _absorbed(config, method, key))
            metadata = dataclasses.replace(metadata, encryption=method.spec, key_fingerprint=key.fingerprint)
        header = Header(method.spec, key.fingerprint, size, method.block_size, origin="")
    _check_input(config, model_config, method, secret)
    if method is not None and secret is not None:
        program, size = method.program_in_blocks(model_config.patch_size), config.image_size
        secret = program.sort(secret, height=size, width=size)
    check_match(
        LoadedModel(config.checkpoint, metadata, config.image_size, model_config.patch_size),
        LoadedImages(folder, header),
        # A new model has no key. A plain model on images that are encrypted here is the experiment config.adapt=False.
        allow_mismatch=config.allow_mismatch or not config.checkpoint or (method is not None and is_plain),
    )
    images = header or PLAIN
    metadata = _record(config, dataset, model_config, metadata, method, images)
    metadata = dataclasses.replace(metadata, delta=tuning.describe_delta(config, model_config, params))
    messages = Messages(start.warnings, start.notes)
    return Run(config, dataset, model_config, params, start.statistics, secret, metadata, images, messages)


def _record(
    config: Config,
    dataset: data.Dataset,
    model_config: models.ModelConfig,
    metadata: checkpoint.Metadata,
    method: Encryption | None,
    images: Header,
) -> checkpoint.Metadata:
    """Returns the record of the tuned model, from that of the model that the run starts from."""
    is_encrypted = images.encryption != "none"
    # Encodings are not normalized.
    encodes = method is not None and method.encodes
    other_blocks = is_encrypted and images.block_size != model_config.patch_size
    normalized = metadata.with_normalization(config.mean, config.std)
    own = (metadata.own_mean, metadata.own_std) if encodes else (normalized.own_mean, normalized.own_std)
    return dataclasses.replace(
        metadata,
        model=config.model,
        image_size=config.image_size,
        class_names=dataset.class_names,
        model_options=models.recorded_options(model_config),
        mean=() if encodes else tuple(map(float, config.mean)),
        std=() if encodes else tuple(map(float, config.std)),
        task="" if config.task == "single_label" else config.task,
        own_mean=own[0],
        own_std=own[1],
        # Images that the owner has encrypted are resized already, as the model's record may say.
        resize=dataset.resize or (metadata.resize if is_encrypted and method is None else ""),
    ).trained_on(images.encryption, images.key_fingerprint, images.block_size if other_blocks else 0)


def _absorbed(config: Config, method: Encryption, key: "keys.SecretKey") -> Permutations:
    try:
        permutations = method.absorb(key, height=config.image_size, width=config.image_size)
    except UserError as error:
        raise UserError(f"{error}; config.adapt=False trains without adaptation") from None
    offset = adaptation.inversion_offset(config.mean[0], config.std[0])
    if permutations.negative is not None and offset:
        raise UserError(
            f"config.mean is {config.mean[0]}, but {method.spec} inverts values, and training an adapted model is "
            "exact only if inversion changes the sign: set config.mean to 0.5"
        )
    return permutations


def _check_input(
    config: Config, model_config: models.ModelConfig, method: Encryption | None, secret: Secret | None
) -> None:
    """Raises UserError unless the encryption produces inputs of the shape that the model takes."""
    expected = models.input_shape(model_config)
    encrypted = shape = (config.image_size, config.image_size, 3)
    if method is not None:
        batch = jax.ShapeDtypeStruct((1, *shape), np.uint8)
        encrypted = jax.eval_shape(method.encrypt, batch, secret, jax.ShapeDtypeStruct((1,), np.uint32)).shape[1:]
    if encrypted != expected:
        raise UserError(
            f"{config.model} takes inputs of shape {'x'.join(map(str, expected))}, but encryption "
            f"{config.encryption} produces {'x'.join(map(str, encrypted))}: choose a model and an encryption that match"
        )


def open_key(config: Config, folder: Path) -> "keys.SecretKey":
    """Opens the key in `config.key_file`, or in `folder`/secret.key, which it generates if the file does not exist.

    Raises:
      UserError: the key file or the passphrase cannot be used.
    """
    # Imported here, so that runs on plain or already encrypted images never load the module.
    from ppvit_jax import keys

    passphrase = keys.read_passphrase(config.passphrase_file) if config.passphrase_file else None
    if config.key_file:
        return keys.load(Path(config.key_file).expanduser(), passphrase)
    key_file = folder / "secret.key"
    if jax.process_index() == 0 and not key_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        keys.save(keys.generate(), key_file, passphrase)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("secret key made")
    return keys.load(key_file, passphrase)


def _check_encrypted(config: Config, header: Header, folder: str) -> None:
    """Raises UserError if a setting does not suit images that are already encrypted."""
    if config.encryption != "none":
        raise UserError(
            f"the images in {folder} are already encrypted with {header.encryption!r}: set config.encryption=none"
        )
    if config.augmentation != "none":
        raise UserError(
            f"config.augmentation={config.augmentation} would break the encrypted images in {folder}, because "
            "augmentation comes before encryption: set it to none, or let the owner encrypt augmented copies"
        )
    check_normalization(config)
