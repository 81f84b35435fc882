import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.pytorch import timm, torch
from helpers.tiny import flatten, random_images

from ppvit_jax.errors import UserError
from ppvit_jax.models.resnet import ResNetConfig, build


def _images(count, size):
    return (random_images(count, size) / 127.5 - 1).astype(np.float32)


def _timm(config, seed=0):
    """Builds timm's ResNet-18 with this stem, with random parameters and running statistics."""
    module = timm.create_model("resnet18", num_classes=config.num_classes)
    if config.stem == "cifar":
        module.conv1 = torch.nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        module.maxpool = torch.nn.Identity()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(float(name.endswith("weight")), 0.2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    return module.to(torch.float64 if config.dtype == "float64" else torch.float32)


def _ours(tensors):
    """Returns params and statistics from tensors by timm's names, which are a state or gradients."""
    layers = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}
    layers |= {"downsample.0": "shortcut", "downsample.1": "shortcut_norm"}
    trees = {}
    for name, tensor in tensors.items():
        *module, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        path = [{"conv1": "stem", "bn1": "stem_norm", "fc": "head"}.get(module[0], "")]
        if module[0].startswith("layer"):
            path = [f"{module[0]}_{module[1]}", layers[".".join(module[2:])]]
        array = tensor.detach().numpy().copy()
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        leaf = {"running_mean": "mean", "running_var": "variance"}.get(leaf, leaf)
        trees[("statistics" if leaf in ("mean", "variance") else "params", *path, leaf)] = array
    tree = unflatten_dict(trees)
    return tree["params"], tree.get("statistics", {})


def _assert_trains_as_timm(config, batch, *, steps, tolerance, gradients):
    """Compares logits in both modes and running statistics at every step, and all gradients of the first step."""
    model, theirs = build(config), _timm(config)
    images, labels = _images(batch, config.image_size), np.arange(batch) % config.num_classes
    params, statistics = _ours(theirs.state_dict())
    pixels = torch.tensor(images.transpose(0, 3, 1, 2), dtype=next(theirs.parameters()).dtype)
    with torch.no_grad():
        expected = theirs.eval()(pixels).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(jax.jit(model.apply)(params, images, statistics), expected, rtol=0, atol=tolerance)

    def loss(params, statistics):
        output = model.train(params, statistics, jnp.asarray(images), jax.random.key(0))
        return -jax.nn.log_softmax(output.logits)[jnp.arange(batch), labels].mean(), output

    step = jax.jit(jax.grad(loss, has_aux=True) if gradients else lambda *trees: ({}, loss(*trees)[1]))
    theirs.train()
    for number in range(steps):
        gradient, output = step(params, statistics)
        statistics = output.statistics
        logits = theirs(pixels)
        np.testing.assert_allclose(output.logits, logits.detach().numpy(), rtol=0, atol=tolerance)
        assert output.penalty == 0
        chex.assert_trees_all_close(statistics, _ours(theirs.state_dict())[1], rtol=0, atol=tolerance)
        if gradients and number == 0:
            torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
            expected = flatten(_ours({name: parameter.grad for name, parameter in theirs.named_parameters()})[0])
            actual = flatten(gradient)
            assert actual.keys() == expected.keys()
            for name, leaf in expected.items():
                scale = np.abs(leaf).max()
                assert scale > 0, name
                np.testing.assert_allclose(actual[name], leaf, rtol=0, atol=tolerance * scale, err_msg=name)


# Even and odd sizes, because uneven padding would show at one of them.
@pytest.mark.slow
@pytest.mark.parametrize(("stem", "image_size"), [("cifar", 6), ("imagenet", 37)])
def test_training_is_that_of_timm(stem, image_size):
    with jax.enable_x64(True):
        config = ResNetConfig(stem, image_size, num_classes=3, dtype="float64")
        _assert_trains_as_timm(config, 4, steps=3, tolerance=1e-8, gradients=True)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_training_is_that_of_timm_at_real_size(stem):
    config = ResNetConfig(stem, 32, num_classes=10)
    _assert_trains_as_timm(config, 8, steps=1, tolerance=1e-4, gradients=False)


@pytest.mark.parametrize(("stem", "num_classes", "count"), [("imagenet", 1000, 11_689_512), ("cifar", 10, 11_173_962)])
def test_parameters_and_statistics_are_those_of_timm(stem, num_classes, count):
    config = ResNetConfig(stem, 32, num_classes)
    model = build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    statistics = jax.eval_shape(model.init_statistics, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    expected_params, expected_statistics = _ours(_timm(config).state_dict())
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected_params)
    assert jax.tree.map(np.shape, statistics) == jax.tree.map(np.shape, expected_statistics)
    assert config.patch_size == 0


@pytest.mark.slow
def test_a_new_model_is_initialized_by_fan_out():
    fans_out = {"stem/kernel": 64 * 49, "layer2_0/conv1/kernel": 128 * 9, "layer4_0/shortcut/kernel": 512}
    names = [*fans_out, "layer4_1/norm2/scale", "head/kernel"]
    init = build(ResNetConfig("imagenet", 32, 10)).init

    # Compiled, so that only these few of the eleven million numbers are drawn.
    @jax.jit
    def draw(rng):
        params = flatten(init(rng))
        return {name: params[name] for name in names}

    params = draw(jax.random.key(0))
    for name, fan_out in fans_out.items():
        np.testing.assert_allclose(params[name].std(), (2 / fan_out) ** 0.5, rtol=0.03, err_msg=name)
    assert (params["layer4_1/norm2/scale"] == 1).all()
    assert (params["head/kernel"] != 0).any()


@pytest.mark.slow
def test_bfloat16_computes_roughly_the_same_and_keeps_statistics_in_float32():
    config = ResNetConfig("cifar", 8, 3)
    params, statistics = _ours(_timm(config).state_dict())
    images = _images(4, 8)
    precise = jax.jit(build(config).apply)(params, images, statistics)
    model = build(ResNetConfig("cifar", 8, 3, dtype="bfloat16"))
    images = jnp.asarray(images, jnp.bfloat16)
    rough = jax.jit(model.apply)(params, images, statistics)
    assert 0 < abs(precise - rough).max() < 0.1 * abs(precise).max()
    output = jax.eval_shape(model.train, params, statistics, images, jax.random.key(0))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((rough, output.logits, output.statistics, output.penalty))}
    assert dtypes == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_an_unknown_stem_is_named():
    with pytest.raises(UserError, match="stem 'CIFAR' of the ResNet: use one of cifar, imagenet"):
        build(ResNetConfig("CIFAR", 32, 10))
