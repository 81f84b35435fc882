"""Files of a complete run, written without training."""

import json
from pathlib import Path

import numpy as np

from ppvit_jax.config import default_config
from ppvit_jax.training import identity
from ppvit_jax.training.evaluation.files import Origin, write_evaluation
from ppvit_jax.training.evaluation.measures import make_measures


def write_run(
    folder: Path, names: tuple[str, ...], *, epochs: int = 3, evaluated: bool = True, part: str = "test", **result
) -> Path:
    """Writes the files of a run, with the fields of `result` in its result.json; returns the folder.

    Each epoch is evaluated on the images of `part`: "test" or "val".
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = default_config()
    config.key_file, config.passphrase_file = "/owners_folder/hidden.key", "/owners_folder/words.txt"
    config.optimizer.learning_rate, config.freeze = 0.25, ("head/.*",)
    record = {
        "config": json.loads(config.to_json()),
        "metadata": {},
        "dataset": {"class_names": list(names), "digest": "ab" * 32},
        "checkpoint_sha256": "cd" * 32,
        "versions": {},
    }
    (folder / "config.json").write_text(json.dumps(record))
    lines = []
    for step in range(1, 4 * epochs + 1):
        values = {
            "epoch": step / 4,
            "train_loss": 2 / step,
            "train_accuracy": 1 - 1 / (step + 1),
            "seconds": 2.0 * step,
        }
        lines.append({"kind": "step", "step": step, **values, "learning_rate": 0.25, "images_per_second": None})
        if step % 4 == 0:
            tested = {f"{part}_loss": 3 / step, f"{part}_accuracy": 0.5, "images_per_second": 100.5}
            lines.append({"kind": "epoch", "step": step, **values, **tested})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if evaluated:
        labels = np.random.default_rng(0).integers(0, len(names), 40 * len(names))
        logits = np.random.default_rng(1).normal(size=(len(labels), len(names))) + 2 * np.eye(len(names))[labels]
        measures = make_measures("single_label", len(names))
        measures.add(logits, labels)
        origin = Origin(
            checkpoint="checkpoint.npz", images="noise", split="test", encryption="bs+ps", key_fingerprint="00ff"
        )
        write_evaluation(folder, measures.compute(), names, origin)
    content = {
        "dataset": "noise",
        "model": "ViT-B/16",
        "checkpoint": config.checkpoint,
        "image_size": 224,
        "encryption": "bs+ps",
        "adapt": True,
        "seed": 0,
        "steps": 4 * epochs,
        "epochs": epochs,
        "train_examples": 1280,
        "train_loss": 0.2,
        "train_accuracy": 0.9,
        "test_loss": 0.25,
        "test_accuracy": 0.5,
        "test_examples": 40 * len(names),
        "best_test_accuracy": 0.625,
        "images_per_second": 100.5,
        "key_fingerprint": "00ff",
        "device": "1 x cpu",
        "versions": identity.versions(),
        "warnings": [],
    }
    (folder / "result.json").write_text(json.dumps(content | result))
    return folder
