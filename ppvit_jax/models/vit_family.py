"""Descriptions of the families that share the transformer, from the few facts in which they differ."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ppvit_jax.models.family import Family, Stored
from ppvit_jax.models.transformer import BLOCK, STEM, build, describe, infer_fields, size_name
from ppvit_jax.models.vit_config import Size, ViTConfig, check_options, parse_size


def make_family(
    *,
    title: str,
    form: str,
    example: str,
    pattern: str,
    config: type[ViTConfig],
    sizes: Mapping[str, Size],
    activation: str,
    epsilon: float,
    landmarks: tuple[str, ...],
    read_name: Callable[[re.Match[str]], dict[str, Any]] = lambda match: {},
    read_arrays: Callable[[Stored, dict[str, Any]], dict[str, Any]] = lambda stored, fields: {},
    write_name: Callable[[Any, str], str],
    **description: Any,
) -> Family[Any]:
    """Describes a family of Vision Transformers.

    Args:
      title: the family's name, for messages.
      form, example: form of its models' names, and one of them.
      pattern: regular expression of a name, whose first two groups are size and patch size.
      config: class of its models' shapes.
      sizes: hidden size, layers, heads and MLP size of each size.
      activation, epsilon: the usual ones of the family.
      landmarks: see `Family`.
      read_name: match of a name -> the family's own fields of `config`.
      read_arrays: (checkpoint, the fields of `ViTConfig`) -> the family's own fields of `config`.
      write_name: (shape, size and patch such as "B/16") -> the model's name.
      **description: other fields of `Family`.
    """

    def parse(
        name: str, *, image_size: int, num_classes: int, representation_size: int | None = None, **options: Any
    ) -> ViTConfig:
        fields = parse_size(name, pattern, sizes, form, example, image_size)
        check_options(options["activation"], options["epsilon"], options["pool"], "config.model_options has")
        match = re.fullmatch(pattern, name)
        own = read_name(match) if match else {}
        return config(
            **fields, **options, **own, num_classes=num_classes, representation_size=representation_size or None
        )

    def infer(stored: Stored) -> ViTConfig:
        fields = infer_fields(stored, family)
        return config(**fields, **read_arrays(stored, fields))

    def name(shape: ViTConfig) -> str:
        size = size_name(shape, sizes)
        return write_name(shape, size) if size else ""

    usual = {
        "patch_bias": "embedding/bias",
        "positions": "Transformer/posembed_input/pos_embedding",
        "prefix_tokens": 1,
        "optional": ("pre_logits",),
    }
    family: Family[Any] = Family(
        title=title,
        names=form,
        # A name of another form gets the message of this family.
        pattern=rf"{pattern.partition('-')[0]}-(?s:.*)",
        config=config,
        build=build,
        options={"attention": "auto", "activation": activation, "epsilon": epsilon, "pool": ""},
        recorded=("activation", "epsilon", "pool"),
        parse=parse,
        name=name,
        infer=infer,
        describe=describe,
        patch_kernel="embedding/kernel",
        landmarks=landmarks,
        block=BLOCK,
        stem=STEM,
        encoder="Transformer",
        encoder_outputs=("/out/kernel", "/Dense_1/kernel"),
        **(usual | description),
    )
    return family
