"""DINOv3, compared with Hugging Face's implementation, and its rotary positions."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.pytorch import torch, transformers

from checkpoints_convert.names import (
    BIAS_OF_HEADS,
    CONVOLUTION,
    DENSE,
    FROM_HEADS,
    TO_HEADS,
    Entry,
    both,
    norm,
    to_google,
)
from ppvit_jax import adaptation, models
from ppvit_jax.config import default_config
from ppvit_jax.encryption import Permutations
from ppvit_jax.errors import UserError
from ppvit_jax.models.dinov3 import FAMILY
from ppvit_jax.models.rotary import grid_angles
from ppvit_jax.training.step import compile_steps

_BLOCK = "Transformer/encoderblock_{}"
_ATTENTION = f"{_BLOCK}/MultiHeadDotProductAttention_1"
_TABLE = (
    Entry("embeddings.cls_token", ("cls",)),
    Entry("embeddings.register_tokens", ("registers",)),
    *both("embeddings.patch_embeddings", "embedding", CONVOLUTION),
    *norm("layer.{}.norm1", f"{_BLOCK}/LayerNorm_0"),
    *(
        entry
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"))
        for entry in (
            Entry(f"layer.{{}}.attention.{theirs}_proj.weight", (f"{_ATTENTION}/{ours}/kernel",), TO_HEADS),
            Entry(f"layer.{{}}.attention.{theirs}_proj.bias", (f"{_ATTENTION}/{ours}/bias",), BIAS_OF_HEADS),
        )
    ),
    *both("layer.{}.attention.o_proj", f"{_ATTENTION}/out", FROM_HEADS),
    Entry("layer.{}.layer_scale1.lambda1", (f"{_BLOCK}/LayerScale_0/lambda1",)),
    *norm("layer.{}.norm2", f"{_BLOCK}/LayerNorm_2"),
    *both("layer.{}.mlp.up_proj", f"{_BLOCK}/MlpBlock_3/Dense_0", DENSE),
    *both("layer.{}.mlp.down_proj", f"{_BLOCK}/MlpBlock_3/Dense_1", DENSE),
    Entry("layer.{}.layer_scale2.lambda1", (f"{_BLOCK}/LayerScale_1/lambda1",)),
    *norm("norm", "Transformer/encoder_norm"),
)


def _reference(gated: bool) -> Any:
    """Returns Hugging Face's model with random parameters."""
    torch.manual_seed(0)
    config = transformers.DINOv3ViTConfig(
        num_hidden_layers=2, num_register_tokens=4, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu"
    )
    model = transformers.DINOv3ViTModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05 + 0.02)
    return model


def _features(name: str, state: dict[str, np.ndarray], image_size: int) -> tuple[models.Model, dict]:
    """Returns our model, whose head passes on the features, with the reference's parameters."""
    config: Any = models.parse_name(name, image_size=image_size, num_classes=384)
    config = dataclasses.replace(config, layers=2)
    arrays = dict(state)
    for layer in range(2):
        arrays[f"layer.{layer}.attention.k_proj.bias"] = np.zeros(384, np.float32)
        if config.gated:
            for kind in ("weight", "bias"):
                gate = arrays.pop(f"layer.{layer}.mlp.gate_proj.{kind}")
                up = arrays[f"layer.{layer}.mlp.up_proj.{kind}"]
                arrays[f"layer.{layer}.mlp.up_proj.{kind}"] = np.concatenate([gate, up])
    arrays.pop("embeddings.mask_token")
    params = to_google(arrays, _TABLE, heads=6, where="it")
    params |= {"head/kernel": np.eye(384, dtype=np.float32), "head/bias": np.zeros(384, np.float32)}
    params[FAMILY.positions] = grid_angles(image_size // 16, 64, 100.0)[None]
    assert {key: array.shape for key, array in params.items()} == models.parameter_shapes(config)
    return models.build(config), unflatten_dict(params, sep="/")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), [("DINOv3-S/16", 224), ("DINOv3-S/16", 96), ("DINOv3-S+/16", 96)])
def test_features_are_those_of_hugging_face(name, image_size):
    reference = _reference("+" in name)
    state = {key.removeprefix("model."): value.numpy() for key, value in reference.state_dict().items()}
    model, params = _features(name, state, image_size)
    images = np.random.default_rng(0).normal(size=(2, image_size, image_size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).pooler_output.numpy()
    np.testing.assert_allclose(jax.jit(model.apply)(params, images), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.01


def test_the_angles_of_another_grid_are_computed_anew_but_not_if_they_are_permuted():
    assert FAMILY.resize is not None
    angles = grid_angles(4, 32, 100.0)[None]
    np.testing.assert_array_equal(FAMILY.resize(angles, 7), grid_angles(7, 32, 100.0)[None])
    order = np.random.default_rng(0).permutation(16)
    permuted = adaptation.adapt({"Transformer": {"rotary": {"angles": angles}}}, Permutations(block=order))
    np.testing.assert_array_equal(permuted["Transformer"]["rotary"]["angles"], angles[:, order])
    with pytest.raises(UserError, match="restore the model first"):
        FAMILY.resize(permuted["Transformer"]["rotary"]["angles"], 7)


@pytest.mark.slow
def test_no_optimizer_changes_the_angles():
    settings = default_config()
    settings.encryption, settings.optimizer.weight_decay = "none", 0.5
    config: Any = models.parse_name("DINOv3-S/16", image_size=32, num_classes=3)
    config = dataclasses.replace(config, layers=1, hidden_size=16, heads=2, mlp_size=16)
    params = jax.device_get(models.build(config).init(jax.random.key(0)))
    steps = compile_steps(config, settings, 1)
    batch = {"image": np.zeros((2, 32, 32, 3), np.uint8), "label": np.zeros(2, np.int32)}
    before = np.array(params["Transformer"]["rotary"]["angles"])
    trained = steps.train_step(steps.init_state(params, {}), batch, jax.random.key(0), None)["params"]
    np.testing.assert_array_equal(trained["Transformer"]["rotary"]["angles"], before)
    assert (trained["cls"] == params["cls"]).all() == (params["cls"] == 0).all()
