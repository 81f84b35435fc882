"""The model that a run starts from: new, or a checkpoint that is fitted to the run by its own record."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from ppvit_jax import adaptation, checkpoint, models
from ppvit_jax.config import Config
from ppvit_jax.data import Dataset
from ppvit_jax.errors import UserError
from ppvit_jax.training.compiler import compiler_options, fix_precision

_SHOWN_NAMES = 10


@dataclasses.dataclass(frozen=True)
class Start:
    """Model that a run starts from.

    Attributes:
      model_config: the model's shape, with the options that its checkpoint records.
      params, statistics: numpy arrays, normalized as the run normalizes images.
      metadata: the checkpoint's record; that of a plain model if there is no checkpoint.
      notes: what was assumed of the checkpoint or changed in it, for the user.
      warnings: contradictions that do not stop the run, for the user.
    """

    model_config: models.ModelConfig
    params: models.Params
    statistics: models.Statistics
    metadata: checkpoint.Metadata
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load(config: Config, model_config: models.ModelConfig, dataset: Dataset, *, normalizes: bool) -> Start:
    """Makes the initial parameters of a run, or reads them from its checkpoint.

    The checkpoint's record decides: its model options are used if the configuration leaves theirs at the defaults, the
    outputs of a kept head are put into the order of the data set's classes by their names, and the patch embedding is
    rewritten for the configuration's mean and standard deviation.

    Args:
      config: the configuration of the run.
      model_config: the model's shape, by the configuration.
      dataset: the data of the run, whose classes a kept head must have.
      normalizes: False if the model gets encodings, which no mean and standard deviation apply to.

    Raises:
      UserError: the checkpoint cannot be used, or it contradicts the configuration or the data set; the message shows
        both values.
    """
    if not config.checkpoint:
        model = models.build(model_config)
        rng = jax.random.key(config.seed)
        arrays: dict[str, Any] = flatten_dict(jax.device_get(_compile_once(model.init, config)(rng)), sep="/")
        params = checkpoint.to_params(arrays, model_config, keep_head=True)
        metadata = checkpoint.Metadata(model=config.model, image_size=config.image_size)
        return Start(model_config, params, _init_statistics(config, model_config), metadata)

    keep_head = config.head == "keep"
    path = checkpoint.resolve(config.checkpoint, config.checkpoint_sha256)
    family = models.family_of(model_config)
    # An ImageNet-21k head is a fifth of the file: skip it when it will be replaced.
    unused = models.unused_layers(model_config, keep_head=False)
    skip = () if keep_head else unused
    arrays, metadata = checkpoint.open_checkpoint(path, config.checkpoint_sha256, skip)
    arrays, kept = checkpoint.split(arrays)
    check_family(config, model_config, path, metadata, arrays)
    checkpoint.check_record(path, metadata, arrays)
    metadata = checkpoint.complete_record(path, metadata)
    normalization = checkpoint.describe_normalization(config.mean, config.std) if normalizes else ""
    warnings, notes = [], checkpoint.list_assumptions(path, metadata, normalization=normalization)
    model_config = _adopt_options(config, model_config, path, metadata, notes)
    if keep_head:
        model_config = _adopt_layers(config, model_config, path, arrays, notes)
        arrays = _match_head(path, arrays, metadata.class_names, dataset.class_names, family.heads, notes)
        if metadata.resize and dataset.resize and metadata.resize != dataset.resize:
            recorded, used = checkpoint.describe_resize(metadata.resize), checkpoint.describe_resize(dataset.resize)
            warnings.append(
                f"{path} was trained on images that were resized by {recorded}, and config.data.resize is {used}: set "
                f"config.data.resize={recorded} to evaluate the model as it was trained"
            )
    _check_size(config, model_config, path, metadata, arrays, notes)
    params = checkpoint.to_params(arrays, model_config, keep_head=keep_head, where=str(path))
    statistics = _init_statistics(config, model_config)
    checkpoint.check_statistics(kept, statistics, str(path))
    statistics = jax.tree.map(lambda new, old: old.astype(new.dtype), statistics, kept)
    if normalizes and metadata.mean:
        params = _fold_normalization(config, path, params, metadata, notes)
    return Start(model_config, params, statistics, metadata, tuple(notes), tuple(warnings))


def _compile_once(function: Any, config: Config) -> Any:
    # Each initialization is one compiled program, because some families have hundreds of layers. It runs only once,
    # so optimizing it on a CPU, which can take a minute, is not worth the time.
    fast: dict[str, Any] = {"xla_backend_optimization_level": 0}
    platform = jax.default_backend()
    options = fast if platform == "cpu" else compiler_options(platform, deterministic=config.deterministic)
    return jax.jit(fix_precision(function, config.dtype), compiler_options=options)


def _init_statistics(config: Config, model_config: models.ModelConfig) -> models.Statistics:
    if not models.abstract_statistics(model_config):
        return {}
    model = models.build(model_config)
    statistics = jax.device_get(_compile_once(model.init_statistics, config)(jax.random.key(config.seed)))
    if config.dtype == "float64":
        return jax.tree.map(lambda leaf: leaf.astype(np.float64), statistics)
    return statistics


def check_family(
    config: Config,
    model_config: models.ModelConfig,
    path: Path,
    metadata: checkpoint.Metadata,
    arrays: dict[str, np.ndarray],
) -> None:
    """Checks that a checkpoint is of the configured family and patch size.

    Raises:
      UserError: it is of another one; the message names both models.
    """
    family, wanted = models.recognize(arrays), models.family_of(model_config)
    if family is None or (family is not wanted and wanted.infer is None):
        return
    kernel = arrays.get(family.patch_kernel)
    size = kernel.shape[0] if kernel is not None and kernel.ndim == 4 else 0
    if family is wanted and size in (0, model_config.patch_size):
        return
    try:
        shape = models.infer_config(
            arrays, where=str(path), image_size=metadata.image_size, options=metadata.model_options
        )
        name = models.model_name(shape)
    except UserError:
        name = ""
    patches = f" with patches of {size}x{size} pixels" if size and family is wanted else ""
    advice = f"set config.model={name}, or " if name else ""
    raise UserError(
        f"{path} is {name or f'a {family.title}'}{patches}, but config.model is {config.model}: {advice}use another "
        "checkpoint"
    )


def _adopt_options(
    config: Config, model_config: models.ModelConfig, path: Path, metadata: checkpoint.Metadata, notes: list[str]
) -> models.ModelConfig:
    """Returns the model's shape with the options that the checkpoint records."""
    family = models.family_of(model_config)
    adopted = {}
    for name in family.recorded:
        default, wanted = family.options[name], getattr(model_config, name)
        recorded = metadata.model_options.get(name, default)
        if recorded == wanted:
            continue
        if wanted == default:
            adopted[name] = recorded
            notes.append(f"config.model_options.{name} is {recorded!r}, which {path} records, and not {default!r}")
        elif name == "pool" and config.head == "new":
            usual = recorded or "the family's usual one"
            notes.append(f"the new head takes the pooling {wanted!r} of the configuration; {path} has {usual}")
        elif name in metadata.model_options or metadata.mean:
            raise UserError(
                f"{path} records the model option {name}={recorded!r}, but config.model_options.{name} is {wanted!r}: "
                "leave the option out, or use another checkpoint"
            )
        else:
            notes.append(f"{path} does not record the model option {name}: {wanted!r} of the configuration is assumed")
    if not adopted:
        return model_config
    options = {**config.model_options.to_dict(), **adopted}
    adopted_config = models.parse_name(
        config.model,
        image_size=model_config.image_size,
        num_classes=model_config.num_classes,
        representation_size=config.representation_size or None,
        dtype=model_config.dtype,
        options=options,
    )
    # Some options that a family cannot have are only found here.
    models.build(adopted_config)
    return adopted_config


def _adopt_layers(
    config: Config, model_config: models.ModelConfig, path: Path, arrays: dict[str, np.ndarray], notes: list[str]
) -> models.ModelConfig:
    """Returns the model's shape with the `pre_logits` layer that a kept head follows."""
    kernel = arrays.get("pre_logits/kernel")
    if not isinstance(model_config, models.ViTConfig) or kernel is None or kernel.ndim != 2:
        return model_config
    width = kernel.shape[1]
    if model_config.representation_size is None:
        notes.append(f"config.representation_size is {width}, because the head of {path} follows such a layer")
        return dataclasses.replace(model_config, representation_size=width)
    return model_config


def _match_head(
    path: Path,
    arrays: dict[str, np.ndarray],
    recorded: tuple[str, ...],
    wanted: tuple[str, ...],
    heads: tuple[str, ...],
    notes: list[str],
) -> dict[str, np.ndarray]:
    """Puts the outputs of the head into the order of the data set's classes, by their names."""
    if not recorded:
        notes.append(f"{path} does not name the outputs of its head: they are taken for {_list(wanted)}, in this order")
        return arrays
    if recorded == wanted:
        return arrays
    if sorted(recorded) != sorted(wanted) or len(set(recorded)) < len(recorded):
        missing = [name for name in recorded if name not in set(wanted)]
        extra = [name for name in wanted if name not in set(recorded)]
        first = [f"the data set lacks {missing[0]!r}"] if missing else []
        first += [f"the checkpoint lacks {extra[0]!r}"] if extra else []
        raise UserError(
            f"{path} has a head for {len(recorded)} classes ({_list(recorded)}), but the data set has {len(wanted)} "
            f"({_list(wanted)}); {' and '.join(first) or 'a name occurs twice'}: rename the classes, or set "
            "config.head=new"
        )
    order = np.array([recorded.index(name) for name in wanted])
    notes.append(f"the head's outputs are reordered by class name, from {_list(recorded)} to {_list(wanted)}")
    return {name: array[..., order] if name.startswith(heads) else array for name, array in arrays.items()}


def _check_size(
    config: Config,
    model_config: models.ModelConfig,
    path: Path,
    metadata: checkpoint.Metadata,
    arrays: dict[str, np.ndarray],
    notes: list[str],
) -> None:
    """Notes that the images have another size than the checkpoint's.

    Raises:
      UserError: the checkpoint takes encrypted images, whose position embedding cannot be resized.
    """
    family = models.family_of(model_config)
    positions, size = arrays.get(family.positions), metadata.image_size
    if positions is not None and positions.ndim == 3:
        blocks = positions.shape[1] - family.prefix_rows(positions.shape[1])
        rows = models.parameter_shapes(model_config)[family.positions][1]
        if blocks == rows - family.prefix_rows(rows):
            return
        size = size or round(blocks**0.5) * model_config.patch_size
        if metadata.images[0] != "none":
            adapted = "adapted to" if not metadata.images_encryption else "trained on"
            raise UserError(
                f"{path} is {adapted} encrypted images of {size}x{size}, so its position embedding cannot be resized: "
                f"use config.image_size={size}, or restore the model first"
            )
        notes.append(f"the position embedding of {path} is resized from {size} to {config.image_size} pixels a side")
    elif size and size != config.image_size:
        notes.append(
            f"{path} was made for images of {size}x{size}, and this run has {config.image_size}x{config.image_size}"
        )


def _fold_normalization(
    config: Config, path: Path, params: models.Params, metadata: checkpoint.Metadata, notes: list[str]
) -> models.Params:
    """Rewrites the patch embedding for the mean and standard deviation of the configuration, if they differ."""
    recorded, wanted = metadata.normalization, (tuple(config.mean), tuple(config.std))
    try:
        folded = adaptation.fold_normalization(params, recorded, wanted)
    except UserError as error:
        raise UserError(f"{path}: {error}; set config.mean={recorded[0]} and config.std={recorded[1]}") from None
    if folded is not params:
        notes.append(
            f"the patch embedding of {path} is rewritten from {checkpoint.describe_normalization(*recorded)} to "
            f"{checkpoint.describe_normalization(*wanted)}, so that the model computes the same"
        )
    return folded


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
