"""The configuration of a run: every field with its default, loading from a file, and checking."""

from collections.abc import Iterator
from typing import Any, Protocol

from ml_collections import ConfigDict

from ppvit_jax import cloud_augmentation, models
from ppvit_jax.config.automatic import AUTOMATIC, name_model
from ppvit_jax.config.evaluation import check_evaluation
from ppvit_jax.config.fields import check_fields
from ppvit_jax.config.loading import find_file as find_file
from ppvit_jax.config.loading import read_file
from ppvit_jax.config.recipe import check_recipe
from ppvit_jax.config.tuning import check_tuning
from ppvit_jax.data.augmentation import AUGMENTATIONS
from ppvit_jax.data.balance import CLASS_WEIGHTS, SAMPLINGS
from ppvit_jax.data.images import DEFAULT_MAX_PIXELS, RESIZES
from ppvit_jax.data.source import from_text
from ppvit_jax.encryption import Encryption, parse
from ppvit_jax.errors import UserError

DTYPES = ("float32", "bfloat16", "float64")
PRECISIONS = ("default", "high", "highest")
HEADS = ("new", "keep")
ON_DEVICE = ("auto", True, False)
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step", "triangular")
SHARDINGS = ("data_parallel", "fully_sharded")
REDUCE_DTYPES = ("float32", "bfloat16")


class Config(Protocol):
    """An ml_collections.ConfigDict, or a part of one such as `config.optimizer`.

    Its fields depend on the file that it came from, so that no type checker knows them.
    """

    def __getattr__(self, name: str, /) -> Any: ...

    def __setattr__(self, name: str, value: Any, /) -> None: ...

    def __getitem__(self, name: str, /) -> Any: ...

    def __iter__(self) -> Iterator[str]: ...


def default_config() -> Config:
    """Returns the paper's protocol: ViT-B/16 at 224x224, batch 32, SGD, 15 epochs, encryption "bs+ps"."""
    config = ConfigDict(
        {
            # A file, or its name: hf:OWNER/NAME on the Hugging Face hub, or https://... with checkpoint_sha256.
            # "embedded" is the small model in the package; "" trains from scratch.
            "checkpoint": "ViT-B_16.npz",
            # The expected SHA-256 of the checkpoint in hexadecimal; "" accepts any file.
            "checkpoint_sha256": "",
            # Family, size and patch size; "auto" for those of the checkpoint.
            "model": "ViT-B/16",
            # Options of the model's family; see ppvit_jax/models/families.py.
            "model_options": dict(models.OPTIONS),
            # Width of the pre_logits layer; 0 for none, which is usual for fine-tuning.
            "representation_size": 0,
            # "new" (zeros) or "keep" (that of the checkpoint, with the same number of classes).
            "head": "new",
            # Side of the model's input in pixels.
            "image_size": 224,
            # Encryption of plain images during the run: "none", or a method such as "bs+ps" or "etc:shared=True".
            # For images that are encrypted already it is "none", because their manifest records the encryption.
            "encryption": "bs+ps",
            # Side of the encryption's blocks in pixels; 0 for the model's patch size.
            "block_size": 0,
            # Adapt the checkpoint to the encryption before training.
            "adapt": True,
            # Accept images whose key or encryption is not the model's, for experiments on access control.
            "allow_mismatch": False,
            # The key file; "" makes secret.key in the workdir.
            "key_file": "",
            # A file whose first line is the passphrase of a sealed key file.
            "passphrase_file": "",
            # Seed of the order of images, augmentation, subsets and new parameters.
            "seed": 0,
            "data": {
                # "tfds", "image_folder", "embedded", "parquet", "webdataset" or "csv"
                "source": "tfds",
                # The data set's name for tfds, or the data set in the package; "" for an image folder.
                "name": "cifar10",
                # The image folder, file or pattern of files, or tfds' folder of data sets; "" for tfds' default.
                "dir": "",
                # Download CIFAR-10 or CIFAR-100 if tfds' folder of data sets lacks it.
                "download": False,
                "train_split": "train",
                "test_split": "test",
                # Share of each class to test on, for images without the splits train and test.
                "test_fraction": 0.2,
                # Validation images: a split or folder, or a fraction of the training images such as "0.1"; "" for none.
                "validation": "",
                # Columns of images (or their paths) and labels in a Parquet or CSV file; "" for the usual names.
                "image_column": "",
                "label_column": "",
                # "center_crop" or "squash", for images of any size.
                "resize": RESIZES[0],
                # Images with more pixels are rejected.
                "max_pixels": DEFAULT_MAX_PIXELS,
                # Size of a random subset; 0 for all images.
                "train_examples": 0,
                "test_examples": 0,
                # Decode all images once and keep them: "auto" (of one size or Parquet, below 4 GiB), True or False.
                "in_memory": "auto",
                # Training images of an epoch: "uniform" (each once), or "balanced" (each class equally often).
                "sampling": SAMPLINGS[0],
                # Copy images in memory to every device: "auto" (an accelerator with room), True or False.
                "on_device": "auto",
            },
            # Random changes of training images before the encryption, such as "flip+crop".
            "augmentation": "none",
            # Random changes of training images after the encryption, such as "mixup:alpha=0.2+token_drop:rate=0.1".
            "cloud_augmentation": "none",
            # Normalization of the images: (x / 255 - mean) / std for each channel.
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "optimizer": {
                "name": "sgd",
                "learning_rate": 0.001,
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 0.0005,
                "b1": 0.9,
                "b2": 0.999,
                "schedule": "constant",
                "warmup_steps": 0,
                # The schedules "step" and "triangular" use these: shares of the run, and a factor.
                "milestones": (0.5, 0.75),
                "decay": 0.1,
                # Largest norm of the gradient; 0 for no clipping.
                "clip_norm": 0.0,
                # Factor of the learning rate from each block to the block before it; 1 for one rate.
                "layer_decay": 1.0,
            },
            "label_smoothing": 0.0,
            # "single_label", or "multi_label" for any number of labels per image.
            "task": "single_label",
            # Measure of the validation images that chooses the weights, such as "val_accuracy"; "" for the last ones.
            "best_by": "",
            # Number of epochs without a better value of best_by that ends the run; 0 for never.
            "patience": 0,
            # Weights of classes in the training loss: "none", or "balanced" (more for rare classes).
            "class_weights": CLASS_WEIGHTS[0],
            # Decay of an average of the weights, which is evaluated and handed over, such as 0.999; 0 for none.
            "ema_decay": 0.0,
            # Share of images for which training leaves out a branch of the last encoder block; linear over the blocks.
            "drop_path": 0.0,
            # Regular expressions; a parameter is not trained if one of them matches its whole name.
            "freeze": (),
            "tuning": {
                # "full", "lora" (low-rank factors and the head: arXiv 2106.09685) or "probe" (the head alone).
                "method": "full",
                # LoRA's rank and scale: W + alpha / rank * A B.
                "rank": 8,
                "alpha": 16.0,
                # LoRA's layers, as regular expressions for query, key, value, out, Dense_0 and Dense_1.
                "layers": ("query", "value"),
            },
            "epochs": 15,
            "batch_size": 32,
            "eval_batch_size": 256,
            # Number of parts in which a batch is computed, one after another, to save memory; 0 for the number that is
            # fast on the device: 1, or more for large batches on a TPU.
            "accumulation": 0,
            # Values that the backward pass computes again to save memory: "none", or those of the encoder's "blocks".
            "remat": models.REMATS[0],
            # Model and optimizer on several devices: "data_parallel" (complete on each) or "fully_sharded".
            "sharding": "data_parallel",
            # Dtype in which devices add up their gradients of kernels: "float32", or "bfloat16" in a bfloat16 run.
            "reduce_dtype": "float32",
            "dtype": "float32",
            # Precision of float32 products: "highest" (float32 on every device), "high" or "default": docs/devices.md.
            "matmul_precision": "highest",
            # True asks XLA for the same bits in every run on a GPU (not tried on one); a CPU gives them always.
            "deterministic": False,
            # Steps between checkpoints for resuming; 0 for once per epoch.
            "checkpoint_steps": 0,
            "log_steps": 50,
            "tensorboard": True,
            # Write report.html into the workdir at the end, and measure time and memory for it.
            "report": False,
            # Programs that show the run beside TensorBoard: "wandb", "mlflow" (docs/logging.md).
            "loggers": (),
        }
    )
    # A misspelled field is an error, in configuration files too.
    return config.lock()


def load(path: str, overrides: list[str] | None = None) -> Config:
    """Loads a configuration file and applies `--config.name=value` overrides.

    Args:
      path: see `find_file`; some files take an argument, as in "configs/table2.py:etc_vit".
      overrides: such as "--config.epochs=3".

    Raises:
      UserError: a missing or failing file, an unknown field, a value of the wrong type.
    """
    return check(read_file(path, overrides or [], set(default_config())))


def check(config: Config) -> Config:
    """Returns the configuration if its values make sense together.

    Raises:
      UserError: one line about the first value that does not.
    """

    def choose(name: str, value: object, choices: tuple[object, ...]) -> None:
        if value not in choices:
            raise UserError(f"config.{name} is {value!r}: use one of {', '.join(map(repr, choices))}")

    check_fields(config, default_config())
    if config.model in AUTOMATIC:
        config.model = name_model(config)
    model_config = make_model(config, num_classes=1)
    # Some shapes that a family cannot have are only found here.
    models.build(model_config)
    method = make_encryption(config, model_config)
    check_tuning(config, model_config)
    choose("head", config.head, HEADS)
    choose("dtype", config.dtype, DTYPES)
    choose("matmul_precision", config.matmul_precision, PRECISIONS)
    choose("sharding", config.sharding, SHARDINGS)
    choose("reduce_dtype", config.reduce_dtype, REDUCE_DTYPES)
    if config.reduce_dtype == "bfloat16" and config.dtype != "bfloat16":
        raise UserError("config.reduce_dtype=bfloat16 needs config.dtype=bfloat16: set both, or neither")
    check_recipe(config, model_config)
    choose("data.on_device", from_text(config.data.on_device), ON_DEVICE)
    choose("augmentation", config.augmentation, AUGMENTATIONS)
    augmentations = cloud_augmentation.parse(config.cloud_augmentation)
    augmentations.check_model(model_config, config.batch_size)
    augmentations.check_encryption(method, model_config.patch_size)
    choose("optimizer.name", config.optimizer.name, OPTIMIZERS)
    choose("optimizer.schedule", config.optimizer.schedule, SCHEDULES)
    if config.batch_size % (config.accumulation or 1):
        raise UserError(
            f"config.batch_size {config.batch_size} is not a multiple of config.accumulation {config.accumulation}"
        )
    milestones = config.optimizer.milestones
    if not milestones or list(milestones) != sorted(milestones) or not 0 <= min(milestones) <= max(milestones) <= 1:
        raise UserError(f"config.optimizer.milestones is {tuple(milestones)}: give ascending parts of the run, 0 to 1")
    if len(config.mean) != 3 or len(config.std) != 3 or min(config.std) <= 0:
        raise UserError("config.mean and config.std need three numbers each, those of std positive")
    check_evaluation(config)
    if config.adapt and method is not None:
        check_normalization(config)
    return config


def make_model(config: Config, num_classes: int) -> models.ModelConfig:
    """Returns the shape of the configured model, of any family.

    Raises:
      UserError: an unknown name or option, or sizes that do not fit.
    """
    return models.parse_name(
        config.model,
        image_size=config.image_size,
        num_classes=num_classes,
        representation_size=config.representation_size or None,
        dtype=config.dtype,
        options=config.model_options.to_dict(),
    )


def make_encryption(config: Config, model_config: models.ModelConfig) -> Encryption | None:
    """Returns the configured encryption, None for "none". Without `block_size` its blocks are the patches.

    Raises:
      UserError: an unknown name or option, or a method of blocks without their size.
    """
    none = config.encryption == "none"
    return None if none else parse(config.encryption, config.block_size or model_config.patch_size)


def check_normalization(config: Config) -> None:
    """Makes sure that normalization commutes with pixel shuffling.

    Raises:
      UserError: mean or standard deviation differ between channels.
    """
    if len(set(config.mean)) > 1 or len(set(config.std)) > 1:
        raise UserError(
            "config.mean and config.std differ between channels, and pixel shuffling mixes channels: under "
            "adaptation use the same for all three, such as 0.5"
        )
