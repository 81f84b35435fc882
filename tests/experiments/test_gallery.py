import json

import numpy as np
import pytest
from helpers.command import make_key, run_ppvit
from PIL import Image
from scipy.ndimage import uniform_filter

from ppvit_jax import keys
from ppvit_jax.encryption import METHODS, parse
from ppvit_jax.experiments import figures


def _picture(folder, size=64):
    rows, columns = np.mgrid[:size, :size]
    image = np.stack([rows * 3, columns * 3, rows + columns], axis=-1).astype(np.uint8)
    Image.fromarray(image).save(folder / "image.png")
    return image


def _similarity(one, other):
    """Returns the structural similarity with a uniform window of 7, mean over channels (Wang et al. 2004)."""
    values = []
    for x, y in zip(np.moveaxis(one, -1, 0).astype(float), np.moveaxis(other, -1, 0).astype(float), strict=True):
        mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
        sample = 49 / 48
        variance_x = sample * (uniform_filter(x * x, 7) - mean_x**2)
        variance_y = sample * (uniform_filter(y * y, 7) - mean_y**2)
        covariance = sample * (uniform_filter(x * y, 7) - mean_x * mean_y)
        a, b = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        map_ = (2 * mean_x * mean_y + a) * (2 * covariance + b)
        map_ /= (mean_x**2 + mean_y**2 + a) * (variance_x + variance_y + b)
        values.append(map_[3:-3, 3:-3].mean())
    return np.mean(values)


@pytest.mark.slow
def test_every_encryption_is_drawn_and_measured(tmp_path, monkeypatch):
    plain, key = _picture(tmp_path), make_key(tmp_path)
    drawn = []
    real = figures.draw_gallery
    monkeypatch.setattr(figures, "draw_gallery", lambda *arguments: (drawn.append(arguments[0]), real(*arguments)))
    arguments = ["--image-size=64", "--block-size=8", f"--key={key}", f"--image={tmp_path / 'image.png'}"]
    assert run_ppvit("reproduce", "gallery", f"--output={tmp_path / 'out'}", *arguments) == 0
    (pictures,) = drawn
    assert [picture[0] for picture in pictures] == ["Plain", *(method.title for method in METHODS.values())]
    np.testing.assert_array_equal(pictures[0][1], plain)
    rows = {row["encryption"]: row for row in json.loads((tmp_path / "out" / "gallery.json").read_text())["rows"]}
    assert set(rows) == set(METHODS)
    for (_, picture, similarity, ratio), name in zip(pictures[1:], METHODS, strict=True):
        if name in ("neuracrypt", "color-neuracrypt"):
            assert similarity is None and ratio is None and picture.dtype == np.uint8
            continue
        method = parse(name, 4 if name in ("le", "ele") else 8)
        encrypted = method.encrypt(plain, method.derive(keys.load(key), height=64, width=64))
        np.testing.assert_array_equal(picture, encrypted)
        error = np.square(plain.astype(float) - encrypted).mean()
        assert (rows[name]["ssim"], rows[name]["psnr"]) == (similarity, ratio)
        assert ratio == pytest.approx(10 * np.log10(255**2 / error), abs=1e-9)
        assert similarity == pytest.approx(_similarity(plain, encrypted), abs=1e-6)
    with Image.open(tmp_path / "out" / "gallery.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 1000
    text = (tmp_path / "out" / "gallery.md").read_text()
    assert text.count("not an image") == 2 and "Color-NeuraCrypt (reconstruction)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-size=60"], "not a multiple of the block size 16"),
        (["--image-size=8"], "at least 16"),
        (["--image=nowhere.png"], "cannot read nowhere.png"),
        (["--key=nowhere.key"], "cannot read the key file nowhere.key"),
    ],
)
def test_mistakes_give_one_line(tmp_path, capsys, arguments, message):
    assert run_ppvit("reproduce", "gallery", f"--output={tmp_path}", *arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
