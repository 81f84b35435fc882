"""Recovers a key's effect from images and their encryptions: a known-plaintext attack.

Whatever permutes and inverts values is undone by matching: Li et al. (Signal Processing: Image Communication 2008) and
Jolfaei, Wu and Muthukkumarasamy (IEEE TIFS 2016) for permutations. Blocks and the things that move inside them are told
apart by colour refinement (Weisfeiler and Lehman 1968): what a block holds tells the blocks apart, where blocks differ
tells the values apart, and so on in turn.
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

    secret: an estimate of the method's secret that turns each given image into its encryption. `method.decrypt` with it
      decrypts others as far as nothing is ambiguous; but for etc's `legacy` channels, which nothing decrypts, and whose
      secret is good for encrypting alone.
    blocks: of an image; 1 where a method has none.
    ambiguous_blocks: how many of them look like another one in the pairs, so that their places are a guess.
    places: of an image: values, or four-bit halves of values for le and ele.
    ambiguous_places: how many of them could also come from another place, or be inverted the other way. An upper bound:
      what is alike in the first respect may differ when all is put together.
    """

    secret: Secret
    blocks: int
    ambiguous_blocks: int
    places: int
    ambiguous_places: int


def solve(method: Encryption, plain: np.ndarray, encrypted: np.ndarray) -> Solution:
    """Finds how a key permutes and inverts, from images and their encryptions.

    Ties are resolved arbitrarily, but always to a bijection that is exact for the given pairs.

    Args:
      method: with the right block size; no key.
      plain: uint8 [n, height, width, 3].
      encrypted: uint8 [n, height, width, 3], in the same order.

    Raises:
      UserError: a method with keys of their own for every image, of which nothing carries over to others; a method that
        encodes; arrays of other types or sizes; or pairs that no key explains.
    """
    if method.encodes:
        raise UserError(f"encryption {method.spec} encodes images and moves no values: learn a decoder from the pairs")
    if method.per_image:
        raise UserError(
            f"encryption {method.spec} has a key for every image: pairs tell the keys of their own images alone, and "
            "nothing of others; use a dictionary of candidate images"
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
    """Finds the smallest number n of pairs such that the estimate from the first n is exact for all others.

    An attacker can check that without the key. The check is that the estimate encrypts the plain images of the other
    pairs correctly, which is the same as decrypting them, and possible for etc's `legacy` channels too.

    Args:
      method, plain, encrypted: as for `solve`.
      limit: try no more pairs than this, and leave at least one to check with.

    Returns:
      The number, or None if `limit` pairs do not suffice.

    Raises:
      UserError: as `solve`; or fewer than two pairs.
    """
    if len(plain) < 2:
        raise UserError("one pair leaves none to check with: give at least two")
    for count in range(1, min(limit, len(plain) - 1) + 1):
        secret = solve(method, plain[:count], encrypted[:count]).secret
        if (method.encrypt(plain[count:], secret) == encrypted[count:]).all():
            return count
    return None


def _check_pairs(plain: np.ndarray, encrypted: np.ndarray) -> None:
    if plain.ndim != 4 or plain.shape[-1] != 3 or len(plain) == 0 or plain.shape != encrypted.shape:
        raise UserError(
            f"pairs of shapes {plain.shape} and {encrypted.shape}: give at least one image and as many encryptions, "
            "[n, height, width, 3] both"
        )
    if plain.dtype != np.uint8 or encrypted.dtype != np.uint8:
        raise UserError(f"pairs of {plain.dtype} and {encrypted.dtype}: give uint8 images")


def _hash(parts: Structure, flat: np.ndarray) -> np.ndarray:
    """uint64 [transforms, blocks, sites]: what sites hold in all images, uint8 [n, places], after each transform."""
    transforms, width = parts.orders.shape
    weights = np.random.default_rng(0).integers(0, 2**64, (len(flat), width), np.uint64)
    result = np.zeros((transforms, parts.places.shape[0] * parts.places.shape[1]), np.uint64)
    columns = np.arange(transforms)
    for image, weight in zip(flat, weights, strict=True):
        # Value k of a transformed site is value `orders[k]`, or the top less it: a linear function modulo 2**64.
        kernel = np.zeros((width, transforms), np.uint64)
        signed = np.where(parts.inverted, np.uint64(0) - weight, weight)
        np.add.at(kernel, (parts.orders, columns[:, None]), signed)
        constant = (parts.inverted * (weight * np.uint64(parts.top))).sum(axis=1)
        result += (image[parts.places].reshape(-1, width).astype(np.uint64) @ kernel + constant).T
    return result.reshape(transforms, *parts.places.shape[:2])


def _match_all(parts: Structure, hashes: np.ndarray) -> tuple[Secret, int, int] | None:
    """The secret, ambiguous blocks and ambiguous places, from hashes [2, transforms, blocks, sites]; or None."""
    blocks = len(parts.places)
    start = np.zeros(blocks, np.uint64) if parts.blocks_move else mix(np.arange(blocks, dtype=np.uint64))
    rows, sites, tied_ways = _refine(parts, hashes, np.stack([start, start]))
    unsure_blocks = _repeated(rows[1])
    unsure_sites = np.stack([_repeated(row) for row in sites[1]])

    # Where what ties hide is not all the same, choosing one block may tell others apart.
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

    # A tie between transforms counts where they differ in what they do to the place.
    differing = (parts.orders[:, None] != parts.orders) | (parts.inverted[:, None] != parts.inverted)
    ways = tied_ways[1].reshape(len(parts.orders), -1)
    first = differing[ways.argmax(axis=0)]
    unsure = np.einsum("ts,stw->sw", ways, first) if len(ways) > 1 else np.zeros((ways.shape[1], 1), bool)
    unsure = unsure.reshape(*unsure_sites.shape, -1) | unsure_sites[..., None]
    unsure = np.broadcast_to(unsure | unsure_blocks[:, None, None], parts.places.shape)
    return _secret(parts, order, site, way), int(unsure_blocks.sum()), int(unsure.sum())


def _refine(parts: Structure, hashes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour refinement of plain and encrypted together: equal colours look alike, however they moved.

    Args:
      hashes: uint64 [2, transforms, blocks, sites], of plain and encrypted.
      rows: uint64 [2, blocks], the blocks' first colours.

    Returns:
      The colours of blocks, uint64 [2, blocks], and of sites, uint64 [2, 1 or blocks, sites]; and which transforms
      bring a site to its canonical form, bool [2, transforms, 1 or blocks, sites].
    """
    kinds = mix(parts.kinds.astype(np.uint64))
    sites = np.broadcast_to(kinds, (2, 1, len(kinds)))
    known = 0
    while True:
        seen = hashes
        if parts.alike:
            seen = mix(hashes + rows[:, None, :, None]).sum(axis=2, keepdims=True)
        smallest = seen.min(axis=1)
        ways = seen == smallest[:, None]
        sites = mix(smallest + sites)
        # Several transforms give the canonical form: what is the same for all of them counts.
        content = np.where(ways, mix(hashes), 0).sum(axis=1) if hashes.shape[1] > 1 else hashes[:, 0]
        rows = mix(rows + mix(content + sites).sum(axis=-1))
        distinct = len(np.unique(rows[0])) + len(np.unique(sites[0]))
        if not parts.alike or distinct == known:
            return rows, sites, ways
        known = distinct


def _choose(parts: Structure, hashes: np.ndarray, rows: np.ndarray, number: int) -> np.ndarray | None:
    """Takes one of the encrypted blocks of a colour for a plain one, where all that follows fits; None if none does."""
    plain = int(_repeated(rows[0]).argmax())
    for encrypted in np.flatnonzero(rows[1] == rows[0, plain]):
        chosen = rows.copy()
        chosen[0, plain] = chosen[1, encrypted] = mix(np.array(number + 2**32, np.uint64))
        chosen = _refine(parts, hashes, chosen)[0]
        if (np.sort(chosen[0]) == np.sort(chosen[1])).all():
            return chosen
    return None


def _match_sites(parts: Structure, hashes: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """For every encrypted site the plain one and the transform, int [1 or blocks, sites] both, given the blocks' order;
    None if there are none."""
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
    """The plain one for each encrypted one, of equal colours [n]; None if there is no bijection.

    staying: how many are known to stay in their places; among equals these are preferred.
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


def _repeated(colours: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(colours, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def _match_lossy(parts: Structure, hashes: np.ndarray) -> tuple[Secret, int, int] | None:
    """As `_match_all` where transforms lose information and so have no canonical form: every encrypted (sub-)block is
    looked up among all that plain ones can become, one by one."""
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
