"""Known-plaintext attack: learns the key's effect from images and their encryptions, and decrypts other images."""

import numpy as np

from ppvit_jax.audit import scoring
from ppvit_jax.audit.attack import SCORED_IMAGES, SUCCESS, Attack, Column, Finding, Inputs, Row, side_by_side, timed
from ppvit_jax.audit.solvers import decoder, known_plaintext
from ppvit_jax.errors import UserError


def run(inputs: Inputs) -> Finding:
    """Runs `known_plaintext.solve`, or `decoder.learn` for encodings, with increasing numbers of pairs.

    The last images are held out of the pairs. The attack decrypts them, and stops once all of them are exact.

    Raises:
      UserError: fewer than two pairs; or see `known_plaintext.solve`.
    """
    assert inputs.encrypted is not None and inputs.plain is not None
    method, encrypted = inputs.encrypted.method, inputs.encrypted.images
    plain = inputs.plain if inputs.noisy is None else inputs.noisy
    if len(plain) < 2:
        raise UserError("one image leaves none to test the attack on: give at least two images and their encryptions")
    rows: list[Row] = []
    pictures, total, best, exact = {}, 0.0, 0.0, 0.0
    tested = slice(-min(SCORED_IMAGES, len(plain) // 2), None)
    unseen, target = encrypted[tested], plain[tested]
    most = len(plain) - len(target)
    # If every image has its own patch order, patches are first matched across several images.
    least = decoder.LEAST_REORDERED if method.encodes and method.per_image else 1
    count = most
    for count in [count for count in inputs.counts.pairs if least <= count <= most] or [most]:
        pairs = plain[:count], encrypted[:count]
        if method.encodes:
            learned, seconds = timed(decoder.learn, *pairs, method.block_size, reordered=method.per_image)
            recovered = learned.decode(unseen)
        else:
            solution, seconds = timed(known_plaintext.solve, method, *pairs)
            recovered = method.decrypt(unseen, solution.secret)
        total += seconds
        quality = scoring.compare_images(recovered, target, unseen)
        exact = float(np.mean((recovered == target).all(axis=(1, 2, 3))))
        rows.append(
            {
                "pairs": count,
                "other images exact": exact,
                "their values exact": float(np.mean(recovered == target)),
                "SSIM": quality.ssim,
                "PSNR": quality.psnr,
                "seconds": seconds,
            }
        )
        best = max(best, quality.ssim)
        pictures = side_by_side(unseen, recovered, target)
        if exact == 1:
            break
    summary = (
        f"{count} {'pairs decrypt' if count > 1 else 'pair decrypts'} {exact:.1%} of {len(target)} other images "
        f"exactly, SSIM {rows[-1]['SSIM']:.3f}"
    )
    if not inputs.brief and exact == 1 and count > 1 and not method.encodes:
        fewest = known_plaintext.pairs_needed(method, plain, encrypted, limit=count)
        summary += f"; pairs needed to decrypt all images: {fewest or 'more'}"
    return Finding(ATTACK.name, rows, summary, best >= SUCCESS, total, pictures)


ATTACK = Attack(
    name="known-plaintext",
    attacker_has="the encryption method, and some images with their encryptions; other images only encrypted",
    needs=("plain", "encrypted"),
    uses=("pairs", "key"),
    # Beyond the pairs, at least as many images remain to be decrypted.
    images_read=lambda counts: 2 * max(counts.pairs) + 20,
    label="pairs",
    column=Column("known plaintext: SSIM", "SSIM", place=3, row="last"),
    run=run,
)
