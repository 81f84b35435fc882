from PIL import Image

from benchmarks.input_path import write_photographs
from ppvit_jax import data
from ppvit_jax.config import default_config


def test_photographs_are_a_data_set_of_various_sizes(tmp_path):
    write_photographs(tmp_path, 20, ".png", 300)
    sizes = {Image.open(path).size for path in tmp_path.rglob("*.png")}
    assert len(sizes) > 15 and all(300 <= side <= 500 for size in sizes for side in size)
    fields = default_config().data
    fields.source, fields.dir = "image_folder", str(tmp_path)
    dataset = data.load(fields, 32)
    assert (len(dataset.train), len(dataset.test)) == (18, 2) and len(dataset.class_names) == 2
    assert dataset.train.fetch(0).std() > 10
