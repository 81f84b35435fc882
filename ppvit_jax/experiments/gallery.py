"""Gallery: one image under every encryption, with its similarity to the plain image."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ppvit_jax import keys
from ppvit_jax.command_line import Number
from ppvit_jax.data import images
from ppvit_jax.encryption import METHODS, Encryption, parse, usual_block_size
from ppvit_jax.errors import SIDE, UserError, require
from ppvit_jax.experiments import figures
from ppvit_jax.experiments.reproduction import Reproduction, print_written
from ppvit_jax.files import local_path, write_json, write_text

_NUMBER = 0


def run(image: str | None, key_file: str | None, image_size: int, block_size: int, output: Path) -> None:
    """Draws gallery.png, and writes the similarities to gallery.md and gallery.json.

    A picture that shows an image plain and encrypted reveals the key. By default the key is therefore new, and is not
    saved.

    Args:
      image: an image file; None uses a photograph from scikit-learn.
      key_file: an unsealed key file; None uses a new key.
      image_size: side in pixels to which the image is cropped and resized.
      block_size: side of a block in pixels; LE and ELE have their own (see `usual_block_size`).
      output: folder of the results.

    Raises:
      UserError: a mistake that the user can correct.
    """
    require("ppvit reproduce gallery", "tables", "matplotlib", "skimage", "sklearn")
    from skimage import metrics

    key = keys.load(local_path(key_file)) if key_file else keys.generate()
    if image_size < 16:
        raise UserError(f"--image-size is {image_size}: give at least 16")
    plain = _load(image, image_size)
    pictures: list[tuple[str, np.ndarray, float | None, float | None]] = [("Plain", plain, None, None)]
    rows: list[dict[str, Any]] = []
    for method in _methods(image_size, block_size):
        secret = method.derive(key, height=image_size, width=image_size)
        encrypted = method.encrypt(plain[None], secret, np.array([_NUMBER], np.uint32))[0]
        row: dict[str, Any] = {"title": method.title, "encryption": method.spec, "block_size": method.block_size}
        if encrypted.shape == plain.shape and encrypted.dtype == np.uint8:
            row["ssim"] = metrics.structural_similarity(plain, encrypted, channel_axis=2)
            row["psnr"] = metrics.peak_signal_noise_ratio(plain, encrypted)
        else:
            encrypted = _stretch(encrypted)
        rows.append(row)
        pictures.append((method.title, encrypted, row.get("ssim"), row.get("psnr")))
    described = (
        f"{image or 'a photograph'}, {image_size}x{image_size}, blocks of {block_size} pixels (LE and ELE: "
        f"{usual_block_size('le', block_size)})"
    )
    write_text(output / "gallery.md", markdown(rows, described))
    write_json(output / "gallery.json", {"measured": described, "rows": rows})
    figures.draw_gallery(pictures, output / "gallery.png", described)
    print((output / "gallery.md").read_text())
    print_written(output, "gallery.md", "gallery.json", "gallery.png")


def markdown(rows: list[dict[str, Any]], described: str) -> str:
    """Returns the content of gallery.md."""
    lines = ["| Encryption | `--encryption` | SSIM | PSNR (dB) |", "|---|---|---:|---:|"]
    for row in rows:
        values = f"{row['ssim']:.3f} | {row['psnr']:.2f}" if "ssim" in row else "not an image |"
        lines.append(f"| {row['title']} | `{row['encryption']}` | {values} |")
    return "\n".join(
        [
            *lines,
            "",
            "Structural similarity and peak signal-to-noise ratio between the encrypted and the plain image. They "
            "show how little a viewer recognizes, not how much an attack recovers.",
            "",
            f"- Measured: {described}.",
            "",
        ]
    )


def _methods(image_size: int, block_size: int) -> list[Encryption]:
    methods = []
    for name in METHODS:
        size = usual_block_size(name, block_size)
        if image_size % size:
            raise UserError(f"--image-size is {image_size}, not a multiple of the block size {size}: give a multiple")
        methods.append(parse(name, size))
    return methods


def _load(image: str | None, image_size: int) -> np.ndarray:
    """Loads the image, or a photograph from scikit-learn: uint8 [image_size, image_size, 3]."""
    if image is None:
        from sklearn.datasets import load_sample_image

        picture = images.Image.fromarray(load_sample_image("china.jpg"))
    else:
        path = local_path(image)
        picture = images.decode(path, name=str(path), max_pixels=images.MAX_PIXELS_LIMIT)
    return images.fit(picture, image_size, "centre_crop")


def _stretch(encoding: np.ndarray) -> np.ndarray:
    """Converts an encoding to a picture, uint8: the 1st percentile becomes 0, the 99th becomes 255."""
    low, high = np.percentile(encoding, (1, 99))
    return np.rint(np.clip((encoding - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", metavar="FILE", help="image to encrypt (default: a photograph of scikit-learn's)")
    parser.add_argument("--key", metavar="FILE", help="unsealed key file (default: a new key, which is not kept)")
    for name, default in (("image", 224), ("block", 16)):
        text = f"side of the {name} in pixels (default: %(default)s)"
        parser.add_argument(f"--{name}-size", action=Number, range=SIDE, default=default, metavar="PIXELS", help=text)


REPRODUCTION = Reproduction(
    "gallery",
    "a figure of one image under every encryption",
    _add_arguments,
    lambda arguments, output: run(arguments.image, arguments.key, arguments.image_size, arguments.block_size, output),
)
