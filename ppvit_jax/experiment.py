"""The all-in-one experiment: key, data, pre-trained model and adaptation, then training, in one process."""

import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils

from ppvit_jax import adaptation, checkpoint, data, models
from ppvit_jax.config import Config
from ppvit_jax.encryption import Permutations, gather_index
from ppvit_jax.errors import UserError
from ppvit_jax.train import train

if TYPE_CHECKING:
    from ppvit_jax import keys

EMBEDDED_CHECKPOINT = "vit_micro8_64_tiny_imagenet.npz"


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
    params, metadata = _pretrained(config, model_config)

    permutations, index, fingerprint = Permutations(), None, None
    if config.encryption != "none":
        key = open_key(config, Path(key_folder or workdir))
        fingerprint = key.fingerprint
        permutations = key.permutations(
            config.encryption, image_size=config.image_size, patch_size=model_config.patch_size
        )
        index = gather_index(
            permutations,
            height=config.image_size,
            width=config.image_size,
            patch_size=model_config.patch_size,
        )
    params, metadata = _adapt(config, params, metadata, permutations, fingerprint)
    return train(config, workdir, dataset, model_config, params, index, metadata, fingerprint)


def resolve_checkpoint(name: str) -> Path:
    """The path of `config.checkpoint`; "embedded" is the file in the package."""
    if name == "embedded":
        return Path(str(importlib.resources.files("ppvit_jax") / "assets" / EMBEDDED_CHECKPOINT))
    return Path(name).expanduser()


def _pretrained(config: Config, model_config: models.ViTConfig) -> tuple[Any, checkpoint.Metadata]:
    if not config.checkpoint:
        arrays: dict[str, Any] = flatten_dict(
            jax.device_get(models.build(model_config).init(jax.random.key(config.seed))), sep="/"
        )
        params = checkpoint.to_params(arrays, model_config, keep_head=True)
        return params, checkpoint.Metadata(model=config.model, image_size=config.image_size)
    path = resolve_checkpoint(config.checkpoint)
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

    passphrase = None
    if config.passphrase_file:
        try:
            passphrase = Path(config.passphrase_file).expanduser().read_bytes().splitlines()[0]
        except (OSError, IndexError):
            raise UserError(f"cannot read a passphrase from {config.passphrase_file}") from None
    if config.key_file:
        return keys.load(Path(config.key_file).expanduser(), passphrase)
    key_file = folder / "secret.key"
    if jax.process_index() == 0 and not key_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        keys.save(keys.generate(), key_file, passphrase)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("secret key made")
    return keys.load(key_file, passphrase)


def _adapt(
    config: Config,
    params: Any,
    metadata: checkpoint.Metadata,
    permutations: Permutations,
    fingerprint: str | None,
) -> tuple[Any, checkpoint.Metadata]:
    """Adapts a plain model if asked; a model that is adapted already must agree with images and key."""
    adapted_to = metadata.encryption
    if adapted_to != "none":
        if config.encryption != adapted_to:
            raise UserError(
                f"{config.checkpoint} is adapted to encryption {adapted_to!r}, and config.encryption is "
                f"{config.encryption!r}: use the same, or restore the model first"
            )
        if fingerprint != metadata.key_fingerprint:
            raise UserError(
                f"{config.checkpoint} is adapted with the key of fingerprint {metadata.key_fingerprint}, and the "
                f"key given has fingerprint {fingerprint}: use the model's key"
            )
    elif config.adapt and config.encryption != "none":
        params, adapted_to = adaptation.adapt(params, permutations), config.encryption
    adapted = adapted_to != "none"
    return params, checkpoint.Metadata(
        model=config.model,
        image_size=config.image_size,
        encryption=adapted_to,
        key_fingerprint=fingerprint if adapted else None,
    )
