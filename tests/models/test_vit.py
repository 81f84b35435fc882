import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.pytorch import torch, transformers
from helpers.tiny import compiled, flatten, random_images, random_params, tiny_model

from ppvit_jax import checkpoint, models
from ppvit_jax.errors import UserError
from ppvit_jax.models.position_embedding import resize_position_embedding


def _huggingface(arrays, config):
    """Computes the logits of images [batch, height, width, 3] with Hugging Face's ViT and a Google-layout file."""
    dimensions = transformers.ViTConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp_size,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        pooler_output_size=config.representation_size,
    )
    hidden = config.hidden_size
    state = {
        "embeddings.cls_token": arrays["cls"],
        "embeddings.position_embeddings": arrays["Transformer/posembed_input/pos_embedding"],
        "embeddings.patch_embeddings.projection.weight": arrays["embedding/kernel"].transpose(3, 2, 0, 1),
        "embeddings.patch_embeddings.projection.bias": arrays["embedding/bias"],
        "layernorm.weight": arrays["Transformer/encoder_norm/scale"],
        "layernorm.bias": arrays["Transformer/encoder_norm/bias"],
    }
    for i in range(config.layers):
        google, theirs = f"Transformer/encoderblock_{i}", f"layers.{i}"
        for norm, name in (("LayerNorm_0", "layernorm_before"), ("LayerNorm_2", "layernorm_after")):
            state[f"{theirs}.{name}.weight"] = arrays[f"{google}/{norm}/scale"]
            state[f"{theirs}.{name}.bias"] = arrays[f"{google}/{norm}/bias"]
        attention = f"{google}/MultiHeadDotProductAttention_1"
        for part, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            state[f"{theirs}.attention.{name}.weight"] = arrays[f"{attention}/{part}/kernel"].reshape(hidden, hidden).T
            state[f"{theirs}.attention.{name}.bias"] = arrays[f"{attention}/{part}/bias"].reshape(-1)
        state[f"{theirs}.attention.o_proj.weight"] = arrays[f"{attention}/out/kernel"].reshape(hidden, hidden).T
        state[f"{theirs}.attention.o_proj.bias"] = arrays[f"{attention}/out/bias"]
        for dense, name in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            state[f"{theirs}.mlp.{name}.weight"] = arrays[f"{google}/MlpBlock_3/{dense}/kernel"].T
            state[f"{theirs}.mlp.{name}.bias"] = arrays[f"{google}/MlpBlock_3/{dense}/bias"]
    pooled = config.representation_size is not None
    if pooled:
        state["pooler.dense.weight"] = arrays["pre_logits/kernel"].T
        state["pooler.dense.bias"] = arrays["pre_logits/bias"]
    model: Any = transformers.ViTModel(dimensions, add_pooling_layer=pooled)
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(array)) for name, array in state.items()})
    dtype = torch.float64 if config.dtype == "float64" else torch.float32
    model = model.eval().to(dtype=dtype)
    head = [torch.tensor(arrays[f"head/{name}"], dtype=dtype) for name in ("kernel", "bias")]

    def logits(images):
        with torch.no_grad():
            output = model(torch.tensor(images.transpose(0, 3, 1, 2), dtype=dtype))
            class_token = output.pooler_output if pooled else output.last_hidden_state[:, 0]
            return (class_token @ head[0] + head[1]).numpy()

    return logits


def _both(config, tmp_path, batch):
    """Returns the logits of both implementations, each of which reads the same file and images in its own way."""
    checkpoint.write(tmp_path / "model.npz", random_params(config), checkpoint.Metadata())
    arrays, _ = checkpoint.read(tmp_path / "model.npz")
    params = checkpoint.to_params(arrays, config, keep_head=True)
    images = (random_images(batch, config.image_size) / 127.5 - 1).astype(np.float32)
    ours = np.asarray(jax.jit(models.build(config).apply)(params, images))
    theirs = _huggingface(dict(np.load(tmp_path / "model.npz")), config)(images)
    assert theirs.std() > 0.1
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("representation_size", [None, 768])
def test_logits_are_those_of_huggingface_at_real_size(tmp_path, representation_size):
    config = models.parse_name("ViT-B/16", image_size=224, num_classes=1000, representation_size=representation_size)
    ours, theirs = _both(config, tmp_path, 2)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image_size", "patch_size", "representation_size"), [(16, 4, None), (15, 3, 24), (28, 14, 8), (8, 8, None)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_logits_are_those_of_huggingface(tmp_path, image_size, patch_size, representation_size, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        config = tiny_model(image_size, patch_size, representation_size=representation_size, dtype=dtype)
        ours, theirs = _both(config, tmp_path, 4)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_bfloat16_computes_roughly_the_same_and_returns_float32():
    config = tiny_model()
    images = (random_images(8, 16) / 127.5 - 1).astype(np.float32)
    params = random_params(config)
    precise = compiled(models.build(config)).apply(params, images)
    rough = compiled(models.build(tiny_model(dtype="bfloat16"))).apply(params, jnp.asarray(images, jnp.bfloat16))
    assert (precise.dtype, rough.dtype) == (jnp.float32, jnp.float32)
    # bfloat16 keeps 8 bits: after a dozen roundings the error is a few hundredths of the logits' scale.
    assert 0 < abs(precise - rough).max() < 0.1 * abs(precise).max()


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        config = tiny_model(dtype="float64", representation_size=8)
        params = random_params(config, dtype=np.float64)
        images = random_images(2, 16) / 127.5 - 1
        apply = models.build(config).apply

        @jax.jit
        def loss(tree):
            return jax.nn.log_softmax(apply(tree, images))[:, 1].sum()

        gradient = jax.jit(jax.grad(loss))(params)
        random = np.random.default_rng(0)
        direction = jax.tree.map(lambda a: random.standard_normal(a.shape), params)

        def along(step):
            return float(loss(jax.tree.map(lambda p, d: p + step * d, params, direction)))

        slopes = jax.tree.map(lambda g, d: float((np.asarray(g) * d).sum()), gradient, direction)
        step = 1e-5
        difference = (along(step) - along(-step)) / (2 * step)
        np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), difference, rtol=1e-6)
        for name, leaf in flatten(gradient).items():
            # Adding the same vector to all keys of a head changes no attention, because softmax is invariant to it.
            if not name.endswith("key/bias"):
                assert abs(leaf).max() > 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ViT-Ti/16", 5_717_416),
        ("ViT-S/16", 22_050_664),
        ("ViT-B/16", 86_567_656),
        ("ViT-L/16", 304_326_632),
        ("ViT-H/14", 632_045_800),
    ],
)
def test_parameter_counts_are_the_published_ones(name, count):
    config = models.parse_name(name, image_size=224, num_classes=1000)
    shapes = jax.eval_shape(models.build(config).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.slow
def test_parameter_names_and_shapes_are_those_of_the_published_files():
    config = models.parse_name("ViT-B_16", image_size=224, num_classes=21843, representation_size=768)
    tree = jax.eval_shape(models.build(config).init, jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in flatten(tree).items()}
    block = {
        "LayerNorm_0/bias": (768,),
        "LayerNorm_0/scale": (768,),
        "LayerNorm_2/bias": (768,),
        "LayerNorm_2/scale": (768,),
        "MlpBlock_3/Dense_0/bias": (3072,),
        "MlpBlock_3/Dense_0/kernel": (768, 3072),
        "MlpBlock_3/Dense_1/bias": (768,),
        "MlpBlock_3/Dense_1/kernel": (3072, 768),
        "MultiHeadDotProductAttention_1/out/bias": (768,),
        "MultiHeadDotProductAttention_1/out/kernel": (12, 64, 768),
    }
    for part in ("query", "key", "value"):
        block[f"MultiHeadDotProductAttention_1/{part}/bias"] = (12, 64)
        block[f"MultiHeadDotProductAttention_1/{part}/kernel"] = (768, 12, 64)
    expected = {
        "cls": (1, 1, 768),
        "embedding/bias": (768,),
        "embedding/kernel": (16, 16, 3, 768),
        "Transformer/posembed_input/pos_embedding": (1, 197, 768),
        "Transformer/encoder_norm/bias": (768,),
        "Transformer/encoder_norm/scale": (768,),
        "pre_logits/bias": (768,),
        "pre_logits/kernel": (768, 768),
        "head/bias": (21843,),
        "head/kernel": (768, 21843),
    }
    expected |= {f"Transformer/encoderblock_{i}/{name}": shape for i in range(12) for name, shape in block.items()}
    assert shapes == expected


@pytest.mark.slow
def test_a_new_model_gives_zero_logits_and_seeds_differ():
    config = tiny_model()
    model = compiled(models.build(config))
    one, other = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    np.testing.assert_array_equal(model.apply(one, np.ones((2, 16, 16, 3), np.float32)), np.zeros((2, 3)))
    assert (one["embedding"]["kernel"] != other["embedding"]["kernel"]).any()


@pytest.mark.parametrize("name", ["ViT-X/16", "ViT-B", "ViT-B/0", "vit-b/16", "ResNet-50", "ViT-B/16x"])
def test_unknown_models_are_named(name):
    with pytest.raises(UserError, match=r"unknown model .*: use ViT-SIZE/PATCH"):
        models.parse_name(name, image_size=224, num_classes=10)


@pytest.mark.parametrize(("size", "hint"), [(225, "224 or 240"), (10, "16 or 32"), (0, "16 or 32")])
def test_an_image_size_that_is_not_a_multiple_is_named_with_two_that_are(size, hint):
    with pytest.raises(UserError, match=f"image size {size} is not a multiple of the patch size 16.*{hint}"):
        models.parse_name("ViT-B/16", image_size=size, num_classes=10)


@functools.cache
def _embedding(old_grid):
    return np.random.default_rng(0).standard_normal((1, 1 + old_grid**2, 6)).astype(np.float32)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (24, 14), (8, 7), (2, 5), (3, 1), (14, 28), (14, 37)])
def test_position_embedding_is_interpolated_with_its_corners_kept(old, new):
    embedding = _embedding(old)
    resized = resize_position_embedding(embedding, new, prefix_tokens=1)
    grid = torch.tensor(embedding[:, 1:].reshape(1, old, old, -1).transpose(0, 3, 1, 2))
    expected = torch.nn.functional.interpolate(grid, (new, new), mode="bilinear", align_corners=True).numpy()
    np.testing.assert_array_equal(resized[:, 0], embedding[:, 0])
    np.testing.assert_allclose(resized[:, 1:], expected.transpose(0, 2, 3, 1).reshape(1, new**2, -1), atol=1e-5)
    assert resized.dtype == np.float32


def test_position_embedding_of_the_same_grid_is_unchanged():
    np.testing.assert_array_equal(resize_position_embedding(_embedding(7), 7, prefix_tokens=1), _embedding(7))


@pytest.mark.parametrize("rows", [1, 16, 198])
def test_position_embedding_that_is_no_square_grid_is_named(rows):
    with pytest.raises(UserError, match=f"{rows} rows is not a class token and a square grid"):
        resize_position_embedding(np.zeros((1, rows, 4), np.float32), 7, prefix_tokens=1)


@pytest.mark.parametrize("representation_size", [None, 24])
def test_the_shape_is_read_off_the_arrays(representation_size):
    config = tiny_model(representation_size=representation_size)
    arrays = flatten(random_params(config))
    assert models.infer_config(arrays, where="it") == config
    assert models.model_name(config) == ""
    headless = {name: array for name, array in arrays.items() if not name.startswith("head/")}
    assert models.infer_config(headless, where="it").num_classes == 0
    for name in ("embedding/kernel", "Transformer/posembed_input/pos_embedding"):
        with pytest.raises(UserError, match=f"it is not a Vision Transformer in Google's layout: it lacks {name}"):
            models.infer_config({n: a for n, a in arrays.items() if n != name}, where="it")
        with pytest.raises(UserError, match=rf"it has the wrong shape \(4,\) for {name}"):
            models.infer_config(arrays | {name: np.zeros(4)}, where="it")


def test_recorded_options_are_read_and_checked():
    config = tiny_model(activation="gelu", epsilon=1e-12)
    arrays, options = flatten(random_params(config)), models.recorded_options(config)
    assert options == {"activation": "gelu", "epsilon": 1e-12} and models.recorded_options(tiny_model()) == {}
    assert models.infer_config(arrays, where="it", options=options) == config
    for name, value, message in (
        ("activation", "relu", "it records the activation 'relu': use one of gelu_tanh, gelu, quick_gelu"),
        ("activation", 3, "it records the activation 3"),
        ("epsilon", "small", "it records the epsilon 'small': use a number above 0 and below 1, such as 1e-06"),
        ("epsilon", -1e-6, "it records the epsilon -1e-06"),
        ("epsilon", float("nan"), "it records the epsilon nan"),
    ):
        with pytest.raises(UserError, match=message):
            models.infer_config(arrays, where="it", options={name: value})


@pytest.mark.parametrize("name", ["ViT-Micro/8", "ViT-B/16", "ViT-H/14"])
def test_a_shape_gets_its_name_back(name):
    assert models.model_name(models.parse_name(name, image_size=224, num_classes=3)) == name
