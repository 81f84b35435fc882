"""Converts a checkpoint in Google's `.npz` layout to a folder for Hugging Face's `ViTForImageClassification`.

Command:  python -m checkpoints_convert.npz_to_hf checkpoint.npz FOLDER
Load it:  transformers.ViTForImageClassification.from_pretrained(FOLDER)
          transformers.AutoImageProcessor.from_pretrained(FOLDER)   (mean and standard deviation 0.5)

The GELU is the tanh form, as Google's models compute it, and the epsilon of the layer normalizations is 1e-6. An
adapted model stays adapted: it takes encrypted images. The metadata of the checkpoint (key fingerprint, encryption) is
in the field `ppvit` of config.json.
"""

import argparse
import json

from safetensors.numpy import save_file

from checkpoints_convert import command
from checkpoints_convert.names import HUGGING_FACE, from_google
from ppvit_jax.files import written_aside


def convert(arguments: argparse.Namespace) -> None:
    """Reads `arguments.source` and writes the folder `arguments.target`.

    Raises:
      UserError: a file cannot be read or written, or Hugging Face's ViT has no such model.
    """
    arrays, metadata, shape = command.read_npz(arguments.source)
    state = from_google(command.drop_pre_logits(arrays, arguments), HUGGING_FACE, layers=shape.layers)
    has_head = "classifier.weight" in state
    config = {
        "architectures": ["ViTForImageClassification" if has_head else "ViTModel"],
        "model_type": "vit",
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_size,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "num_channels": 3,
        "dtype": str(state["vit.embeddings.cls_token"].dtype),
        command.METADATA: json.loads(metadata.to_json()),
    }
    if has_head:
        names = metadata.class_names
        if len(names) != shape.num_classes:
            names = tuple(f"LABEL_{number}" for number in range(shape.num_classes))
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    size = {"height": shape.image_size, "width": shape.image_size}
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    with written_aside(arguments.target) as folder:
        folder.mkdir()
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


CONVERTER = command.Converter(
    name="npz_to_hf",
    description="Converts a checkpoint in Google's .npz layout to a folder for Hugging Face's transformers.",
    source="checkpoint in Google's layout, a .npz, plain or adapted",
    target="folder to write, which is new",
    example="tuned.npz tuned_hf",
    convert=convert,
    add_options=command.add_without_head,
)

if __name__ == "__main__":
    command.main(CONVERTER)
