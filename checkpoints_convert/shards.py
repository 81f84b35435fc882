"""Indexes of weights that are published in several files, such as `model.safetensors.index.json`."""

import json
from pathlib import Path

from ppvit_jax.errors import UserError


def read_index(path: Path) -> dict[Path, set[str]]:
    """Reads an index.

    Returns:
      The names of the tensors in each file. All files lie in the folder of the index.

    Raises:
      UserError: the index is damaged, a file of it is missing, or it names a file outside its folder or of PyTorch.
    """
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not places or not all(isinstance(text, str) for pair in places.items() for text in pair):
            raise ValueError
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path} is not the index of weights in several files: download it again") from None
    files: dict[Path, set[str]] = {}
    for name, file in places.items():
        if file in ("", ".", "..") or "/" in file or "\\" in file or "\0" in file:
            raise UserError(f"{path} names the file {file!r}, which is not in its own folder: do not trust it")
        if not file.endswith(".safetensors"):
            raise UserError(
                f"{path} names {file}, but several files can be read as .safetensors alone: save the model again by "
                "model.save_pretrained(FOLDER)"
            )
        files.setdefault(path.parent / file, set()).add(name)
    if missing := sorted(file.name for file in files if not file.is_file()):
        raise UserError(
            f"{path.parent} lacks {missing[0]}, one of the {len(files)} files that {path.name} names: download it too"
        )
    return files
