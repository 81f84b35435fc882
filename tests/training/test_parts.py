"""Choice of the number of parts in which a training step computes its batch."""

import pytest
from helpers.small_networks import small_config
from hypothesis import given
from hypothesis import strategies as st

from ppvit_jax import models
from ppvit_jax.config import make_model
from ppvit_jax.training.parts import count_parts


def _model(name="ViT-B/16", image_size=224):
    return models.parse_name(name, image_size=image_size, num_classes=10, dtype="bfloat16")


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_other_devices_compute_a_batch_whole(platform):
    assert count_parts(0, _model(), platform, 512) == 1


def test_a_configured_number_of_parts_is_taken():
    assert [count_parts(4, _model(), platform, 128) for platform in ("cpu", "gpu", "tpu")] == [4, 4, 4]
    assert count_parts(1, _model(), "tpu", 128) == 1


@pytest.mark.parametrize(
    ("name", "image_size", "images", "parts"),
    [
        ("ViT-B/16", 224, 16, 1),
        ("ViT-B/16", 224, 32, 2),
        ("ViT-B/16", 224, 128, 8),
        # Parts of 12, and not of 16.
        ("ViT-B/16", 224, 24, 2),
        # No divisor is near 16.
        ("ViT-B/16", 224, 37, 1),
        ("ViT-Ti/16", 224, 128, 2),
        # Images of many tokens are not computed one by one.
        ("ViT-B/16", 384, 24, 4),
        ("DINOv2-B/14", 224, 8, 1),
        ("DINOv2-B/14", 224, 64, 8),
    ],
)
def test_a_tpu_computes_large_batches_in_parts(name, image_size, images, parts):
    assert count_parts(0, _model(name, image_size), "tpu", images) == parts


def test_models_with_statistics_of_a_batch_keep_it_whole():
    """Their result would depend on the number of parts."""
    assert count_parts(0, make_model(small_config("convmixer"), 3), "tpu", 1024) == 1


@given(images=st.integers(1, 5000), size=st.sampled_from(["Ti", "S", "B", "L"]), side=st.sampled_from([32, 224, 384]))
def test_parts_are_equal_and_have_many_tokens_each(images, size, side):
    config = _model(f"ViT-{size}/16", side)
    assert isinstance(config, models.ViTConfig)
    parts = count_parts(0, config, "tpu", images)
    assert images % parts == 0
    assert parts == 1 or images // parts * (config.grid_size**2 + 1) >= 1_500
