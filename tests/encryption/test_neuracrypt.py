import collections
import functools

import jax
import numpy as np
import pytest
from helpers.pytorch import torch
from helpers.tiny import random_images

from ppvit_jax.encryption import chacha, parse
from ppvit_jax.encryption.color_neuracrypt import ColorNeuraCrypt
from ppvit_jax.encryption.neuracrypt import NeuraCrypt, reference_images
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey

KEY = SecretKey(bytes(32))


def _small(**options):
    return NeuraCrypt(**{"block_size": 8, "width": 64, "depth": 2, **options})


@functools.cache
def _secret(method, height=32, width=32):
    return method.derive(KEY, height=height, width=width)


def _pytorch(images, secret, *, block_size, depth, prefix=""):
    """Computes the network with PyTorch's layers and the secret's weights.

    Returns:
      Tokens [batch, patches, features], not reordered.
    """
    channels = images.shape[-1]

    def convolution(name, size, inputs):
        kernel, bias = secret[f"{prefix}{name}/kernel"], secret[f"{prefix}{name}/bias"]
        layer = torch.nn.Conv2d(inputs, len(bias), size, stride=size)
        kernel = kernel.reshape(size, size, inputs, -1).transpose(3, 2, 0, 1)
        layer.load_state_dict({"weight": torch.tensor(kernel), "bias": torch.tensor(bias)})
        return layer

    layers = [convolution("embedding", block_size, channels), torch.nn.ReLU()]
    features = layers[0].out_channels
    for i in range(depth):
        frozen = f"{prefix}layer_{i}/mean" in secret
        norm = torch.nn.BatchNorm2d(features, track_running_stats=frozen)
        if frozen:
            norm.running_mean = torch.tensor(secret[f"{prefix}layer_{i}/mean"])
            norm.running_var = torch.tensor(secret[f"{prefix}layer_{i}/variance"])
        layers += [convolution(f"layer_{i}", 1, features), norm.eval(), torch.nn.ReLU()]
    mixer = torch.nn.Linear(features, features)
    mixer.load_state_dict(
        {
            "weight": torch.tensor(secret[f"{prefix}mixer/kernel"].T),
            "bias": torch.tensor(secret[f"{prefix}mixer/bias"]),
        }
    )
    with torch.no_grad():
        scaled = torch.tensor(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        maps = torch.nn.Sequential(*layers)(scaled).flatten(2).transpose(1, 2)
        return mixer(torch.relu(maps + torch.tensor(secret[f"{prefix}position"]))).numpy()


@pytest.mark.parametrize("statistics", ["frozen", "batch"])
@pytest.mark.parametrize(("height", "width", "depth"), [(32, 32, 2), (8, 24, 4), (16, 8, 0)])
def test_encodings_are_those_of_pytorch(statistics, height, width, depth):
    method = _small(statistics=statistics, depth=depth, reorder=False)
    secret = _secret(method, height, width)
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    encoded = method.encrypt(images, secret)
    assert (encoded.dtype, encoded.shape) == (np.float32, (3, height * width // 64, 64))
    expected = _pytorch(images, secret, block_size=8, depth=depth)
    assert expected.std() > 0.1
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_real_size():
    method = NeuraCrypt(block_size=16, statistics="batch")
    secret = method.derive(KEY, height=224, width=224)
    assert all(array.dtype == np.float32 for name, array in secret.items() if name != "order_key")
    # The original counts the scale and offset of each normalization as parameters; they are constants here.
    weights = sum(array.size for name, array in secret.items() if name != "order_key")
    assert weights + 2 * method.depth * method.width == 22_974_464
    images = random_images(1, 224)
    order = chacha.permutations(secret["order_key"], np.arange(1, dtype=np.uint32), 196)
    encoded = method.encrypt(images, secret, np.arange(1, dtype=np.uint32))
    expected = _pytorch(images, secret, block_size=16, depth=4)
    np.testing.assert_allclose(encoded[0], expected[0, order[0]], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", [_small(), _small(statistics="batch"), ColorNeuraCrypt(block_size=8, separate=True)])
def test_numpy_and_compiled_encodings_agree(method):
    secret, images, numbers = _secret(method), random_images(6, 32), np.arange(6, dtype=np.uint32)
    offline = method.encrypt(images, secret, numbers)
    compiled = jax.jit(method.encrypt)(images, secret, numbers)
    assert (type(offline), offline.dtype, compiled.dtype) == (np.ndarray, np.float32, np.float32)
    np.testing.assert_allclose(compiled, offline, rtol=1e-5, atol=1e-5 * abs(offline).max())
    shape = (2, 3)
    grouped = method.encrypt(images.reshape(*shape, 32, 32, 3), secret, numbers.reshape(shape))
    np.testing.assert_allclose(grouped.reshape(offline.shape), offline, rtol=0, atol=1e-5)
    mapped = jax.vmap(method.encrypt, (0, None, 0))(images, secret, numbers)
    alone = offline
    if method.statistics == "batch":
        alone = np.concatenate([method.encrypt(images[i : i + 1], secret, numbers[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(mapped, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("statistics", ["frozen", "batch"])
def test_an_encoding_depends_on_its_batch_only_without_frozen_statistics(statistics):
    method = _small(statistics=statistics)
    images, numbers = random_images(6, 32), np.arange(6, dtype=np.uint32)
    together = method.encrypt(images, _secret(method), numbers)
    apart = method.encrypt(images[:2], _secret(method), numbers[:2])
    difference = abs(together[:2] - apart).max()
    assert difference < 1e-5 if statistics == "frozen" else difference > 1e-2


def test_frozen_statistics_are_those_of_the_reference_images():
    frozen, batch = _small(reorder=False), _small(reorder=False, statistics="batch")
    reference = reference_images(KEY, "neuracrypt", 32, 32)
    assert (reference.shape, reference.dtype) == ((16, 32, 32, 3), np.uint8)
    assert (reference[8:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2) == reference[8:]).all()
    assert abs(reference.mean() - 127.5) < 5
    expected = batch.encrypt(reference, _secret(batch))
    np.testing.assert_allclose(frozen.encrypt(reference, _secret(frozen)), expected, rtol=0, atol=1e-5)
    shared = _secret(batch).keys() & _secret(frozen).keys()
    assert _secret(frozen).keys() - shared == {f"layer_{i}/{part}" for i in range(2) for part in ("mean", "variance")}


def test_the_patches_of_each_image_have_an_order_of_its_own():
    method, plain = _small(), _small(reorder=False)
    assert (method.per_image, plain.per_image) == (True, False)
    image = random_images(1, 32)
    images, numbers = np.repeat(image, 5, axis=0), np.array([0, 1, 2, 2**32 - 1, 0], np.uint32)
    encoded, ordered = method.encrypt(images, _secret(method), numbers), plain.encrypt(image, _secret(plain))[0]
    orders = [tuple(abs(tokens[:, None] - ordered).max(axis=-1).argmin(axis=1).tolist()) for tokens in encoded]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert orders[4] == orders[0] and len(set(orders)) == 4
    for tokens, order in zip(encoded, orders, strict=True):
        np.testing.assert_allclose(tokens, ordered[list(order)], rtol=0, atol=1e-5)
    again = method.encrypt(images[:1], _secret(method), numbers[1:2])
    np.testing.assert_allclose(again[0], encoded[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [_small(), ColorNeuraCrypt(block_size=8)])
def test_another_key_gives_other_encodings(method):
    other = method.derive(SecretKey(bytes([1] * 32)), height=32, width=32)
    images, numbers = random_images(2, 32), np.arange(2, dtype=np.uint32)
    ours, theirs = method.encrypt(images, _secret(method), numbers), method.encrypt(images, other, numbers)
    assert abs(ours - theirs).mean() > 0.1
    assert all((other[name] != array).any() for name, array in _secret(method).items())


def test_weights_are_distributed_as_pytorch_initializes_them():
    method = NeuraCrypt(block_size=8, width=512, depth=1, statistics="batch")
    secret = method.derive(KEY, height=64, width=64)
    torch.manual_seed(0)
    layers = {
        "embedding": torch.nn.Conv2d(3, 512, 8, stride=8),
        "layer_0": torch.nn.Conv2d(512, 512, 1),
        "mixer": torch.nn.Linear(512, 512),
    }
    for name, layer in layers.items():
        assert layer.bias is not None
        weight = layer.weight.detach().numpy()
        _same_distribution(secret[f"{name}/kernel"].ravel(), weight.ravel(), 0.01)
        _same_distribution(secret[f"{name}/bias"], layer.bias.detach().numpy(), 0.12)
        assert abs(secret[f"{name}/kernel"]).max() <= np.float32(weight[0].size ** -0.5)
    _same_distribution(secret["position"].ravel(), torch.randn(64 * 512).numpy(), 0.015)
    pairs = np.corrcoef(secret["position"].reshape(-1, 2).T)[0, 1]
    assert abs(pairs) < 0.03


def _same_distribution(ours, theirs, tolerance):
    """Compares two samples by the Kolmogorov-Smirnov statistic."""
    points = np.sort(np.concatenate([ours, theirs]))
    steps = [np.searchsorted(np.sort(sample), points, side="right") / sample.size for sample in (ours, theirs)]
    assert abs(steps[0] - steps[1]).max() < tolerance


@pytest.mark.parametrize("statistics", ["frozen", "batch"])
@pytest.mark.parametrize("separate", [False, True])
def test_color_neuracrypt_is_its_network_laid_out_as_an_image(statistics, separate):
    method = ColorNeuraCrypt(block_size=8, depth=3, statistics=statistics, separate=separate)
    secret = _secret(method, 16, 24)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    encoded = method.encrypt(images, secret)
    assert (encoded.dtype, encoded.shape) == (np.float32, images.shape)
    network = functools.partial(_pytorch, secret=secret, block_size=8, depth=3)
    if separate:
        channels = [network(images[..., i : i + 1], prefix=f"channel_{i}/") for i in range(3)]
        tokens = np.stack([channel.reshape(2, 6, 8, 8) for channel in channels], axis=-1)
    else:
        tokens = network(images).reshape(2, 6, 8, 8, 3)
    for block in range(6):
        row, column = divmod(block, 3)
        placed = encoded[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        np.testing.assert_allclose(placed, tokens[:, block], rtol=0, atol=1e-4)


def test_color_neuracrypt_at_real_size_has_the_scale_of_normalized_images():
    method = ColorNeuraCrypt(block_size=16)
    secret = _secret(method, 64, 64)
    assert secret["embedding/kernel"].shape == secret["mixer/kernel"].shape == (768, 768)
    encoded = method.encrypt(reference_images(KEY, "other", 64, 64), secret)
    assert 0.4 < encoded.std() < 0.7 and abs(encoded.mean()) < 0.05


def test_no_label_of_randomness_is_used_twice():
    labels = collections.Counter()

    class Recording:
        def words(self, label, count):
            labels[label] += 1
            return KEY.words(label, count)

    recording = Recording()
    for method in (_small(), ColorNeuraCrypt(block_size=8), ColorNeuraCrypt(block_size=8, separate=True)):
        labels.clear()
        method.derive(recording, height=16, width=16)  # pyright: ignore[reportArgumentType]
        assert set(labels.values()) == {1}
        assert all(label.startswith(f"{method.name}/") for label in labels)


@pytest.mark.parametrize(
    "spec",
    ["neuracrypt", "neuracrypt:depth=2,width=64,reorder=False", "color-neuracrypt:statistics=batch,separate=True"],
)
def test_a_description_is_read_back(spec):
    method = parse(spec, 8)
    assert parse(method.spec, 8) == method and method.encodes
    assert sorted(method.spec.split(":")[-1].split(",")) == sorted(spec.split(":")[-1].split(","))


@pytest.mark.parametrize("spec", ["neuracrypt:statistics=running", "neuracrypt:depth=-1", "neuracrypt:width=0"])
def test_options_that_do_not_fit_are_named(spec):
    option = spec.split(":")[1].split("=")[0]
    with pytest.raises(UserError, match=f"encryption neuracrypt: {option} is "):
        parse(spec, 8)


@pytest.mark.parametrize("method", [_small(), ColorNeuraCrypt(block_size=8)])
def test_what_is_impossible_is_named(method):
    images, numbers = random_images(2, 32), np.arange(2, dtype=np.uint32)
    with pytest.raises(UserError, match="has no inverse"):
        method.decrypt(images, _secret(method))
    with pytest.raises(UserError, match="not linear"):
        method.absorb(KEY, height=32, width=32)
    with pytest.raises(UserError, match="30x32 does not divide into blocks of 8x8"):
        method.derive(KEY, height=30, width=32)
    with pytest.raises(UserError, match="30x32 does not divide into blocks of 8x8"):
        method.encrypt(images[:, :30], _secret(method), numbers)
    with pytest.raises(UserError, match="images of 8 blocks do not fit a secret for 16"):
        method.encrypt(images[:, :16], _secret(method), numbers)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [None, np.arange(1, dtype=np.uint32), np.uint32(0)])
def test_reordering_needs_a_number_for_each_image(numbers):
    with pytest.raises(UserError, match="give the images' numbers"):
        _small().encrypt(random_images(2, 32), _secret(_small()), numbers)
