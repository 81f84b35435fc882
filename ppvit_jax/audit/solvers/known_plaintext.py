"""Known-plaintext attack: recovers a key's effect from images and their encryptions.

Matching undoes any method that permutes and inverts values: Li et al. (Signal Processing: Image Communication 2008) and
Jolfaei, Wu and Muthukkumarasamy (IEEE TIFS 2016) for permutations. Color refinement (Weisfeiler and Lehman 1968) tells
apart blocks and the sites that move inside them: the contents of blocks distinguish blocks, the differences between
blocks distinguish sites, and so on in turn.
"""

import dataclasses

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ppvit_jax.audit.solvers.structure import Structure, flatten, mix, structure
from ppvit_jax.encryption.method import Encryption, Secret
from ppvit_jax.errors import UserError

_NO_MATCH = "the pairs are not images and their encryptions by {} with one key: give matching pairs, in the same order"


@dataclasses.dataclass(frozen=True)
class Solution:
    """An estimate of a key, from pairs of images and their encryptions.

    secret: an estimate of the method's secret that turns each image of the pairs into its encryption. `method.decrypt`
      with it decrypts other images, except in ambiguous places. Under etc's `published` and `in_place` channels, which
      cannot be undone, the secret only encrypts.
    blocks: number of blocks of an image; 1 if the method has no blocks.
    ambiguous_blocks: number of blocks that equal another block in all pairs, so that their places are a guess.
    places: number of values of an image, or of four-bit halves of values for le and ele.
    ambiguous_places: number of places that could also come from another place, or be inverted the other way. It is an
      upper bound: the pairs together may settle more than each condition alone.
    """

    secret: Secret
    blocks: int
    ambiguous_blocks: int
    places: int
    ambiguous_places: int


def solve(method: Encryption, plain: np.ndarray, encrypted: np.ndarray) -> Solution:
    """Recovers the permutations and inversions of a key from images and their encryptions.

    Ties are broken arbitrarily, but the result is always a bijection that is exact for the given pairs.

    Args:
      method: the encryption method, with its block size; it has no key.
      plain: uint8 [n, height, width, 3].
      encrypted: uint8 [n, height, width, 3], in the same order.

    Returns:
      The estimate of the secret, and the number of its ambiguous blocks and places.

    Raises:
      UserError: the method encodes images, or has a key for every image, so that pairs reveal nothing about other
        images; the arrays have another type or size; or no key explains the pairs.
    """
    if method.encodes:
        raise UserError(f"encryption {method.spec} encodes images and moves no values: learn a decoder from the pairs")
    if method.per_image:
        raise UserError(
            f"encryption {method.spec} has a key for every image, so pairs reveal nothing about other images: use a "
            "dictionary of candidate images"
        )
    _check_pairs(plain, encrypted)
    parts = structure(method, *plain.shape[1:3])
    hashes = np.stack([_hash(parts, flatten(method, images)) for images in (plain, encrypted)])
    solved = _match_all(parts, hashes) if parts.group else _match_lossy(parts, hashes)
    if solved is None:
        raise UserError(_NO_MATCH.format(method.spec))
    secret, ambiguous_blocks, ambiguous_places = solved
    if (method.encrypt(plain, secret) != encrypted).any():
        raise UserError(_NO_MATCH.format(method.spec))
    blocks = len(parts.places)
    return Solution(secret, blocks, ambiguous_blocks, parts.places.size, ambiguous_places)


def pairs_needed(method: Encryption, plain: np.ndarray, encrypted: np.ndarray, *, limit: int = 20) -> int | None:
    """Finds the smallest number n such that the estimate from the first n pairs is exact for all other pairs.

    An attacker can check this without the key: the estimate must encrypt the other plain images correctly. This is
    equivalent to decrypting them, and also works for etc's `published` and `in_place` channels.

    Args:
      method, plain, encrypted: as for `solve`.
      limit: the largest number of pairs to try; at least one pair is always left for the check.

    Returns:
      The number of pairs, or None if `limit` pairs do not suffice.

    Raises:
      UserError: see `solve`; or there are fewer than two pairs.
    """
    if len(plain) < 2:
        raise UserError("one pair leaves none to check the estimate with: give at least two")
    for count in range(1, min(limit, len(plain) - 1) + 1):
        secret = solve(method, plain[:count], encrypted[:count]).secret
        if (method.encrypt(plain[count:], secret) == encrypted[count:]).all():
            return count
    return None


def _check_pairs(plain: np.ndarray, encrypted: np.ndarray) -> None:
    if plain.ndim != 4 or plain.shape[-1] != 3 or len(plain) == 0 or plain.shape != encrypted.shape:
        raise UserError(
            f"plain images have shape {plain.shape} and encrypted ones {encrypted.shape}: give at least one pair, both "
            "[n, height, width, 3]"
        )
    if plain.dtype != np.uint8 or encrypted.dtype != np.uint8:
        raise UserError(f"plain images are {plain.dtype} and encrypted ones {encrypted.dtype}: give uint8 images")


def _hash(parts: Structure, flat: np.ndarray) -> np.ndarray:
    """Hashes the values of each site over all images, uint8 [n, places], after each transform.

    Returns uint64 [transforms, blocks, sites].
    """
    transforms, width = parts.orders.shape
    weights = np.random.default_rng(0).integers(0, 2**64, (len(flat), width), np.uint64)
    result = np.zeros((transforms, parts.places.shape[0] * parts.places.shape[1]), np.uint64)
    columns = np.arange(transforms)
    for image, weight in zip(flat, weights, strict=True):
        # Value k of a transformed site is v[orders[k]] or top - v[orders[k]]: a linear function modulo 2**64.
        kernel = np.zeros((width, transforms), np.uint64)
        signed = np.where(parts.inverted, np.uint64(0) - weight, weight)
        np.add.at(kernel, (parts.orders, columns[:, None]), signed)
        constant = (parts.inverted * (weight * np.uint64(parts.top))).sum(axis=1)
        result += (image[parts.places].reshape(-1, width).astype(np.uint64) @ kernel + constant).T
    return result.reshape(transforms, *parts.places.shape[:2])


def _match_all(parts: Structure, hashes: np.ndarray) -> tuple[Secret, int, int] | None:
    """Finds the secret and the numbers of ambiguous blocks and places; returns None if nothing matches."""
    blocks = len(parts.places)
    start = np.zeros(blocks, np.uint64) if parts.blocks_move else mix(np.arange(blocks, dtype=np.uint64))
    rows, sites, tied_ways = _refine(parts, hashes, np.stack([start, start]))
    unsure_blocks = _repeated(rows[1])
    unsure_sites = np.stack([_repeated(row) for row in sites[1]])

    # If tied blocks are not equivalent after all, fixing one of them may break the other ties.
    for chosen in range(blocks):
        order = _pair(rows[0], rows[1], parts.staying[0])
        found = None if order is None else _match_sites(parts, hashes, order)
        if found is not None or not _repeated(rows[1]).any():
            break
        one_more = _choose(parts, hashes, rows, chosen)
        if one_more is None:
            return None
        rows = one_more
    else:
        order = found = None
    if order is None or found is None:
        return None
    site, way = found

    # A tie between transforms only matters in places where their effects differ.
    differing = (parts.orders[:, None] != parts.orders) | (parts.inverted[:, None] != parts.inverted)
    ways = tied_ways[1].reshape(len(parts.orders), -1)
    first = differing[ways.argmax(axis=0)]
    unsure = np.einsum("ts,stw->sw", ways, first) if len(ways) > 1 else np.zeros((ways.shape[1], 1), bool)
    unsure = unsure.reshape(*unsure_sites.shape, -1) | unsure_sites[..., None]
    unsure = np.broadcast_to(unsure | unsure_blocks[:, None, None], parts.places.shape)
    return _secret(parts, order, site, way), int(unsure_blocks.sum()), int(unsure.sum())


def _refine(parts: Structure, hashes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refines colors of plain and encrypted blocks and sites together; those that correspond have equal colors.

    Args:
      parts: structure of the method.
      hashes: uint64 [2, transforms, blocks, sites], of the plain and of the encrypted images.
      rows: uint64 [2, blocks], the initial colors of blocks.

    Returns:
      The colors of blocks, uint64 [2, blocks]; the colors of sites, uint64 [2, 1 or blocks, sites]; and a mask of the
      transforms that bring a site to its canonical form, bool [2, transforms, 1 or blocks, sites].
    """
    kinds = mix(parts.kinds.astype(np.uint64))
    sites = np.broadcast_to(kinds, (2, 1, len(kinds)))
    previous = 0
    while True:
        seen = hashes
        if parts.alike:
            seen = mix(hashes + rows[:, None, :, None]).sum(axis=2, keepdims=True)
        smallest = seen.min(axis=1)
        ways = seen == smallest[:, None]
        sites = mix(smallest + sites)
        # Several transforms may give the canonical form: the sum over them does not depend on the choice.
        content = np.where(ways, mix(hashes), 0).sum(axis=1) if hashes.shape[1] > 1 else hashes[:, 0]
        rows = mix(rows + mix(content + sites).sum(axis=-1))
        distinct = len(np.unique(rows[0])) + len(np.unique(sites[0]))
        if not parts.alike or distinct == previous:
            return rows, sites, ways
        previous = distinct


def _choose(parts: Structure, hashes: np.ndarray, rows: np.ndarray, number: int) -> np.ndarray | None:
    """Matches a tied plain block to an encrypted one; returns the refined colors, or None if no choice fits."""
    plain = int(_repeated(rows[0]).argmax())
    for encrypted in np.flatnonzero(rows[1] == rows[0, plain]):
        chosen = rows.copy()
        chosen[0, plain] = chosen[1, encrypted] = mix(np.array(number + 2**32, np.uint64))
        chosen = _refine(parts, hashes, chosen)[0]
        if (np.sort(chosen[0]) == np.sort(chosen[1])).all():
            return chosen
    return None


def _match_sites(parts: Structure, hashes: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Finds the plain site and the transform of every encrypted site, given the order of the blocks.

    Returns both as int [1 or blocks, sites], or None if there is no match.
    """
    plain, encrypted = hashes[0][:, order], hashes[1]
    if parts.alike:
        number = mix(np.arange(len(order), dtype=np.uint64))[:, None]
        plain, encrypted = (mix(part + number).sum(axis=1, keepdims=True) for part in (plain, encrypted))
    kinds = mix(parts.kinds.astype(np.uint64))
    before, after = (mix(part.min(axis=0) + kinds) for part in (plain, encrypted))
    found = [_pair(first, second, parts.staying[1]) for first, second in zip(before, after, strict=True)]
    if any(row is None for row in found):
        return None
    site = np.stack([row for row in found if row is not None])
    fits = np.take_along_axis(plain, site[None], axis=-1) == encrypted[0]
    return (site, fits.argmax(axis=0)) if fits.any(axis=0).all() else None


def _pair(plain: np.ndarray, encrypted: np.ndarray, staying: int) -> np.ndarray | None:
    """Returns the plain item for each encrypted item by equal colors [n]; None if there is no bijection.

    At least `staying` items are known to keep their places; ties are broken in favor of that.
    """
    if staying:
        same, equals = plain == encrypted, _repeated(encrypted)
        sure = same & ~equals
        guessed = same & equals
        stay = sure | (guessed & (np.cumsum(guessed) <= staying - sure.sum()))
        number = np.arange(len(plain), dtype=np.uint64)
        plain, encrypted = (np.where(stay, mix(part + mix(number)), part) for part in (plain, encrypted))
    first, second = np.argsort(plain, kind="stable"), np.argsort(encrypted, kind="stable")
    if (plain[first] != encrypted[second]).any():
        return None
    order = np.empty(len(plain), np.int64)
    order[second] = first
    return order


def _repeated(colors: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(colors, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def _match_lossy(parts: Structure, hashes: np.ndarray) -> tuple[Secret, int, int] | None:
    """Matches like `_match_all`, for transforms that lose information and therefore have no canonical form.

    Every encrypted (sub-)block is looked up among all transforms of all plain ones.
    """
    plain, encrypted = hashes[0].reshape(len(parts.orders), -1), hashes[1][0].reshape(-1)
    count = len(encrypted)
    by_value = np.argsort(plain, axis=None)
    ordered = plain.reshape(-1)[by_value]
    begin, end = (np.searchsorted(ordered, encrypted, side) for side in ("left", "right"))
    rows = np.repeat(np.arange(count), end - begin)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
    way, column = np.divmod(by_value[begin[rows] + within], count)
    graph = csr_array((np.ones(len(rows), bool), (rows, column)), shape=(count, count))
    matched = maximum_bipartite_matching(graph, perm_type="column")
    if (matched < 0).any():
        return None
    chosen = matched[rows] == column
    ways = np.zeros(count, np.int64)
    ways[rows[chosen]] = way[chosen]
    unsure = np.bincount(rows, minlength=count) > 1
    sites = parts.places.shape[1]
    flat = parts.places.reshape(count, -1)
    index, mask = np.empty(flat.size, np.int32), np.zeros(flat.size, np.uint8)
    index[flat] = np.take_along_axis(flat[matched], parts.orders[ways], axis=1)
    mask[flat] = parts.inverted[ways] * np.uint8(parts.top)
    secret = {"index": index, "mask": mask}
    blocks = unsure.reshape(-1, sites).any(axis=1)
    return secret, int(blocks.sum()), int(unsure.sum()) * flat.shape[1]


def _secret(parts: Structure, order: np.ndarray, site: np.ndarray, way: np.ndarray) -> Secret:
    site, way = (np.broadcast_to(part, parts.places.shape[:2]) for part in (site, way))
    source = np.take_along_axis(parts.places[order], site[..., None], axis=1)
    index = np.empty(parts.places.size, np.int32)
    index[parts.places] = np.take_along_axis(source, parts.orders[way], axis=-1)
    if not parts.inverted.any():
        return {"index": index}
    mask = np.empty(parts.places.size, np.uint8)
    mask[parts.places] = parts.inverted[way] * np.uint8(parts.top)
    return {"index": index, "mask": mask}
