"""Ciphertext-only attack: recovers the key from encrypted images alone."""

from ppvit_jax.audit import scoring
from ppvit_jax.audit.attack import SCORED_IMAGES, SUCCESS, Attack, Column, Finding, Inputs, Row, side_by_side, timed
from ppvit_jax.audit.solvers import ciphertext_only
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption.blockwise import Gather


def run(inputs: Inputs) -> Finding:
    """Runs `ciphertext_only.recover` on increasing numbers of images.

    Raises:
      UserError: see `ciphertext_only.solve`.
    """
    assert inputs.encrypted is not None
    method, encrypted, truth = inputs.encrypted.method, inputs.encrypted.images, inputs.encrypted.secret
    rows: list[Row] = []
    pictures, total, best = {}, 0.0, -1.0
    progress = Progress(ATTACK.name, len(inputs.counts.images), "attempts")
    for count in [count for count in inputs.counts.images if count <= len(encrypted)] or [len(encrypted)]:
        images = encrypted[:count]
        (recovered, secret), seconds = timed(
            ciphertext_only.recover,
            method,
            images,
            shown=SCORED_IMAGES,
            reference=inputs.reference,
            seed=inputs.seed,
        )
        total += seconds
        row: Row = {"images": count}
        if truth is not None and secret is not None and isinstance(method, Gather):
            side = encrypted.shape[1]
            places = scoring.compare_places(secret, truth, side, method.block_size if method.blocks else 1)
            row |= {
                "blocks in place": places.blocks,
                "values in place": places.values,
                "neighbors": places.neighbors,
                "largest component": places.component,
            }
            best = max(best, min(places.blocks, places.values))
        shown = images[:SCORED_IMAGES]
        if inputs.plain is not None:
            target = inputs.plain[: len(shown)]
            recovered = scoring.align(recovered, target)
            quality = scoring.compare_images(recovered, target, shown)
            row |= {"SSIM": quality.ssim, "PSNR": quality.psnr, "SSIM encrypted": quality.encrypted_ssim}
            if method.blocks and method.block_size > 1:
                likeness = scoring.measure_likeness(inputs.plain[:count], method.block_size)
                row |= {"neighbors alike": likeness.neighbors, "channels alike": likeness.channels}
            best = max(best, quality.ssim)
        row["seconds"] = seconds
        rows.append(row)
        if not inputs.brief:
            progress.update(len(rows))
        pictures = side_by_side(shown, recovered, inputs.plain)
    progress.close()
    last = rows[-1]
    measures = [f"{name} {last[name]:.3f}" for name in ("SSIM", "blocks in place", "values in place") if name in last]
    summary = f"{last['images']} images: {', '.join(measures) or 'see the picture'}"
    scored = inputs.plain is not None or best >= 0
    return Finding(ATTACK.name, rows, summary, best >= SUCCESS if scored else None, total, pictures)


ATTACK = Attack(
    name="ciphertext-only",
    attacker_has="the encryption method and images encrypted with one key; no plain version of them",
    needs=("encrypted",),
    uses=("reference", "images", "plain", "key"),
    images_read=lambda counts: max(counts.images),
    label="images",
    column=Column("ciphertext only: SSIM", "SSIM", place=5, row="last"),
    run=run,
)
