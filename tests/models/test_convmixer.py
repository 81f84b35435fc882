import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.pytorch import timm, torch
from helpers.tiny import assert_close_tree, compiled, flatten, random_images

from ppvit_jax.errors import UserError
from ppvit_jax.models.convmixer import ConvMixerConfig, build

KINDS = ("free", "softmax", "sinkhorn")


def _tiny(**fields):
    shape: dict[str, Any] = {
        "hidden_size": 6,
        "depth": 2,
        "patch_size": 2,
        "kernel_size": 3,
        "image_size": 8,
        "num_classes": 3,
    }
    return ConvMixerConfig(**(shape | fields))


def _images(count, size, seed=0):
    return (random_images(count, size, seed) / 127.5 - 1).astype(np.float32)


class _AdaptiveStem(torch.nn.Module):
    """Patch embedding whose patches a matrix mixes; Sinkhorn's normalizations are outside log space."""

    def __init__(self, embedding, kind, patches):
        super().__init__()
        self.embedding, self.kind = embedding, kind
        self.matrix = torch.nn.Parameter(torch.empty(patches, patches))

    def effective(self):
        if self.kind == "free":
            return self.matrix
        matrix = self.matrix.exp()
        for _ in range(20 if self.kind == "sinkhorn" else 1):
            matrix = matrix / matrix.sum(1, keepdim=True)
            if self.kind == "sinkhorn":
                matrix = matrix / matrix.sum(0, keepdim=True)
        return matrix

    def penalty(self):
        matrix = self.effective()
        vectors = [*matrix, *matrix.T]
        return sum(vector.abs().sum() - vector.norm() for vector in vectors) / matrix.shape[0] ** 2

    def forward(self, images):
        grid = self.embedding(images)
        tokens = grid.flatten(2).transpose(1, 2)
        return (self.effective() @ tokens).transpose(1, 2).reshape(grid.shape)


def _timm(config, seed=0):
    """Builds timm's ConvMixer of this shape, with random parameters and running statistics."""
    module = timm.models.convmixer.ConvMixer(
        config.hidden_size,
        config.depth,
        kernel_size=config.kernel_size,
        patch_size=config.patch_size,
        num_classes=config.num_classes,
    )
    if config.adaptive_matrix != "none":
        module.stem[0] = _AdaptiveStem(module.stem[0], config.adaptive_matrix, config.grid_size**2)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(float(name.endswith("weight")), 0.2, generator=generator)
        elif name.endswith("matrix"):
            # Far from uniform under a softmax, so that the order of the patches matters.
            tensor.normal_(0, 2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    return module.to(torch.float64 if config.dtype == "float64" else torch.float32)


def _ours(tensors):
    """Returns params and statistics from tensors by timm's names, which are a state or gradients."""
    trees = {}
    for name, tensor in tensors.items():
        *module, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        if module[0] == "blocks":
            layer = {"0.fn.0": "depthwise", "0.fn.2": "depthwise_norm", "1": "pointwise", "3": "pointwise_norm"}
            path = f"block_{module[1]}/{layer['.'.join(module[2:])]}"
        else:
            names = {"stem.0": "embedding", "stem.0.embedding": "embedding", "stem.2": "embedding_norm"}
            path = names.get(".".join(module), "head")
        array = tensor.detach().numpy().copy()
        if leaf == "matrix":
            path = "adaptive_matrix"
        elif leaf == "weight":
            path += "/scale" if array.ndim == 1 else "/kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            array = array[0, 0] if "pointwise/" in path else array
        else:
            path += {"bias": "/bias", "running_mean": "/mean", "running_var": "/variance"}[leaf]
        trees[("statistics" if leaf.startswith("running") else "params", *path.split("/"))] = array
    tree = unflatten_dict(trees)
    return tree["params"], tree.get("statistics", {})


def _assert_trains_as(config, theirs, images, labels, *, steps, tolerance, gradients=True):
    """Compares logits in both modes, penalty and running statistics at every step, and the first step's gradients."""
    model = compiled(build(config))
    params, statistics = _ours(theirs.state_dict())
    for function, expected in ((model.init, params), (model.init_statistics, statistics)):
        made = jax.eval_shape(function, jax.random.key(0))
        assert jax.tree.map(np.shape, made) == jax.tree.map(np.shape, expected)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2), dtype=next(theirs.parameters()).dtype)
    with torch.no_grad():
        expected = theirs.eval()(pixels).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(model.apply(params, images, statistics), expected, rtol=0, atol=tolerance)

    def loss(params, statistics):
        output = model.train(params, statistics, jnp.asarray(images), jax.random.key(0))
        cross_entropy = -jax.nn.log_softmax(output.logits)[jnp.arange(len(labels)), labels].mean()
        return cross_entropy + output.penalty, output

    step = jax.jit(jax.grad(loss, has_aux=True) if gradients else lambda *trees: ({}, loss(*trees)[1]))
    theirs.train()
    for number in range(steps):
        gradient, output = step(params, statistics)
        statistics = output.statistics
        logits = theirs(pixels)
        penalty = torch.zeros(())
        if config.adaptive_matrix != "none":
            penalty = config.penalty_weight * theirs.stem[0].penalty()
            assert penalty.item() > 0
        np.testing.assert_allclose(output.logits, logits.detach().numpy(), rtol=0, atol=tolerance)
        np.testing.assert_allclose(output.penalty, penalty.item(), rtol=1e-5)
        assert_close_tree(statistics, _ours(theirs.state_dict())[1], tolerance)
        if gradients and number == 0:
            (torch.nn.functional.cross_entropy(logits, torch.tensor(labels)) + penalty).backward()
            expected, _ = _ours({name: parameter.grad for name, parameter in theirs.named_parameters()})
            actual = flatten(gradient)
            assert actual.keys() == flatten(expected).keys()
            for name, leaf in flatten(expected).items():
                scale = np.abs(leaf).max()
                assert scale > 0, name
                np.testing.assert_allclose(actual[name], leaf, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden_size", "depth", "patch_size", "kernel_size", "image_size"),
    # The cases: an odd grid and an even kernel; a kernel wider than the grid; a single patch.
    [(6, 2, 2, 3, 8), (5, 1, 3, 4, 15), (4, 1, 4, 7, 8), (3, 2, 8, 5, 8)],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_training_is_that_of_timm(hidden_size, depth, patch_size, kernel_size, image_size):
    with jax.enable_x64(True):
        config = ConvMixerConfig(hidden_size, depth, patch_size, kernel_size, image_size, 3, dtype="float64")
        images, labels = _images(5, image_size), np.array([0, 1, 2, 1, 0])
        _assert_trains_as(config, _timm(config), images, labels, steps=3, tolerance=1e-9)


@pytest.mark.slow
def test_training_is_that_of_timm_at_real_size():
    config = ConvMixerConfig(256, 8, patch_size=2, kernel_size=5, image_size=32, num_classes=10)
    theirs = _timm(config)
    _assert_trains_as(config, theirs, _images(2, 32), np.array([3, 7]), steps=1, tolerance=1e-4, gradients=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_adaptive_matrix_is_that_of_pytorch(kind):
    with jax.enable_x64(True):
        config = _tiny(adaptive_matrix=kind, penalty_weight=0.3, dtype="float64")
        images, labels = _images(5, 8), np.array([0, 1, 2, 1, 0])
        _assert_trains_as(config, _timm(config), images, labels, steps=3, tolerance=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden_size", "depth", "patch_size", "kernel_size", "image_size", "num_classes"),
    [(256, 8, 2, 5, 32, 10), (512, 16, 4, 9, 32, 10), (384, 8, 16, 9, 224, 10)],
)
def test_parameter_counts_are_those_of_timm(hidden_size, depth, patch_size, kernel_size, image_size, num_classes):
    config = ConvMixerConfig(hidden_size, depth, patch_size, kernel_size, image_size, num_classes)
    model = compiled(build(config))
    params = jax.eval_shape(model.init, jax.random.key(0))
    statistics = jax.eval_shape(model.init_statistics, jax.random.key(0))
    theirs = timm.models.convmixer.ConvMixer(
        hidden_size, depth, kernel_size=kernel_size, patch_size=patch_size, num_classes=num_classes, device="meta"
    )
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
    logits = jax.eval_shape(model.apply, params, images, statistics)
    assert (logits.shape, logits.dtype) == ((2, num_classes), jnp.float32)
    adaptive = build(dataclasses.replace(config, adaptive_matrix="free"))
    params = jax.eval_shape(adaptive.init, jax.random.key(0))
    patches = (image_size // patch_size) ** 2
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count + patches**2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_permuted_columns_of_the_adaptive_matrix_undo_a_scrambling_of_blocks(kind):
    config = _tiny(image_size=12, adaptive_matrix=kind)
    model = compiled(build(config))
    params, statistics = _ours(_timm(config).state_dict())
    images = _images(4, 12)
    permutation = np.random.default_rng(0).permutation(36)
    scrambled = np.empty_like(images)
    for i, source in enumerate(permutation):
        (row, column), (from_row, from_column) = (2 * np.array(divmod(int(k), 6)) for k in (i, source))
        block = images[:, from_row : from_row + 2, from_column : from_column + 2]
        scrambled[:, row : row + 2, column : column + 2] = block
    adapted = params | {"adaptive_matrix": params["adaptive_matrix"][:, permutation]}

    plain = model.apply(params, images, statistics)
    np.testing.assert_allclose(model.apply(adapted, scrambled, statistics), plain, rtol=0, atol=1e-5)
    assert abs(model.apply(params, scrambled, statistics) - plain).max() > 0.01
    expected = model.train(params, statistics, jnp.asarray(images), jax.random.key(0))
    actual = model.train(adapted, statistics, jnp.asarray(scrambled), jax.random.key(0))
    np.testing.assert_allclose(actual.logits, expected.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual.penalty, expected.penalty, rtol=1e-5)
    assert_close_tree(actual.statistics, expected.statistics, 1e-5)


@pytest.mark.slow
def test_the_penalty_of_a_permutation_matrix_is_zero_and_its_gradient_finite():
    config = _tiny(depth=1, adaptive_matrix="free", penalty_weight=1.0)
    model = compiled(build(config))
    params, statistics = model.init(jax.random.key(0)), model.init_statistics(jax.random.key(0))

    @jax.jit
    def penalty(matrix):
        changed = params | {"adaptive_matrix": matrix}
        return model.train(changed, statistics, jnp.asarray(_images(2, 8)), jax.random.key(0)).penalty

    assert float(penalty(jnp.eye(16)[::-1])) == 0
    assert float(penalty(jnp.ones((16, 16)))) == pytest.approx(2 * 16 * (16 - 4) / 16**2)
    assert np.isfinite(jax.jit(jax.grad(penalty))(jnp.zeros((16, 16)))).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adaptive_matrix_is_uniform_up_to_the_root_of_its_fan_in(kind):
    matrix = compiled(build(_tiny(image_size=32, adaptive_matrix=kind))).init(jax.random.key(0))["adaptive_matrix"]
    assert matrix.shape == (256, 256)
    assert 0.99 / 16 < abs(matrix).max() <= 1 / 16
    np.testing.assert_allclose(matrix.std(), 1 / 16 / 3**0.5, rtol=0.02)


@pytest.mark.slow
def test_a_model_without_an_adaptive_matrix_has_no_such_parameter_and_no_penalty():
    model = compiled(build(_tiny()))
    params, statistics = model.init(jax.random.key(0)), model.init_statistics(jax.random.key(0))
    assert params.keys() == {"embedding", "embedding_norm", "block_0", "block_1", "head"}
    assert params["embedding"]["kernel"].shape == (2, 2, 3, 6)
    assert model.train(params, statistics, jnp.asarray(_images(2, 8)), jax.random.key(0)).penalty == 0
    logits = model.apply(params, _images(2, 8), statistics)
    assert logits.shape == (2, 3) and (logits != 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "sinkhorn"])
def test_bfloat16_computes_roughly_the_same_and_keeps_statistics_in_float32(kind):
    config = _tiny(adaptive_matrix=kind)
    params, statistics = _ours(_timm(config).state_dict())
    images = _images(8, 8)
    precise = compiled(build(config)).train(params, statistics, jnp.asarray(images), jax.random.key(0))
    rough = compiled(build(_tiny(adaptive_matrix=kind, dtype="bfloat16"))).train(
        params, statistics, jnp.asarray(images, jnp.bfloat16), jax.random.key(0)
    )
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((rough.logits, rough.statistics, rough.penalty))}
    assert dtypes == {jnp.dtype(jnp.float32)}
    assert 0 < abs(precise.logits - rough.logits).max() < 0.1 * abs(precise.logits).max()


def test_a_shape_that_cannot_be_built_is_named():
    with pytest.raises(UserError, match="adaptive matrix 'Free': use one of none, free, softmax, sinkhorn"):
        build(_tiny(adaptive_matrix="Free"))
    with pytest.raises(UserError, match="image size 9 is not a multiple of the patch size 2"):
        build(_tiny(image_size=9))
