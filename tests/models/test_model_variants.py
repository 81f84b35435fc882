"""Models of every family, compiled or not: their logits agree with one computation in float64."""

import dataclasses
from typing import Any

import chex
import jax
import numpy as np
import pytest
from absl.testing import parameterized
from helpers.tiny import random_params, tiny_model

from ppvit_jax import models
from ppvit_jax.models.convmixer import ConvMixerConfig
from ppvit_jax.models.neuracrypt import NeuraCryptConfig
from ppvit_jax.models.pyramidnet import PyramidNetConfig
from ppvit_jax.models.resnet import ResNetConfig

pytestmark = pytest.mark.slow

CONFIGS: dict[str, Any] = {
    "vit": tiny_model(),
    "convmixer": ConvMixerConfig(
        hidden_size=16, depth=1, patch_size=4, kernel_size=3, image_size=16, num_classes=3, adaptive_matrix="softmax"
    ),
    "resnet": ResNetConfig("cifar", image_size=8, num_classes=3),
    "pyramidnet": PyramidNetConfig(depth=8, alpha=4, image_size=8, num_classes=3, adaptation_network="le"),
    "neuracrypt": NeuraCryptConfig(image_size=16, num_classes=3, encoding_patch_size=8, width=16, heads=2),
}
WITH_AND_WITHOUT_JIT: Any = chex.variants(with_jit=True, without_jit=True)


def _arguments(config):
    """Returns parameters, inputs and statistics."""
    inputs = np.random.default_rng(0).standard_normal((2, *models.input_shape(config))).astype(np.float32)
    statistics = jax.jit(models.build(config).init_statistics)(jax.random.key(0))
    return random_params(config), inputs, jax.device_get(statistics)


class VariantsTest(chex.TestCase):
    @WITH_AND_WITHOUT_JIT
    @parameterized.named_parameters(*CONFIGS.items())
    def test_logits_are_those_of_float64(self, config):
        arguments = _arguments(config)
        with jax.enable_x64(True):
            precise = models.build(dataclasses.replace(config, dtype="float64"))
            expected = np.asarray(jax.jit(precise.apply)(*arguments))
        assert expected.dtype == np.float64 and expected.std() > 0.05
        logits = self.variant(models.build(config).apply)(*arguments)
        assert logits.dtype == np.float32
        chex.assert_trees_all_close(logits, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_every_family_is_among_them():
    names = {"ViT-B/16", "ConvMixer-256/8", "ResNet-18", "PyramidNet-110/270", "NeuraCrypt-2048/16"}
    families = {type(models.parse_name(name, image_size=32, num_classes=3)) for name in names}
    assert {type(config) for config in CONFIGS.values()} == families
