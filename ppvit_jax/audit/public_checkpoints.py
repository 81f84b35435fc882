"""List of public base checkpoints. Anyone who has one can read the key from a model adapted from it."""

import hashlib
import os
from pathlib import Path

import numpy as np

from ppvit_jax.checkpoint import weights_file
from ppvit_jax.models import Params, leaf, recognize

# Names of checkpoints by the SHA-256 of the whole file.
_FILES = {
    # Computed from the file in this package.
    "4036d0e8069494341a472a85296a529ebfddce704defc57916af7fd388993d4e": "ppvit's embedded ViT-Micro/8",
    # From Git LFS pointers in public GitHub repositories with copies under the original name: ThanhDungCR7/l2p_fork and
    # KevinG273/ViT. The file sizes, 412,815,506 and 347,502,902 bytes, fit these parameters.
    "ac7478131e1b77e5c2f0225849730bd19ee89cfffe600c2dfd2272b34a50a43d": "Google's imagenet21k/ViT-B_16.npz",
    "19d3f569702e80c3a19101c8a3bde16b34f0c475ce565e999cb96068a580fdbf": (
        "Google's imagenet21k+imagenet2012/ViT-B_16.npz"
    ),
    # From the files' pages on the Hugging Face Hub; each name is repository and file.
    "1cf14745201dfaffba38831c7cc1003c51618569d0a5dd31a895fe604c427253": (
        "timm/vit_base_patch16_224.orig_in21k model.safetensors"
    ),
    "f2e4c2fbed73e925b2ef5f760bedb748a28027d1dc0a66174bb9c8efcccbe411": (
        "timm/vit_base_patch32_224.orig_in21k pytorch_model.bin"
    ),
    "1cea07110a4a47edc51420b2dda6f3b8b58e7256e8f44b4ea6aa9696162ccb5d": (
        "google/vit-base-patch16-224 model.safetensors"
    ),
    "5f17067668129d23b52524f90a805e7d9914c276d90a59a13ebe81a09e40ceca": (
        "google/vit-base-patch16-224 pytorch_model.bin"
    ),
    "84066da0f5d8ff1cc494c660d4693141fae2e356535bf18a14d9fc00a055a6a1": (
        "google/vit-base-patch16-224-in21k pytorch_model.bin"
    ),
    "82d6433fcb417924480236806bd22e3bc9b21f578df839cae78d79e24db61c1d": (
        "google/vit-base-patch32-224-in21k model.safetensors"
    ),
    "d1f5662c99f04647c12757a8b72eb61ae150d819069b05e73fb1064b737bafcb": (
        "google/vit-base-patch32-224-in21k pytorch_model.bin"
    ),
}
# Names of checkpoints by `patch_embedding_sha256`. It also recognizes a checkpoint after conversion, with another head,
# or after fine-tuning with a frozen patch embedding.
_PATCH_EMBEDDINGS = {
    "9b8bcecc804afd9fc9afc76180d52d87b59f5ecde3cfa3f3de882253df29d18f": "ppvit's embedded ViT-Micro/8",
}


def identify(path: str | os.PathLike, arrays: Params) -> str | None:
    """Returns the name of a public checkpoint, or None if the file is not on the list.

    Args:
      path: the checkpoint file, in any format, or its folder.
      arrays: the file's parameters, by name as `ppvit_jax.checkpoint.read` returns them, or as a tree.
    """
    with weights_file(Path(path)).open("rb") as file:
        name = _FILES.get(hashlib.file_digest(file, "sha256").hexdigest())
    family = recognize(arrays)
    kernel = leaf(arrays, family.patch_kernel) if family else None
    if name is None and kernel is not None:
        name = _PATCH_EMBEDDINGS.get(patch_embedding_sha256(kernel))
    return name


def patch_embedding_sha256(kernel: np.ndarray) -> str:
    """Returns the SHA-256 of a patch embedding [patch, patch, 3, hidden] as little-endian float32 in C order.

    Unlike the hash of the file, it does not change when a checkpoint is converted to Google's layout or saved again.
    """
    return hashlib.sha256(np.ascontiguousarray(kernel, "<f4").tobytes()).hexdigest()
