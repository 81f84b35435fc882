"""The command `ppvit audit orthogonal`: whether a secret orthogonal matrix would do better than a permutation."""

import argparse
from pathlib import Path

import numpy as np

from ppvit_jax.audit import matrix, scoring
from ppvit_jax.audit.report import CAVEAT
from ppvit_jax.audit.solvers import orthogonal, weights
from ppvit_jax.commands.shared import audit_inputs
from ppvit_jax.encryption.permutations import join_blocks, split_blocks
from ppvit_jax.files import markdown_table, write_text

_UNSEEN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    audit_inputs.add_arguments(parser, ("plain", "base?", "pairs"))
    parser.set_defaults(pairs=[1, 2, 4])
    parser.add_argument("--keys", type=int, default=5, metavar="N", help="new matrices, one a repetition (%(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: %(default)s)")


def run(arguments: argparse.Namespace, output: Path) -> list[str]:
    """Draws matrices, multiplies the patches of images by them, and recovers them from pairs and from a base.

    Returns:
      ["orthogonal"] if images that were not among the pairs are recovered, else nothing.

    Raises:
      UserError: anything that the user can put right.
    """
    size, patch = arguments.image_size, arguments.patch_size
    count = max(arguments.pairs) + _UNSEEN
    plain = audit_inputs.open_images(arguments.plain, arguments, size, count, arguments.seed)
    patches = split_blocks(plain, patch).astype(np.float64) - 127.5
    unseen, target = patches[-_UNSEEN:], plain[-_UNSEEN:]
    found: dict[str, list[scoring.Picture]] = {}
    for number in range(arguments.keys):
        random = np.random.default_rng([arguments.seed, number])
        secret = np.linalg.qr(random.standard_normal((patches.shape[-1], patches.shape[-1])))[0]
        attempts = {}
        for pairs in arguments.pairs:
            known = patches[:pairs].reshape(-1, patches.shape[-1])
            attempts[f"{pairs} pairs of an image and its encryption"] = orthogonal.from_pairs(known, known @ secret)
        if arguments.base:
            rows = weights.patch_rows(audit_inputs.open_model(arguments.base)[0])
            if len(rows) == len(secret):
                name = f"the base and the adapted model ({len(rows)} values, hidden size {rows.shape[1]})"
                attempts[name] = orthogonal.procrustes(rows, secret.T @ rows)
        for name, estimate in attempts.items():
            values = unseen @ secret @ estimate.T + 127.5
            recovered = join_blocks(np.clip(np.rint(values), 0, 255).astype(np.uint8), size, size, patch)
            found.setdefault(name, []).append(scoring.picture(recovered, target))
    body = []
    for name, pictures in found.items():
        similarity, ratio = ([getattr(one, field) for one in pictures] for field in ("ssim", "psnr"))
        body.append([name, str(len(pictures)), matrix.spread(similarity), matrix.spread(ratio)])
    lines = markdown_table(["The attacker has", "matrices", "SSIM of other images", "PSNR of other images"], body)
    measured = (
        f"Measured: patches of {patch}x{patch} of {_UNSEEN} images of {Path(arguments.plain).name} at {size}x{size}, "
        f"each multiplied by one secret orthogonal matrix; seed {arguments.seed}. Median and range."
    )
    text = "\n".join(["# A secret orthogonal matrix", "", measured, "", *lines, "", CAVEAT, ""])
    write_text(output / "orthogonal.md", text)
    print(text)
    best = max(min(one.ssim for one in pictures) for pictures in found.values())
    return ["orthogonal"] if best >= 0.5 else []
