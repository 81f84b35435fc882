"""Models of Hugging Face, read from a folder with config.json and weights in safetensors or PyTorch files."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints_convert import command, hugging_face, hugging_face_config, names, naming, record, tensors
from checkpoints_convert.converted import Choices, Converted
from checkpoints_convert.hugging_face_config import ModelType
from checkpoints_convert.names import DENSE, both, to_google
from ppvit_jax import checkpoint, models
from ppvit_jax.checkpoint.content import recognize, refusal
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.models.clip import FAMILY as CLIP

# The start of Metadata.origin, before the type of the model.
ORIGIN = "transformers"
_POOLER = both("vit.pooler.dense", "pre_logits", DENSE)
# Names in memory since transformers 5, and in files. A state dict that torch.save wrote has the former.
_RENAMED = (
    (r"^(vit|deit)\.layers\.", r"\1.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"^((vit|deit)\..*)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^((vit|deit)\..*)\.mlp\.fc2\.", r"\1.output.dense."),
)
FILES = ("model.safetensors", "pytorch_model.bin")


def read(folder: Path, choices: Choices, weights_file: Path | None = None) -> Converted:
    """Reads a model of Hugging Face.

    Args:
      folder: a folder with config.json.
      choices: choices that the folder may not record.
      weights_file: the file of weights; None for the one that the folder has.

    Raises:
      UserError: the folder cannot be read, or holds another kind of model.
    """
    where = str(folder)
    if folder.is_file():
        raise UserError(refusal(folder, recognize(folder), "a folder with config.json and the weights"))
    whole = hugging_face.read_json(folder / "config.json", "give a folder of Hugging Face's transformers")
    with hugging_face.refusing_damage(where):
        kind = hugging_face_config.find_type(whole, where)
        config = hugging_face_config.vision_config(whole, kind)
        hugging_face.check_config(config, kind, where)
        heads = config.get("num_attention_heads", kind.heads)
        if isinstance(heads, bool) or not isinstance(heads, int):
            raise UserError(f"{where} has num_attention_heads={heads!r}, but it must be a number")
        hugging_face.class_names(config, folder)
        former = _former_record(whole, folder)
    content = tensors.read(weights_file or find_weights(folder), choices.weights)
    mapped = _select(content, kind, choices, where)
    table = (*kind.foreign.names.hugging_face, *(_POOLER if kind.name == "vit" else ()))
    skipped = {e.other for e in table if choices.skip and any(name.startswith(choices.skip) for name in e.google)}
    kept = [name for name in mapped if naming.generic(name) not in skipped]
    state = kind.foreign.names.prepare(tensors.load(tensors.Tensors(mapped, mapped=content.mapped), kept, where))
    kernel = next(state[e.other] for e in table if e.google == ("embedding/kernel",))
    heads = command.heads_of(kernel.shape[0], heads, where, kind.foreign.sizes)
    arrays = kind.complete(to_google(state, table, heads=heads, where=where), config)
    options = hugging_face.options(config, kind, where)
    options |= {"pool": pool} if (pool := kind.pool(mapped)) else {}
    shape = command.infer(arrays, where, options)
    unused = models.unused_layers(shape, keep_head=True)
    arrays = {name: array for name, array in arrays.items() if not name.startswith(unused)}
    command.check_complete(arrays, where, checkpoint.Metadata(model_options=options), choices.skip)
    with hugging_face.refusing_damage(where):
        hugging_face_config.check_shape(config, kind, shape, where)
        own = {"model_options": options, **hugging_face.own_fields(folder, config, kind)}
    if former is None and content.record is None:
        own = command.add_usual_normalization(own, kind.foreign.normalization, kind.foreign.title, where)
        own["origin"] = f"{ORIGIN}:{kind.name}"
    metadata = record.merge(former or content.record, own, where=where)
    if metadata.encryption != "none":
        print_note(
            f"{where} holds a model that is adapted to {metadata.encryption}, by its field ppvit: it takes such images"
        )
    return Converted(arrays, metadata, shape)


def find_weights(folder: Path) -> Path:
    """Returns the file of weights in a folder, or the index of several.

    Raises:
      UserError: there is none.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    index = next((folder / f"{name}.index.json" for name in FILES if (folder / f"{name}.index.json").is_file()), None)
    if path is None and index is None:
        raise UserError(f"{folder} has neither model.safetensors nor pytorch_model.bin (weights in one file)")
    return path or index or folder


def _select(content: tensors.Tensors, kind: ModelType, choices: Choices, where: str) -> dict[str, np.ndarray]:
    """Returns the tensors by the names of the family's table, without those that the model does not use."""
    family = kind.foreign.names
    first = family.prefixes[0]
    anchor = kind.anchor.removeprefix(first)
    long = [prefix for prefix in family.prefixes if any(name.endswith(f"{prefix}{anchor}") for name in content.state)]
    state = naming.strip_prefix(
        content.state,
        f"{long[0] if long else ''}{anchor}",
        weights=choices.weights,
        averaged=content.averaged,
        where=where,
    )
    state = {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
    state, left_out = names.select(state, family)
    state = {_rename(name): tensor for name, tensor in state.items()}
    if kind.anchor not in state:
        raise UserError(f"{where} is not a {kind.foreign.title} of Hugging Face: it has no {anchor}")
    unused = []
    if "classifier.weight" in state:
        unused = [name for name in ("vit.pooler.dense.weight", "vit.pooler.dense.bias") if name in state]
    if kind.foreign.family is CLIP and "classifier.weight" in state:
        unused = ["classifier.weight", "classifier.bias"]
        print_note(f"the classifier of {where} is left out, because it takes features before the last normalization")
    elif present := [*[name for name in left_out if kind.name == "vit"], *unused]:
        print_note(f"{', '.join(present)} of {where} are left out, because the classifier does not use them")
    return {name: tensor for name, tensor in state.items() if name not in unused}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _former_record(config: Mapping[str, Any], folder: Path) -> checkpoint.Metadata | None:
    if config.get(tensors.FIELD) is None:
        return None
    try:
        return checkpoint.Metadata.from_json(json.dumps(config[tensors.FIELD]))
    except (ValueError, TypeError):
        raise UserError(
            f"{folder / 'config.json'} is damaged: its field {tensors.FIELD} is no checkpoint's record"
        ) from None
