"""Decoding of every kind of image, checked by formulas in NumPy."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from ppvit_jax.data import images
from ppvit_jax.errors import UserError

LIMIT = 10_000


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = images.decode(data, name="x.png", max_pixels=LIMIT)
    assert image.mode == "RGB"
    array = np.asarray(image)
    assert array.dtype == np.uint8
    return array


def noise(*shape: int, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_kinds_keep_every_value(kind):
    # A GIF has a palette, so it gets few colors.
    pixels = noise(9, 7, 3) if kind != "GIF" else noise(9, 7, 1, top=16) * np.array([16, 5, 1], np.uint8)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(pixels), kind)), pixels)


def test_grayscale_becomes_three_equal_channels():
    gray = noise(5, 6)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(gray))), np.stack([gray] * 3, -1))


def test_one_bit_becomes_black_and_white():
    bits = noise(5, 6, top=2).astype(bool)
    data = encoded(Image.fromarray(bits))
    assert Image.open(io.BytesIO(data)).mode == "1"
    np.testing.assert_array_equal(decoded(data), np.stack([bits * np.uint8(255)] * 3, -1))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_composited_on_white(channels):
    pixels = noise(16, 16, channels)
    pixels[0, 0, -1], pixels[0, 1, -1] = 0, 255
    color, alpha = pixels[..., :-1].astype(float), pixels[..., -1:] / 255
    expected = np.broadcast_to(color * alpha + 255 * (1 - alpha), (16, 16, channels - 1))
    if channels == 2:
        expected = np.repeat(expected, 3, -1)
    result = decoded(encoded(Image.fromarray(pixels, {2: "LA", 4: "RGBA"}[channels])))
    assert np.abs(result - expected).max() <= 1
    assert (result[0, 0] == 255).all()
    np.testing.assert_array_equal(result[0, 1], np.broadcast_to(pixels[0, 1, :-1], 3))


def test_palette():
    colors, index = noise(16, 3), noise(6, 5, top=16)
    image = Image.fromarray(index)
    image.putpalette(colors.tobytes())
    np.testing.assert_array_equal(decoded(encoded(image)), colors[index])
    colors[3] = 255
    np.testing.assert_array_equal(decoded(encoded(image, transparency=3)), colors[index])


def test_transparent_color_becomes_white():
    pixels = noise(4, 4, 3)
    expected = pixels.copy()
    expected[2, 1] = 255
    transparent = tuple(int(value) for value in pixels[2, 1])
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(pixels), transparency=transparent)), expected)


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.arange(65536, dtype=np.uint16)[::7].copy()
    values = values[: 96 * 97].reshape(96, 97)
    data = encoded(Image.fromarray(values))
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    np.testing.assert_array_equal(decoded(data)[..., 1], np.rint(values / 257))


def test_transparent_value_of_sixteen_bits_becomes_white():
    values = np.array([[0, 1000, 40_000], [1000, 1001, 65535]], np.uint16)
    result = decoded(encoded(Image.fromarray(values), transparency=1000))[..., 0]
    np.testing.assert_array_equal(result, [[0, 255, 156], [255, 4, 255]])


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_deep_tiff(dtype):
    values = noise(8, 8, top=65536, dtype=np.int32)
    values[0, :2] = 0, 65535
    stored = values if dtype is np.int32 else (values / 65535).astype(np.float32)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(stored), "TIFF"))[..., 2], np.rint(values / 257))


@pytest.mark.parametrize("value", [-1, 65536, 1.5, -0.1, float("nan")])
def test_values_beyond_16_bits_are_refused(value):
    values = np.zeros((4, 4), np.float32 if isinstance(value, float) else np.int32)
    values[1, 2] = value
    with pytest.raises(UserError, match=r"x\.png has .*values.*8 bits"):
        decoded(encoded(Image.fromarray(values), "TIFF"))


def test_cmyk():
    ink = noise(8, 8, 4)
    expected = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    result = decoded(encoded(Image.fromarray(ink, "CMYK"), "TIFF"))
    assert np.abs(result - expected).max() <= 1


def test_first_frame_of_an_animation():
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    result = decoded(encoded(first, "GIF", save_all=True, append_images=[second]))
    np.testing.assert_array_equal(result, np.broadcast_to([255, 0, 0], (4, 4, 3)))


# Operations by which a viewer turns the stored rows and columns upright: the EXIF specification's orientations.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation):
    stored = noise(5, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decoded(encoded(Image.fromarray(stored), exif=exif))
    np.testing.assert_array_equal(result, UPRIGHT[orientation](stored))


def test_too_large_names_file_and_size():
    data = encoded(Image.new("L", (LIMIT // 100 + 1, 100)))
    with pytest.raises(UserError, match=r"x\.png has 101 x 100 pixels, more than the 10,000 .*max_pixels"):
        decoded(data)
    assert decoded(encoded(Image.new("L", (LIMIT // 100, 100)))).shape == (100, 100, 3)


def test_beyond_pillows_own_limit_is_a_user_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"x\.png: Image size \(400 pixels\)"):
        decoded(encoded(Image.new("L", (20, 20))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_names_the_file(kind):
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    for length in (1, len(data) // 2, len(data) - 200):
        with pytest.raises(UserError, match=r"x\.png .*replace or remove") as caught:
            decoded(data[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_not_an_image(data):
    with pytest.raises(UserError, match=r"x\.png"):
        decoded(data)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        images.decode(tmp_path / "x.png", name="x.png", max_pixels=LIMIT)


@pytest.mark.parametrize("resize", ["centre_crop", "squash"])
def test_an_image_of_the_size_is_untouched(resize):
    pixels = noise(24, 24, 3)
    np.testing.assert_array_equal(images.fit(Image.fromarray(pixels), 24, resize), pixels)


@pytest.mark.parametrize("shape", [(24, 40), (24, 41), (40, 24), (57, 24)])
def test_crop_of_the_right_shorter_side_copies_the_center(shape):
    pixels = noise(*shape, 3)
    top, left = (shape[0] - 24) // 2, (shape[1] - 24) // 2
    np.testing.assert_array_equal(
        images.fit(Image.fromarray(pixels), 24, "centre_crop"), pixels[top : top + 24, left : left + 24]
    )


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (90, 150)])
def test_crop_equals_resizing_the_shorter_side_and_then_cropping(shape):
    image = Image.fromarray(noise(*shape, 3))
    height, width = (30 * side // min(shape) for side in shape)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    top, left = (height - 30) // 2, (width - 30) // 2
    expected = whole[top : top + 30, left : left + 30]
    assert np.abs(images.fit(image, 30, "centre_crop") - expected).max() <= 1


def test_squash_sees_the_whole_image():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    squashed = images.fit(Image.fromarray(pixels), 30, "squash")
    # Ten of thirty columns come from the center.
    assert (squashed[:, 12:18] == 200).all() and (squashed[:, :8] == 0).all() and (squashed[:, 22:] == 0).all()


def test_shrinking_averages():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    small = images.fit(Image.fromarray(checks.astype(np.uint8)).convert("RGB"), 8, "squash")
    assert np.abs(small[1:-1, 1:-1].astype(int) - 127).max() <= 3


def test_extreme_aspect_ratio_stays_small():
    assert images.fit(Image.new("RGB", (1, 9_000)), 32, "centre_crop").shape == (32, 32, 3)


def test_a_reader_decodes_paths_and_bytes_and_resizes_them_or_not(tmp_path):
    pixels = noise(24, 40, 3)
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(pixels)))
    keeping = images.ImageReader(None, "squash", LIMIT)
    for resize in images.RESIZES:
        reader = images.ImageReader(16, resize, LIMIT)
        expected = images.fit(Image.fromarray(pixels), 16, resize)
        for file in (path, path.read_bytes()):
            np.testing.assert_array_equal(reader.decode(file, "x.png"), expected)
            np.testing.assert_array_equal(keeping.decode(file, "x.png"), pixels)
        np.testing.assert_array_equal(reader.read(path), expected)
    with pytest.raises(UserError, match=r"x\.png has 40 x 24 pixels, more than the 959 allowed"):
        images.ImageReader(16, "squash", 959).read(path)


def test_a_reader_compares_a_file_with_the_manifests_sha256(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(noise(8, 8, 3))))
    reader = images.ImageReader(None, "squash", LIMIT)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(reader.read(path, sha256), noise(8, 8, 3))
    # The empty string stands for a file that is not in the manifest.
    for wrong in ("0" * 64, ""):
        with pytest.raises(UserError, match=r"x\.png is not the file that the manifest describes"):
            reader.read(path, wrong)
    with pytest.raises(UserError, match=r"cannot read .*absent\.png \(No such file or directory\): replace or remove"):
        reader.read(tmp_path / "absent.png", sha256)


def test_formats_that_are_no_pixels_are_not_decoded(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    with pytest.raises(UserError, match="is not an image that can be read"):
        images.decode(tmp_path / "a.png", name="a.png", max_pixels=LIMIT)


def test_a_heic_image_is_named_as_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 20)
    for file in (tmp_path / "a.jpg", (tmp_path / "a.jpg").read_bytes()):
        with pytest.raises(UserError, match=r"a.jpg is a HEIC image, which Pillow does not read here: convert it"):
            images.decode(file, name="a.jpg", max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["TGA", "PPM", "JPEG2000", "PCX", "SGI", "QOI", "DDS", "ICO"])
def test_rarer_kinds_of_pixels_are_decoded(kind):
    pixels = noise(16, 16, 3)
    try:
        data = encoded(Image.fromarray(pixels), kind)
    except (KeyError, OSError):
        pytest.skip(f"Pillow does not write {kind} here")
    image = images.decode(data, name="x.tga" if kind == "TGA" else "x", max_pixels=LIMIT)
    assert image.size == (16, 16) and image.mode == "RGB"
