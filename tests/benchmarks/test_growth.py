import numpy as np
import pytest
from PIL import Image

from benchmarks import growth


def test_the_exponent_is_that_of_the_larger_half():
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert growth.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    # A constant part governs the small sizes alone.
    assert growth.exponent(sizes, [10.0, 10.0, 10.0, 20.0, 40.0, 80.0]) == pytest.approx(1)


@pytest.mark.slow
def test_draws_a_picture(tmp_path):
    steps = [
        {"line": line, "batch_size": size, "seconds": 0.1 * size, "program_mebibytes": 100.0 + size}
        for line in ("224x224", "384x384")
        for size in (1, 2, 4)
    ]
    encryptions = [{"line": "numpy", "images": size, "seconds": 1e-5 * size} for size in (1, 2)]
    growth.draw(steps, encryptions, "random", tmp_path / "growth.png")
    picture = np.asarray(Image.open(tmp_path / "growth.png").convert("L"))
    assert picture.shape[1] > 1000 and 0.005 < (picture < 128).mean() < 0.2
    assert len(list(tmp_path.iterdir())) == 1
