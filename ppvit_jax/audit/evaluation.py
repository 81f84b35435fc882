"""Runs each attack, measures it and says what the attacker had; the only place beside `scoring` that sees the truth."""

import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ppvit_jax.audit import scoring
from ppvit_jax.audit.finding import Finding
from ppvit_jax.audit.solvers import (
    ciphertext_only,
    decoder,
    dictionary,
    known_plaintext,
    link,
    position_embedding,
    weights,
)
from ppvit_jax.encryption import Encryption, Permutations, Secret
from ppvit_jax.encryption.blockwise import Gather, gather
from ppvit_jax.models import Params

_P = ParamSpec("_P")
_T = TypeVar("_T")
# From here on a picture counts as recovered, and a half of the rest as broken.
_HALF = 0.5
_PICTURES = 4
_COMPARED = 10


def audit_weights(base: Params, model: Params, truth: Permutations | None) -> Finding:
    """`weights.recover`, with the fraction recovered where the truth is known and the margins where not."""
    found, seconds = _timed(weights.recover, base, model)
    drift = weights.drift(base, model, found.permutations)
    rows = []
    for name, match, part, changed in (
        ("blocks (position embedding)", found.block, truth and truth.block, drift["position_embedding"]),
        ("values (patch embedding)", found.pixel, truth and truth.pixel, drift["patch_embedding"]),
    ):
        row: dict[str, Any] = {"rows of": name, "number": len(match.order)}
        if truth is not None:
            right = match.order == (np.arange(len(match.order)) if part is None else part)
            if match is found.pixel:
                right &= match.negative == (np.zeros(len(right), bool) if truth.negative is None else truth.negative)
            row["recovered"] = float(right.mean())
        row |= {
            "similarity (median)": float(np.median(match.similarity)),
            "margin (median)": float(np.median(match.margin)),
            "margin (lowest)": float(match.margin.min()),
            "changed by fine-tuning": changed,
            "seconds, both": seconds,
        }
        rows.append(row)
    if truth is not None:
        succeeded = min(row["recovered"] for row in rows) >= _HALF
        summary = " and ".join(f"{row['recovered']:.1%} of the {row['rows of']}" for row in rows) + " recovered"
    else:
        # Rows of unrelated models match somehow, too: what counts is whether they do so better than by chance.
        succeeded = all(
            link.against_chance(rows_of(base), rows_of(model), match, signed=signed).linked
            for rows_of, match, signed in (
                (weights.patch_rows, found.pixel, True),
                (weights.position_rows, found.block, False),
            )
        )
        clear = [float(np.mean(match.margin > 0)) for match in (found.block, found.pixel)]
        summary = (
            f"{clear[0]:.1%} of the blocks and {clear[1]:.1%} of the values matched more clearly than any other, "
            f"{'far better than' if succeeded else 'no better than'} by chance"
        )
    return Finding("weights", tuple(rows), summary, succeeded, seconds)


def audit_position_embedding(model: Params, truth: Permutations | None) -> Finding:
    """`position_embedding.solve`; the truth is that of a key, whose block permutation may be None for none."""
    found, seconds = _timed(position_embedding.solve, weights.position_rows(model))
    row: dict[str, Any] = {"blocks": len(found), "seconds": seconds}
    if truth is None:
        return Finding("position-embedding", (row,), "an arrangement; give --key to score it", None, seconds)
    block = np.arange(len(found)) if truth.block is None else truth.block
    side = round(len(found) ** 0.5)
    estimate, right = (gather(Permutations(part), side, side, 1) for part in (found, block))
    places = scoring.places(estimate, right, side, 1)
    row |= {
        "blocks in place": places.blocks,
        "neighbours": places.neighbours,
        "largest component": places.component,
    }
    summary = f"{places.blocks:.1%} of the blocks in place, {places.neighbours:.1%} of the neighbouring pairs"
    return Finding("position-embedding", (row,), summary, places.neighbours >= _HALF, seconds)


def audit_link(first: Params, second: Params) -> Finding:
    """`link.compare`."""
    found, seconds = _timed(link.compare, first, second)
    rows = [
        {
            "tensors": name,
            "mean cosine": part.value,
            "by chance": part.chance,
            "deviations above": part.z,
            "seconds, all": seconds,
        }
        for name, part in (
            ("encoder (no key moves it)", found.untouched),
            ("patch embedding, matched", found.patch),
            ("position embedding, matched", found.position),
        )
        if part is not None
    ]
    verdict = "linked" if found.linked else "not linked"
    return Finding("link", tuple(rows), f"{verdict}: {found.reason}", found.linked, seconds)


def audit_known_plaintext(
    method: Encryption,
    plain: np.ndarray,
    encrypted: np.ndarray,
    counts: Sequence[int] = (1, 2, 5, 10, 20),
    *,
    summarise: bool = True,
) -> Finding:
    """`known_plaintext.solve`, or `decoder.learn` for encodings, from more and more pairs; scored on the last images.

    Args:
      method: with the right block size.
      plain, encrypted: pairs; at least one more than the lowest count.
      counts: of pairs to learn from, in increasing order.
      summarise: tell the fewest pairs too, which takes further attempts.

    Raises:
      UserError: see `known_plaintext.solve`.
    """
    rows, pictures, seconds, best = [], {}, 0.0, 0.0
    tested = slice(-min(_COMPARED, max(1, len(plain) // 2)), None)
    unseen, target = encrypted[tested], plain[tested]
    most = len(plain) - len(target)
    # Patches in an order of their own are matched over several images first.
    least = decoder.LEAST_REORDERED if method.encodes and method.per_image else 1
    for count in [count for count in counts if least <= count <= most] or [most]:
        pairs = plain[:count], encrypted[:count]
        if method.encodes:
            learned, taken = _timed(decoder.learn, *pairs, method.block_size, reordered=method.per_image)
            recovered = learned.decode(unseen)
        else:
            solution, taken = _timed(known_plaintext.solve, method, *pairs)
            recovered = method.decrypt(unseen, solution.secret)
        seconds += taken
        quality = scoring.picture(recovered, target, unseen)
        exact = float(np.mean((recovered == target).all(axis=(1, 2, 3))))
        rows.append(
            {
                "pairs": count,
                "other images exact": exact,
                "their values exact": float(np.mean(recovered == target)),
                "SSIM": quality.ssim,
                "PSNR": quality.psnr,
                "seconds": taken,
            }
        )
        best = max(best, quality.ssim)
        pictures = _pictures(unseen, recovered, target)
        if exact == 1:
            break
    last = rows[-1]
    summary = (
        f"{last['pairs']} {'pairs decrypt' if last['pairs'] > 1 else 'pair decrypts'} "
        f"{last['other images exact']:.1%} of {len(target)} other images exactly, SSIM {last['SSIM']:.3f}"
    )
    if summarise and last["other images exact"] == 1 and last["pairs"] > 1 and not method.encodes:
        fewest = known_plaintext.pairs_needed(method, plain, encrypted, limit=last["pairs"])
        summary += f"; the fewest that suffice for all given images are {fewest or 'more'}"
    return Finding("known-plaintext", tuple(rows), summary, best >= _HALF, seconds, pictures)


def audit_ciphertext_only(
    method: Encryption,
    encrypted: np.ndarray,
    counts: Sequence[int] = (1, 5, 20, 100),
    *,
    plain: np.ndarray | None = None,
    truth: Secret | None = None,
    reference: np.ndarray | None = None,
    seed: int = 0,
    done: Callable[[int], None] = lambda tries: None,
) -> Finding:
    """`ciphertext_only.solve` of more and more images.

    Args:
      method: with the right block size.
      encrypted: uint8 [n, side, side, 3].
      counts: of images to attack, in increasing order; those beyond n are left out, and n at least is tried.
      plain: the plain images, for the scoring.
      truth: the secret, for the scoring.
      reference, seed: see `ciphertext_only.solve`.
      done: is told after each number of images how many of these there were.

    Raises:
      UserError: see `ciphertext_only.solve`.
    """
    rows, pictures, seconds, best = [], {}, 0.0, -1.0
    for count in [count for count in counts if count <= len(encrypted)] or [len(encrypted)]:
        images = encrypted[:count]
        (recovered, secret), taken = _timed(
            ciphertext_only.recover, method, images, shown=_COMPARED, reference=reference, seed=seed
        )
        seconds += taken
        row: dict[str, Any] = {"images": count}
        if truth is not None and secret is not None and isinstance(method, Gather):
            size = encrypted.shape[1]
            places = scoring.places(secret, truth, size, method.block_size if method.blocks else 1)
            row |= {
                "blocks in place": places.blocks,
                "values in place": places.values,
                "neighbours": places.neighbours,
                "largest component": places.component,
            }
            best = max(best, min(places.blocks, places.values))
        shown = images[:_COMPARED]
        if plain is not None:
            target = plain[: len(shown)]
            recovered = scoring.align(recovered, target)
            quality = scoring.picture(recovered, target, shown)
            row |= {"SSIM": quality.ssim, "PSNR": quality.psnr, "SSIM encrypted": quality.encrypted_ssim}
            best = max(best, quality.ssim)
        row["seconds"] = taken
        rows.append(row)
        done(len(rows))
        pictures = _pictures(shown, recovered, plain)
    last = rows[-1]
    said = [f"{name} {last[name]:.3f}" for name in ("SSIM", "blocks in place", "values in place") if name in last]
    summary = f"{last['images']} images: {', '.join(said) or 'see the picture'}"
    known = plain is not None or best >= 0
    return Finding("ciphertext-only", tuple(rows), summary, best >= _HALF if known else None, seconds, pictures)


def audit_dictionary(
    method: Encryption, candidates: np.ndarray, encrypted: np.ndarray, truth: np.ndarray, *, summarise: bool = True
) -> Finding:
    """`dictionary.identify`.

    Args:
      method, candidates, encrypted: as there.
      truth: int [n], the number of the candidate that each encrypted image is of.
      summarise: tell which images are equal too, which takes another look at all.

    Raises:
      UserError: see `dictionary.identify`.
    """
    found, seconds = _timed(dictionary.identify, method, candidates, encrypted)
    # Equal candidates are equal answers.
    right = np.mean([(candidates[a] == candidates[b]).all() for a, b in zip(found.index, truth, strict=True)])
    row = {
        "candidates": len(candidates),
        "encrypted": len(encrypted),
        "identified": float(right),
        "by chance": 1 / len(candidates),
        "distance (median)": float(np.median(found.distance)),
        "of the runner-up": float(np.median(found.runner_up)),
        "seconds": seconds,
    }
    summary = f"{right:.1%} of {len(encrypted)} encrypted images identified among {len(candidates)} candidates"
    if summarise and not method.encodes and (equal := dictionary.duplicates(method, encrypted)):
        summary += f"; {sum(map(len, equal))} encrypted images are seen to be equal to another, or its mirror image"
    return Finding("dictionary", (row,), summary, bool(right >= _HALF), seconds)


def _timed(attack: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> tuple[_T, float]:
    """What an attack returns, and the seconds that it took."""
    started = time.monotonic()
    found = attack(*arguments, **options)
    return found, time.monotonic() - started


def _pictures(encrypted: np.ndarray, recovered: np.ndarray, plain: np.ndarray | None) -> dict[str, np.ndarray]:
    shown = {"encrypted": encrypted, "recovered": recovered} | ({} if plain is None else {"plain": plain})
    return {
        title: images[:_PICTURES] for title, images in shown.items() if images.ndim == 4 and images.dtype == np.uint8
    }
