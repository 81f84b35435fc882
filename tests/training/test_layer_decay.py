"""Layer-wise learning rates, compared with timm's function and with PyTorch's optimizers."""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.oracles import file_tensors, read_tensors
from helpers.pytorch import timm, torch
from helpers.small_networks import small_config
from helpers.tiny import flatten, random_params, tiny_model

from ppvit_jax import models
from ppvit_jax.config import check, default_config, make_model
from ppvit_jax.errors import UserError
from ppvit_jax.models.families import FAMILIES as FAMILY_LIST
from ppvit_jax.models.transformer import BLOCK
from ppvit_jax.training.layer_decay import layer_scale, scale_by_layer
from ppvit_jax.training.optimizer import make_optimizer

DECAY = 0.7
OPTIM: Any = importlib.import_module("timm.optim")
LAYERS = 3
# Our name, timm's name and its arguments.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViT-S/4", "vit_small_patch16_224", {}),
    "ViT by the mean": ("ViT-S/4", "vit_small_patch16_224", {"global_pool": "avg"}),
    "DeiT distilled": ("DeiT-S/4-distilled", "deit_small_distilled_patch16_224", {}),
    "DeiT III": ("DeiT-S/4-III", "deit3_small_patch16_224", {}),
    "DINOv2": ("DINOv2-S/4", "vit_small_patch14_dinov2", {}),
    "DINOv2 with registers": ("DINOv2-S/4-registers", "vit_small_patch14_reg4_dinov2", {}),
    "DINOv2 giant": ("DINOv2-g/4", "vit_giant_patch14_dinov2", {}),
    "SigLIP": ("SigLIP-B/4", "vit_base_patch16_siglip_224", {}),
    "CLIP": ("CLIP-B/4", "vit_base_patch16_clip_224", {}),
}


def _shape(name, **fields) -> Any:
    config = models.parse_name(name, image_size=16, num_classes=3)
    return dataclasses.replace(config, layers=LAYERS, **fields)  # type: ignore[type-var]


@pytest.mark.parametrize("case", FAMILIES)
def test_the_factors_are_those_of_timm(case):
    name, theirs, arguments = FAMILIES[case]
    pool = {"pool": "mean"} if arguments else {}
    config = _shape(name, hidden_size=32, heads=2, mlp_size=128, **pool)
    model = timm.create_model(
        theirs, img_size=16, patch_size=4, embed_dim=32, depth=LAYERS, num_heads=2, num_classes=3, **arguments
    )
    groups = OPTIM.param_groups_layer_decay(model, layer_decay=DECAY)
    with torch.no_grad():
        # Each parameter's values say what factor it has.
        for group in groups:
            for tensor in group["params"]:
                tensor.fill_(group["lr_scale"])
    arrays = {name: np.unique(array) for name, array in read_tensors(file_tensors(model), config, "timm").items()}
    factors = {name: layer_scale(config, DECAY, name) for name in models.parameter_shapes(config)}
    fixed = models.family_of(config).fixed
    compared = [name for name in factors if name in arrays and name not in fixed]
    assert len(compared) > 12 * LAYERS and len({factors[name] for name in compared}) == LAYERS + 2
    for name in compared:
        # timm counts the last normalization to the last block, and MAE, as we do, to the layers after it.
        expected = factors[name] * DECAY if name.startswith("Transformer/encoder_norm/") and not pool else factors[name]
        np.testing.assert_allclose(arrays[name], [expected], rtol=1e-6, err_msg=name)


def test_the_factors_are_those_of_a_loop_over_the_blocks():
    config = dataclasses.replace(tiny_model(), layers=4)
    for block in range(4):
        name = f"Transformer/encoderblock_{block}/MlpBlock_3/Dense_0/kernel"
        assert layer_scale(config, 0.5, name) == 0.5 ** (4 - block)
    assert {layer_scale(config, 0.5, f"Transformer/encoder_norm/{name}") for name in ("scale", "bias")} == {1.0}
    assert layer_scale(config, 0.5, "head/kernel") == 1.0
    for name in ("embedding/kernel", "embedding/bias", "cls", "Transformer/posembed_input/pos_embedding"):
        assert layer_scale(config, 0.5, name) == 0.5**5


def test_every_transformer_begins_with_its_embedding_and_tokens():
    for family in FAMILY_LIST:
        if family.encoder == "Transformer":
            assert (family.block, family.depth("cls"), family.depth("head/kernel")) == (BLOCK, 0, None), family.title
    dinov3 = _shape("DINOv3-S/4")
    factors = {name: layer_scale(dinov3, 0.5, name) for name in models.parameter_shapes(dinov3)}
    assert {name for name, factor in factors.items() if factor == 0.5 ** (LAYERS + 1)} == {
        *("cls", "registers", "embedding/kernel", "embedding/bias", "Transformer/rotary/angles")
    }


def test_a_convmixer_has_numbered_blocks_too():
    config = make_model(small_config("convmixer"), 3)
    first, last = (layer_scale(config, 0.5, f"{layer}/kernel") for layer in ("embedding", "head"))
    assert (first, layer_scale(config, 0.5, "block_0/pointwise/bias"), last) == (0.25, 0.5, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_trajectory_is_that_of_pytorch_with_a_learning_rate_for_each_tensor(name):
    config, settings = tiny_model(), default_config().optimizer
    settings.update({"name": name, "learning_rate": 0.1, "weight_decay": 0.05, "layer_decay": DECAY})
    with jax.enable_x64(True):
        initial = random_params(config, dtype=np.float64)
        tensors = {path: torch.nn.Parameter(torch.tensor(array)) for path, array in flatten(initial).items()}
        groups = [
            {
                "params": [tensor],
                "lr": 0.1 * layer_scale(config, DECAY, path),
                "weight_decay": 0.05 if name == "sgd" or path.endswith("kernel") else 0.0,
            }
            for path, tensor in tensors.items()
        ]
        theirs = torch.optim.SGD(groups, momentum=0.9) if name == "sgd" else torch.optim.AdamW(groups)
        chain = optax.chain(make_optimizer(settings, 10, initial), scale_by_layer(config, DECAY))
        params: Any = jax.tree.map(jnp.asarray, initial)
        state = chain.init(params)
        step = jax.jit(chain.update)
        for seed in range(5):
            gradients = random_params(config, seed + 1, np.float64)
            updates, state = step(gradients, state, params)
            params = optax.apply_updates(params, updates)
            for path, gradient in flatten(gradients).items():
                tensors[path].grad = torch.tensor(gradient)
            theirs.step()
        for path, array in flatten(params).items():
            # The learning rate is a float32.
            np.testing.assert_allclose(array, tensors[path].detach().numpy(), rtol=0, atol=1e-7, err_msg=path)


def test_a_model_without_numbered_blocks_is_refused():
    config = small_config("pyramidnet")
    config.optimizer.layer_decay = 0.75
    with pytest.raises(UserError, match=r"layer_decay=0.75 needs .* numbered blocks.*PyramidNet-8/12 has none"):
        check(config)
    for value in (0.0, 1.5, -1.0):
        config.optimizer.layer_decay = value
        with pytest.raises(UserError, match=r"config\.optimizer\.layer_decay is"):
            check(config)
