"""Identity of the images that a command works on: a digest of the list of files and of their content."""

from __future__ import annotations

import hashlib
import json

from ppvit_jax.data import manifest as manifests
from ppvit_jax.data.hashing import digest_of, hash_files
from ppvit_jax.data.listing import Images
from ppvit_jax.data.tfds_content import digest_records
from ppvit_jax.errors import UserError


def content_identity(images: Images) -> str:
    """Returns the SHA-256, in hexadecimal, of the images' names and content.

    A manifest's SHA-256 of each file spares reading it. A file that cannot be read counts as all zeros.
    """
    if images.digest is not None:
        return images.digest()
    if images.tfds is not None:
        splits = [[split.name, split.count] for split in images.splits]
        return digest_of([splits, digest_records(images.root, manifests.read(images.root))])
    if images.count and images.item(0).sha256 is not None:
        items = map(images.item, range(images.count))
        return digest_of([item.original, item.sha256] for item in items)
    digests = hash_files(images.count, lambda number: images.root / images.item(number).original, strict=False)
    return digest_of([images.item(number).original, row.tobytes().hex()] for number, row in enumerate(digests))


def former_identity(images: Images) -> str:
    """Returns the text by which former versions identified images: names and sizes alone.

    Raises:
      UserError: a file cannot be read.
    """
    if images.digest is not None:
        return ""  # Former versions did not read such files.
    if images.tfds is not None:
        splits = [[split.name, split.count] for split in images.splits]
        return json.dumps([images.root.parent.name, images.root.name, splits])
    digest = hashlib.sha256()
    for number in range(images.count):
        path = images.root / images.item(number).original
        try:
            digest.update(json.dumps([images.item(number).original, path.stat().st_size]).encode())
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): replace or remove it") from None
    return digest.hexdigest()
