"""The all-in-one experiment: key, data, pre-trained model and adaptation, then training, in one process."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils

from ppvit_jax import adaptation, checkpoint, data, models
from ppvit_jax.config import Config, check_normalisation
from ppvit_jax.data.manifest import Header
from ppvit_jax.encryption import gather_index
from ppvit_jax.errors import UserError
from ppvit_jax.matching import PLAIN, check_match
from ppvit_jax.train import train

if TYPE_CHECKING:
    from ppvit_jax import keys


def run(
    config: Config,
    workdir: str | Path,
    dataset: data.Dataset | None = None,
    key_folder: str | Path | None = None,
) -> dict[str, Any]:
    """Runs one experiment and returns the content of its `result.json`.

    Args:
      config: a checked configuration.
      workdir: see `ppvit_jax.train.train`.
      dataset: the data set, if it is loaded already.
      key_folder: folder of `secret.key` when `config.key_file` is empty; the workdir by default.

    Raises:
      UserError: anything that the user can put right.
    """
    if config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    workdir = Path(workdir).expanduser()
    dataset = dataset or data.load(config.data, config.image_size, config.seed)
    model_config = models.parse_name(
        config.model,
        image_size=config.image_size,
        num_classes=len(dataset.class_names),
        representation_size=config.representation_size or None,
        dtype=config.dtype,
    )
    folder = str(dataset.manifest.folder) if dataset.manifest else dataset.name
    header = dataset.manifest.header if dataset.manifest else None
    if header and header.encryption != "none":
        _check_encrypted(config, header, folder)
    params, metadata = _pretrained(config, model_config)

    index = None
    if config.encryption != "none":
        key = open_key(config, Path(key_folder or workdir))
        permutations = key.permutations(
            config.encryption, image_size=config.image_size, patch_size=model_config.patch_size
        )
        index = gather_index(
            permutations,
            height=config.image_size,
            width=config.image_size,
            patch_size=model_config.patch_size,
        )
        if metadata.encryption == "none" and config.adapt:
            params = adaptation.adapt(params, permutations)
            metadata = dataclasses.replace(metadata, encryption=config.encryption, key_fingerprint=key.fingerprint)
        header = Header(config.encryption, key.fingerprint, config.image_size, model_config.patch_size, origin="")
    check_match(
        metadata,
        header,
        checkpoint=config.checkpoint,
        folder=folder,
        image_size=config.image_size,
        patch_size=model_config.patch_size,
        # A new model has no key; a plain one on images encrypted here is what config.adapt=False asks for.
        allow_mismatch=config.allow_mismatch
        or not config.checkpoint
        or (config.encryption != "none" and metadata.encryption == "none"),
    )
    metadata = dataclasses.replace(
        metadata, model=config.model, image_size=config.image_size, class_names=dataset.class_names
    )
    return train(config, workdir, dataset, model_config, params, index, metadata, header or PLAIN)


def _pretrained(config: Config, model_config: models.ViTConfig) -> tuple[Any, checkpoint.Metadata]:
    if not config.checkpoint:
        arrays: dict[str, Any] = flatten_dict(
            jax.device_get(models.build(model_config).init(jax.random.key(config.seed))), sep="/"
        )
        params = checkpoint.to_params(arrays, model_config, keep_head=True)
        return params, checkpoint.Metadata(model=config.model, image_size=config.image_size)
    path = checkpoint.resolve(config.checkpoint)
    arrays, metadata = checkpoint.read(path, config.checkpoint_sha256)
    position_rows = getattr(arrays.get(checkpoint.POSITION_EMBEDDING), "shape", (0, 0))[1]
    if metadata.encryption != "none" and position_rows != model_config.grid_size**2 + 1:
        raise UserError(
            f"{path} is adapted to encrypted images of {metadata.image_size}x{metadata.image_size}, and its "
            f"position embedding cannot be resized: use config.image_size={metadata.image_size}, or restore it first"
        )
    params = checkpoint.to_params(arrays, model_config, keep_head=config.head == "keep", where=str(path))
    return params, metadata


def open_key(config: Config, folder: Path) -> "keys.SecretKey":
    """The key of `config.key_file`, or of `folder`/secret.key, which is made if there is none.

    Raises:
      UserError: a key file or passphrase that cannot be used.
    """
    # The key is imported where one is used: runs on plain or already encrypted images never load this module.
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
    """What cannot be done to images that are encrypted already."""
    if config.encryption != "none":
        raise UserError(
            f"the images in {folder} are encrypted already, by {header.encryption!r}: set config.encryption=none"
        )
    if config.augmentation != "none":
        raise UserError(
            f"config.augmentation={config.augmentation} would break the encrypted images in {folder}, as augmentation "
            "comes before encryption: set it to none, and let their owner encrypt augmented copies"
        )
    check_normalisation(config)
