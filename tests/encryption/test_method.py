import numpy as np
import pytest

from ppvit_jax.encryption import METHODS, parse
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_not_described(name):
    method = METHODS[name](block_size=4)
    assert method.spec == name and parse(name, 4) == method and parse(f"{name}:", 4) == method


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rot13", "unknown encryption 'rot13': use none or one of bs, ps, bs\\+ps, .*color-neuracrypt"),
        ("", "unknown encryption ''"),
        ("BS", "unknown encryption 'BS'"),
        ("none:shared=True", "unknown encryption 'none:shared=True'"),
        ("bs\nps", "unknown encryption 'bs.nps'"),
        ("bs:shared=True", "bs has no option 'shared=True'; its options and defaults are: none"),
        ("etc:shard=True", "etc has no option 'shard=True'; .*sub_block_size=0, shared=False, rotation=True"),
        ("etc:shared", "etc has no option 'shared'"),
        ("etc:block_size=4", "etc has no option 'block_size=4'"),
        ("etc:=4", "etc has no option '=4'"),
        ("etc:shared=yes", "shared is 'yes': give True or False"),
        ("etc:shared=", "shared is '': give True or False"),
        ("etc:rotation=1", "rotation is '1': give True or False"),
        ("etc:sub_block_size=two", "sub_block_size is 'two': give a whole number"),
        ("etc:sub_block_size=2.0", "sub_block_size is '2.0': give a whole number"),
        ("etc:sub_block_size=3", "sub-blocks of 3 do not divide blocks of 4"),
        ("etc:sub_block_size=-2", "sub-blocks of -2 do not divide blocks of 4"),
        ("etc:channels=rgb", "etc: channels is 'rgb': use one of permuted, published, legacy, in_place, none"),
        ("pe:keys=each", "pe: keys is 'each': use one of shared, per_image"),
        ("pe:colour=no", "colour is 'no': give True or False"),
        ("pe:color=no", "color is 'no': give True or False"),
        ("pe:colors=True", "pe has no option 'colors=True'; its options and defaults are: keys=shared, color=True"),
        ("le:np_key=none", "le: np_key is 'none': use one of shared, independent"),
        ("bs+pps:shared=some", "bs\\+pps: shared is 'some': use one of all, blocks, none"),
        ("bs+pps:sub_block=third", "bs\\+pps: sub_block is 'third': use one of half, whole"),
        ("bs+ps+np:shared=0", "shared is '0': give True or False"),
        ("restricted:fixed_blocks=half", "fixed_blocks is 'half': give a whole number"),
        ("neuracrypt:width=big", "width is 'big': give a whole number"),
        ("color-neuracrypt:statistics=none", "color-neuracrypt: statistics is 'none': use one of frozen, batch"),
        ("etc:shared=True,shared=maybe", "shared is 'maybe'"),
    ],
)
def test_wrong_names_options_and_values_are_named_in_one_line(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(spec, 4)
    assert "\n" not in str(caught.value)


def test_color_has_two_spellings_that_give_the_same_method_and_the_recorded_spec():
    for options in ("{}=False", "keys=per_image,{}=False", "{}=False,keys=per_image", "{}=True"):
        american, recorded = (parse(f"pe:{options.format(spelling)}", 4) for spelling in ("color", "colour"))
        assert american == recorded and american.spec == recorded.spec
        assert "color=" not in american.spec
    assert parse("pe:color=False", 4).spec == "pe:colour=False" and parse("pe:color=True", 4).spec == "pe"
    secrets = [
        parse(spec, 4).derive(SecretKey(bytes(32)), height=8, width=8) for spec in ("pe:color=False", "pe:colour=False")
    ]
    for name in ("index", "mask"):
        np.testing.assert_array_equal(*(secret[name] for secret in secrets))


@pytest.mark.parametrize("name", METHODS)
def test_blocks_have_a_size(name):
    for block_size in (0, -4):
        if name == "pe":
            assert parse(name, block_size).block_size == block_size  # pe has no blocks
            continue
        with pytest.raises(UserError, match=f"has a block size of {block_size}: give at least 1"):
            parse(name, block_size)


@pytest.mark.parametrize("spec", [name for name in METHODS if name != "pe"])
def test_an_image_smaller_than_a_block_is_named(spec):
    with pytest.raises(UserError, match="4x4 does not divide into blocks of 8x8"):
        parse(spec, 8).derive(SecretKey(bytes(32)), height=4, width=4)


@pytest.mark.parametrize("spec", ["bs+ps", "etc", "pe", "le", "pe:keys=per_image"])
def test_no_images_encrypt_to_none(spec):
    method = parse(spec, 4)
    images = np.zeros((0, 8, 8, 3), np.uint8)
    encrypted = method.encrypt(images, method.derive(SecretKey(bytes(32)), height=8, width=8), np.zeros(0, np.uint32))
    assert (encrypted.shape, encrypted.dtype) == (images.shape, np.uint8)


@pytest.mark.parametrize("numbers", [np.zeros(2, np.uint32), np.uint32(0), np.zeros((3, 1), np.uint32)])
def test_a_number_for_every_image_is_needed(numbers):
    method = parse("pe:keys=per_image", 4)
    with pytest.raises(UserError, match="give the images' numbers"):
        method.encrypt(np.zeros((3, 8, 8, 3), np.uint8), {"key": np.zeros(8, np.uint32)}, numbers)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 8), (8, 12)])
def test_restricted_permutations_exist_for_few_blocks(height, width):
    method = parse("restricted", 4)
    images = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    secret = method.derive(SecretKey(bytes(32)), height=height, width=width)
    encrypted = method.encrypt(images, secret)
    assert (encrypted != images).any()
    np.testing.assert_array_equal(method.decrypt(encrypted, secret), images)


@pytest.mark.parametrize("name", METHODS)
def test_a_program_that_is_shared_encrypts_alike(name):
    method = parse(name, 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    secret, numbers = method.derive(SecretKey(bytes(32)), height=8, width=12), np.arange(2, dtype=np.uint32)
    encrypted = method.encrypt(images, secret, numbers)
    np.testing.assert_array_equal(method.program.encrypt(images, secret, numbers), encrypted)
    shared = method.program == parse("bs", 8).program
    assert shared == (name in ("bs", "ps", "bs+ps", "restricted", "np", "bs+ps+np", "bs+pps", "etc"))
