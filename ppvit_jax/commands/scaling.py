"""The command `ppvit scaling`: estimates memory, traffic and computation of a training step on many devices."""

import argparse

from ppvit_jax import models
from ppvit_jax.command_line import Number
from ppvit_jax.commands.shared.help_text import describe
from ppvit_jax.commands.shared.step_arguments import add_division, add_remat, add_sizes
from ppvit_jax.config import DTYPES, SHARDINGS
from ppvit_jax.config.fields import RANGES
from ppvit_jax.config.tuning import METHODS
from ppvit_jax.errors import COUNT, Range, UserError
from ppvit_jax.files import cell, markdown_table
from ppvit_jax.models.attention import IMPLEMENTATIONS
from ppvit_jax.training import scaling
from ppvit_jax.training.parts import count_parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments and description."""
    describe(
        parser,
        "Estimates the memory, traffic and computation of a training step on many devices. It computes them from the "
        "model's shape, trains nothing, and prints a table in Markdown, where a GB is 10^9 bytes.",
        "ppvit scaling --model ViT-B/16,ViT-L/16 --devices 1,8,64",
        "ppvit scaling --model ViT-H/14 --dtype bfloat16 --compute-rate 400 --bandwidth 50",
        "ppvit scaling --model DINOv2-L/14,SigLIP-L/16 --dtype bfloat16 --tuning lora --remat blocks",
    )
    parser.add_argument(
        "--model",
        default="ViT-B/16,ViT-L/16,ViT-H/14",
        metavar="NAMES",
        help="Vision Transformers of any family, separated by commas (default: %(default)s)",
    )
    add_sizes(parser, classes=1000)
    parser.add_argument(
        "--batch-size",
        action=Number,
        range=COUNT,
        default=256,
        metavar="N",
        help="number of images in a batch, over all devices (default: %(default)s)",
    )
    parser.add_argument(
        "--devices",
        default="1,8,64",
        metavar="NUMBERS",
        help="numbers of devices, separated by commas (default: %(default)s)",
    )
    add_division(parser, sharding=",".join(SHARDINGS))
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="precision of the computation (default: %(default)s)"
    )
    parser.add_argument(
        "--platform", choices=("gpu", "tpu", "cpu"), default="gpu", help="kind of the devices (default: %(default)s)"
    )
    parser.add_argument(
        "--attention",
        choices=IMPLEMENTATIONS,
        default=IMPLEMENTATIONS[0],
        help="implementation of attention, as config.model_options.attention (default: %(default)s)",
    )
    parser.add_argument(
        "--optimizer",
        choices=tuple(scaling.OPTIMIZER_COPIES),
        default="sgd",
        help="optimizer, whose state takes memory (default: %(default)s)",
    )
    _add_recipe(parser)
    parser.add_argument(
        "--compute-rate",
        action=Number,
        range=Range(above=0),
        metavar="TFLOP/S",
        help="speed of a device; adds the computing time to the table",
    )
    parser.add_argument(
        "--bandwidth",
        action=Number,
        range=Range(above=0),
        metavar="GB/S",
        help="speed of a device's links; adds the sending time to the table",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds the fields of the configuration that change the training state or the backward pass."""
    parser.add_argument(
        "--tuning",
        choices=METHODS,
        default=METHODS[0],
        help="method of tuning, as config.tuning.method (default: %(default)s)",
    )
    parser.add_argument(
        "--rank",
        action=Number,
        range=RANGES["tuning.rank"],
        default=scaling.Setup.rank,
        metavar="N",
        help="rank of LoRA's factors, as config.tuning.rank (default: %(default)s)",
    )
    add_remat(parser)
    parser.add_argument(
        "--ema-decay",
        action=Number,
        range=RANGES["ema_decay"],
        default=0.0,
        metavar="DECAY",
        help="decay of an average of the weights, as config.ema_decay (default: no average)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prints a table in Markdown, with a row for each model, sharding and number of devices; a GB is 10^9 bytes.

    Raises:
      UserError: a model is unknown, or a number impossible.
    """
    try:
        devices = [int(number) for number in arguments.devices.split(",")]
    except ValueError:
        raise UserError(f"--devices is {arguments.devices}: give whole numbers, such as 1,8,64") from None
    shardings = arguments.sharding.split(",")
    for count in devices:
        COUNT.check("--devices", count)
    if arguments.reduce_dtype == "bfloat16" and arguments.dtype != "bfloat16":
        raise UserError("--reduce-dtype bfloat16 needs --dtype bfloat16: give both, or neither")
    head = ["model", "sharding", "devices", "images per part", "parameters GB", "gradients GB", "optimizer GB"]
    head += ["average GB"] if arguments.ema_decay else []
    head += ["working copy GB", "activations GB", "attention weights GB", "peak GB", "sent GB", "TFLOP"]
    head += ["computing ms"] if arguments.compute_rate else []
    head += ["sending ms"] if arguments.bandwidth else []
    rows = []
    for name in arguments.model.split(","):
        config = _parse_model(name, arguments)
        for sharding in shardings:
            for count in devices:
                images = arguments.batch_size // count
                parts = count_parts(arguments.accumulation, config, arguments.platform, max(images, 1))
                setup = scaling.Setup(
                    batch_size=arguments.batch_size,
                    devices=count,
                    sharding=sharding,
                    reduce_dtype=arguments.reduce_dtype,
                    optimizer=arguments.optimizer,
                    accumulation=parts,
                    remat=arguments.remat,
                    tuning=arguments.tuning,
                    rank=arguments.rank,
                    ema_decay=arguments.ema_decay,
                )
                cost = scaling.step_cost(config, setup)
                stored = [cost.parameters, cost.gradients + cost.accumulated, cost.optimizer]
                stored += [cost.average] if arguments.ema_decay else []
                numbers = [*stored, cost.working_copy, cost.activations, cost.attention_weights, cost.memory, cost.sent]
                row = [name, sharding, count, setup.images, *(number / 1e9 for number in numbers), cost.flops / 1e12]
                row += [cost.flops / arguments.compute_rate / 1e9] if arguments.compute_rate else []
                row += [cost.sent / arguments.bandwidth / 1e6] if arguments.bandwidth else []
                rows.append([cell(value) for value in row])
    print("\n".join(markdown_table(head, rows)))


def _parse_model(name: str, arguments: argparse.Namespace) -> models.ViTConfig:
    """Returns the shape of a model by its name.

    Raises:
      UserError: the model is unknown, or no Vision Transformer.
    """
    config = models.parse_name(
        name,
        image_size=arguments.image_size,
        num_classes=arguments.classes,
        dtype=arguments.dtype,
        options={"attention": arguments.attention},
    )
    if not isinstance(config, models.ViTConfig):
        raise UserError(
            f"--model {name} is a {models.family_of(config).title}, and only Vision Transformers are estimated: run "
            f"python -m benchmarks aot --model {name} in the repository, which compiles the step instead"
        )
    return models.retarget(config, models.Target(arguments.platform))
