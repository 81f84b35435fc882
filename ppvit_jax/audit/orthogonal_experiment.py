"""Experiment: attacks a secret orthogonal matrix, used in place of a secret permutation."""

from collections.abc import Mapping, Sequence

import numpy as np

from ppvit_jax.audit import matrix, scoring
from ppvit_jax.audit.report import CAVEAT
from ppvit_jax.audit.solvers import orthogonal, weights
from ppvit_jax.encryption.permutations import join_blocks, split_blocks
from ppvit_jax.files import markdown_table
from ppvit_jax.models import Params

# Number of images that are held out of the pairs, and then decrypted.
UNSEEN = 10


def measure(
    plain: np.ndarray, block_size: int, pairs: Sequence[int], base: Params | None, seeds: Sequence[Sequence[int]]
) -> dict[str, list[scoring.Picture]]:
    """Multiplies image patches by random orthogonal matrices, and recovers the matrices from pairs and from a model.

    Args:
      plain: uint8 [n, side, side, 3], with n at least the largest number of pairs plus `UNSEEN`.
      block_size: side of a patch in pixels.
      pairs: numbers of pairs to learn from.
      base: parameters of the base model; ignored if None, or if its patches have another size.
      seeds: one seed for each matrix.

    Returns:
      The quality of the decrypted unseen images, one entry for each matrix, by a description of the attacker's data.
    """
    size = plain.shape[1]
    patches = split_blocks(plain, block_size).astype(np.float64) - 127.5
    unseen, target = patches[-UNSEEN:], plain[-UNSEEN:]
    rows = None if base is None else weights.patch_rows(base)
    results: dict[str, list[scoring.Picture]] = {}
    for seed in seeds:
        random = np.random.default_rng(seed)
        secret = np.linalg.qr(random.standard_normal((patches.shape[-1], patches.shape[-1])))[0]
        estimates = {}
        for count in pairs:
            learned = patches[:count].reshape(-1, patches.shape[-1])
            estimates[f"{count} pairs of an image and its encryption"] = orthogonal.from_pairs(
                learned, learned @ secret
            )
        if rows is not None and len(rows) == len(secret):
            name = f"the base and the adapted model ({len(rows)} values, hidden size {rows.shape[1]})"
            estimates[name] = orthogonal.procrustes(rows, secret.T @ rows)
        for name, estimate in estimates.items():
            values = unseen @ secret @ estimate.T + 127.5
            recovered = join_blocks(np.clip(np.rint(values), 0, 255).astype(np.uint8), size, size, block_size)
            results.setdefault(name, []).append(scoring.compare_images(recovered, target))
    return results


def markdown(results: Mapping[str, Sequence[scoring.Picture]], measured: str) -> str:
    """Returns the report in Markdown; `measured` describes the images and matrices in one line."""
    body = [
        [
            name,
            str(len(pictures)),
            matrix.spread([picture.ssim for picture in pictures]),
            matrix.spread([picture.psnr for picture in pictures]),
        ]
        for name, pictures in results.items()
    ]
    lines = markdown_table(["The attacker has", "matrices", "SSIM of other images", "PSNR of other images"], body)
    return "\n".join(
        ["# A secret orthogonal matrix", "", f"Measured: {measured}. Median and range.", "", *lines, "", CAVEAT, ""]
    )
