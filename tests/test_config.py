import math
import sys
from pathlib import Path
from typing import Any

import pytest

from ppvit_jax import config as configuration
from ppvit_jax import main
from ppvit_jax.command_line import run_command
from ppvit_jax.config.fields import RANGES
from ppvit_jax.errors import UserError
from ppvit_jax.experiments.finetuning import BACKBONES
from ppvit_jax.experiments.table_rows import TABLES

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
FOLDER = CONFIGS[0].parent
DEMO = str(FOLDER / "demo.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_loads_and_says_its_command_and_what_to_expect(path):
    number = {"table2": 2, "table3": 3}.get(path.stem)
    sources = [str(path)] if number is None else [f"{path}:{row.name}" for row in TABLES[number]]
    if path.stem == "finetune":
        sources = [f"{path}:{backbone.name}" for backbone in BACKBONES]
    for source in sources:
        assert configuration.load(source).keys() == configuration.default_config().keys()
    text = path.read_text()
    assert f"configs/{path.name}" in text and "Command:" in text
    assert number is None or "Expected:" in text


@pytest.mark.parametrize(
    ("row", "encryption", "model"),
    [
        ("table2:proposed_vit", "bs+ps", "ViT-B/16"),
        ("table2:le_shakedrop", "le", "PyramidNet-110/270"),
        ("table2:ele_shakedrop", "ele", "PyramidNet-110/270"),
        ("table2:pe_resnet", "pe:keys=per_image", "ResNet-18"),
        ("table2:bs_ps_np_convmixer", "bs+ps+np", "ConvMixer-512/16"),
        ("table2:color_neuracrypt_vit", "color-neuracrypt", "ViT-B/16"),
        ("table2:bs_pps_vit", "bs+pps", "ViT-B/16"),
        ("table2:etc_vit", "etc", "ViT-B/16"),
        ("table2:etc_convmixer", "etc", "ConvMixer-256/8"),
        ("table2:plain_shakedrop", "none", "PyramidNet-110/270"),
        ("table2:plain_resnet", "none", "ResNet-18"),
        ("table2:plain_vit", "none", "ViT-B/16"),
        ("table2:plain_convmixer", "none", "ConvMixer-256/8"),
        ("table3:proposed_vit", "bs+ps", "ViT-B/16"),
        ("table3:etc_vit", "etc", "ViT-B/16"),
        ("table3:etc_convmixer", "etc", "ConvMixer-384/8"),
        ("table3:plain_vit", "none", "ViT-B/16"),
        ("table3:plain_convmixer", "none", "ConvMixer-384/8"),
    ],
)
def test_every_row_of_tables_2_and_3_has_its_protocol(row, encryption, model):
    table, _, name = row.partition(":")
    config = configuration.load(f"{FOLDER / table}.py:{name}")
    assert (config.encryption, config.adapt, config.model) == (encryption, name == "proposed_vit", model)
    data = ("cifar10", "test") if table == "table2" else ("imagenette/320px-v2", "validation")
    assert (config.data.name, config.data.test_split) == data
    # Checkpoint, image size, augmentation, epochs, batch size; optimizer, rate, schedule, Nesterov, decay, clipping.
    protocols = {
        "ViT": (
            ("hf:timm/vit_base_patch16_224.augreg_in21k", 224, "none", 15, 32),
            ("sgd", 0.001, "constant", False, 0.0005, 0.0),
        ),
        "PyramidNet": (("", 32, "flip+crop", 305, 512), ("sgd", 0.1, "step", True, 0.0005, 0.0)),
        "ResNet": (("", 32, "flip+crop", 200, 128), ("sgd", 0.1, "step", False, 0.0005, 0.0)),
        "ConvMixer": (
            ("", 32 if table == "table2" else 224, "flip+crop+rand", 100, 512),
            ("adamw", 0.05, "triangular", False, 0.005, 1.0),
        ),
    }
    family = model.partition("-")[0]
    optimizer = config.optimizer
    fields = ("name", "learning_rate", "schedule", "nesterov", "weight_decay", "clip_norm")
    assert (
        (config.checkpoint, config.image_size, config.augmentation, config.epochs, config.batch_size),
        tuple(optimizer[field] for field in fields),
    ) == protocols[family]
    milestones = {"PyramidNet": (150 / 305, 225 / 305), "ConvMixer": (0.4,)}
    assert optimizer.milestones == milestones.get(family, (0.5, 0.75))
    shake_drop = family == "PyramidNet"
    assert config.block_size == (4 if shake_drop else 0) and config.mean == ((0.0,) * 3 if shake_drop else (0.5,) * 3)
    options = config.model_options
    patch_size = 4 if name == "bs_ps_np_convmixer" else 2
    assert options.patch_size == (16 if family == "ConvMixer" and table == "table3" else patch_size)
    assert options.adaptive_matrix == ("free" if name == "bs_ps_np_convmixer" else "none")
    assert options.adaptation_network == (encryption if shake_drop else "none")


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(("row", "message"), [(":nonsense", "has no row 'nonsense': use one of"), ("", "name a row")])
def test_an_unknown_row_lists_the_rows_in_one_line(number, row, message, tmp_path, capsys):
    arguments = [f"--config={FOLDER}/table{number}.py{row}", f"--workdir={tmp_path}"]
    assert run_command(main.main, arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "UserError" not in error
    assert ", ".join(row.name for row in TABLES[number]) in error


@pytest.mark.parametrize(
    ("name", "checkpoint", "model", "optimizer", "epochs", "batch_size"),
    [
        ("dinov2-small", "facebook/dinov2-small", "DINOv2-S/14", ("adamw", 3e-5, 0.1), 10, 512),
        ("dinov2-base-registers", "facebook/dinov2-with-registers-base", "DINOv2-B/14-registers", None, 10, 512),
        ("siglip2-base", "google/siglip2-base-patch16-224", "SigLIP-B/16", ("adamw", 3e-5, 0.1), 10, 512),
        ("clip-base", "openai/clip-vit-base-patch16", "CLIP-B/16", ("adamw", 3e-5, 0.1), 10, 512),
        ("deit-small", "facebook/deit-small-patch16-224", "ViT-S/16", ("sgd", 0.01, 1e-4), 100, 768),
        ("deit3-small", "timm/deit3_small_patch16_224.fb_in22k_ft_in1k", "DeiT-S/16-III", None, 20, 512),
        ("dino-small", "facebook/dino-vits16", "ViT-S/16", ("adamw", 7.5e-6, 0.05), 100, 768),
        ("mae-base", "timm/vit_base_patch16_224.mae", "ViT-B/16", ("adamw", 1e-4, 0.05), 100, 1024),
        ("vit-base", "timm/vit_base_patch16_224.orig_in21k", "ViT-B/16", ("sgd", 0.01, 0.0), 103, 512),
    ],
)
def test_a_published_model_has_its_weights_and_its_recipe(name, checkpoint, model, optimizer, epochs, batch_size):
    config = configuration.load(f"{FOLDER}/finetune.py:{name}")
    assert (config.checkpoint, config.model, config.image_size) == (f"hf:{checkpoint}", model, 224)
    assert (config.encryption, config.adapt, config.data.name) == ("bs+ps", True, "cifar10")
    assert (config.epochs, config.batch_size) == (epochs, batch_size)
    chosen = config.optimizer
    assert optimizer in (None, (chosen.name, chosen.learning_rate, chosen.weight_decay))
    steps = epochs * (50_000 // batch_size)
    assert chosen.schedule == "cosine" and 0 < chosen.warmup_steps < steps / 3


def test_activation_and_pooling_of_a_published_model_are_those_of_its_authors():
    shapes: dict[str, Any] = {}
    for name in (backbone.name for backbone in BACKBONES):
        shapes[name] = configuration.make_model(configuration.load(f"{FOLDER}/finetune.py:{name}"), 10)
    assert {name: shape.activation for name, shape in shapes.items() if shape.activation != "gelu"} == {
        "siglip-base": "gelu_tanh",
        "siglip2-base": "gelu_tanh",
        "clip-base": "quick_gelu",
        "vit-base": "gelu_tanh",
    }
    assert {name: shape.layout.pool for name, shape in shapes.items() if shape.layout.pool != "token"} == {
        "siglip-base": "map",
        "siglip2-base": "map",
        "deit-small-distilled": "distilled",
        "mae-base": "mean",
    }


@pytest.mark.parametrize(("name", "message"), [(":swin", "has no model 'swin': use one of"), ("", "name one")])
def test_an_unknown_published_model_lists_the_names_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        configuration.load(f"{FOLDER}/finetune.py{name}")
    error = str(caught.value)
    assert (
        ", ".join(backbone.name for backbone in BACKBONES) in error and "\n" not in error and "UserError" not in error
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenette"])
def test_the_papers_protocol(name):
    config = configuration.load(str(CONFIGS[0].parent / f"{name}.py"))
    assert (config.model, config.image_size, config.epochs, config.batch_size) == ("ViT-B/16", 224, 15, 32)
    assert (config.encryption, config.adapt, config.augmentation) == ("bs+ps", True, "none")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.001, 0.9)
    assert (optimizer.weight_decay, optimizer.schedule, optimizer.warmup_steps) == (0.0005, "constant", 0)


def test_overrides():
    config = configuration.load(
        DEMO,
        [
            "--config.epochs=7",
            "--config.optimizer.learning_rate=0.5",
            "--config.adapt=False",
            "--config.freeze=('a.*','b')",
            "--config.data.dir=/somewhere",
            "--config.data.in_memory=auto",
        ],
    )
    assert (config.epochs, config.optimizer.learning_rate, config.adapt) == (7, 0.5, False)
    assert (config.freeze, config.data.dir) == (("a.*", "b"), "/somewhere")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.epoch=3", "demo.py with --config.epoch=3: there is no field 'epoch' Did you mean \"epochs\""),
        ("--config.optimizer.lr=1", "no field 'lr'"),
        ("--config.epochs=many", "invalid literal for int.*many"),
        ("--config.epochs=0", "config.epochs is 0: give at least 1"),
        ("--config.seed=-1", "config.seed is -1: give at least 0"),
        ("--config.encryption=aes", "unknown encryption 'aes': use none or one of bs, ps"),
        ("--config.model=ResNet-50", "unknown model 'ResNet-50'"),
        ("--config.image_size=65", "image size 65 is not a multiple of the patch size 8"),
        ("--config.dtype=float16", "config.dtype is 'float16': use one of 'float32', 'bfloat16', 'float64'"),
        ("--config.head=old", "config.head is 'old'"),
        ("--config.augmentation=mixup", "config.augmentation is 'mixup'"),
        ("--config.optimizer.name=lion", "config.optimizer.name is 'lion'"),
        ("--config.optimizer.schedule=linear", "config.optimizer.schedule is 'linear'"),
        ("--config.optimizer.learning_rate=0.0", "learning_rate is 0.0: give a positive number"),
        ("--config.optimizer.learning_rate=nan", "learning_rate is nan"),
        ("--config.accumulation=3", "batch_size 32 is not a multiple of config.accumulation 3"),
        ("--config.std=(0.5,0.5)", "three numbers"),
        ("--config.std=(0.5,0.5,0.0)", "those of std positive"),
        ("--config.mean=(0.485,0.456,0.406)", "pixel shuffling mixes channels"),
        ("--config.std=(0.229,0.224,0.225)", "pixel shuffling mixes channels"),
        ("--epochs=3", "Unknown command line flag 'epochs'"),
        ("epochs=3", "unknown arguments epochs=3"),
    ],
)
def test_what_makes_no_sense_is_named_in_one_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        configuration.load(DEMO, [override])
    assert "\n" not in str(caught.value)


def test_constants_of_each_channel_are_allowed_where_nothing_is_adapted():
    for override in ("--config.adapt=False", "--config.encryption=none"):
        configuration.load(DEMO, ["--config.mean=(0.485,0.456,0.406)", override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(: pass", "invalid syntax"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("x = 1", "get_config"),
        (
            "from ppvit_jax.config import default_config as d\n"
            "def get_config():\n    c = d()\n    c.rate = 1\n    return c",
            "no field.*rate|has no attribute.*rate|rate.*locked",
        ),
        ("def get_config():\n    return 5", "'int' object"),
        (
            "from ml_collections import ConfigDict as C\ndef get_config():\n    return C({'seed': 1})",
            "lacks accumulation",
        ),
        ("def get_config():\n    raise RuntimeError('broken inside')", "broken inside"),
    ],
)
def test_a_broken_configuration_file_is_named(tmp_path, monkeypatch, text, message):
    # ml_collections reloads one module for all files; a process of the command line loads only one.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        configuration.load(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no configuration file"):
        configuration.load(str(tmp_path / "missing.py"))


def test_the_packages_configurations_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configuration.find_file("configs/demo.py") == FOLDER / "demo.py"
    assert configuration.load("configs/table2.py:etc_vit").encryption == "etc"
    for name in ("demo.py", "other/demo.py", "configs/other.py", f"{tmp_path}/configs/demo.py"):
        with pytest.raises(UserError, match=f"no configuration file {name}: give a path, or one of configs/cifar10.py"):
            configuration.find_file(name)
    # A file of this name in the current folder wins.
    (own := tmp_path / "configs").mkdir()
    (own / "demo.py").write_text("")
    assert configuration.find_file("configs/demo.py").samefile(own / "demo.py")


def fields(config, prefix=""):
    for name in config:
        if hasattr(config[name], "keys"):
            yield from fields(config[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", config[name]


FIELDS = dict(fields(configuration.default_config()))
NUMBERS = [name for name, value in FIELDS.items() if isinstance(value, int | float) and not isinstance(value, bool)]

UNLIMITED = ("seed", "optimizer.clip_norm", "optimizer.decay", "optimizer.learning_rate", "optimizer.weight_decay")


def test_every_number_has_a_range():
    assert {name for name in NUMBERS if not name.startswith("model_options.")} <= set(RANGES)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, 10**12, True, "3", None])
def test_impossible_numbers_are_named_in_one_line(name, value):
    config = configuration.load(DEMO)
    *parts, last = name.split(".")
    part = config
    for each in parts:
        part = part[each]
    # A configuration file is a program, which can go round the checks of types.
    with part.ignore_type():
        setattr(part, last, value)
    # Large numbers are possible there, and ml_collections makes a number of True.
    if (value == 10**12 and name in UNLIMITED) or (value is True and isinstance(FIELDS[name], float)):
        return
    with pytest.raises(UserError) as caught:
        configuration.check(config)
    message = str(caught.value)
    assert "\n" not in message and name.rpartition(".")[2] in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", (0.5, math.nan, 0.5)),
        ("std", (0.5, 0.5, math.inf)),
        ("std", "0.5"),
        ("mean", (0.5, "a", 0.5)),
        ("optimizer.milestones", (0.2, math.nan)),
        ("freeze", "head"),
        ("freeze", (1,)),
        ("adapt", "yes"),
        ("tensorboard", 1),
        ("checkpoint", 5),
        ("data.dir", None),
        ("data.dir", "gs://bucket/images"),
        ("key_file", "s3://bucket/key"),
    ],
)
def test_values_of_another_type_are_named_in_one_line(name, value):
    config = configuration.load(DEMO)
    part = config.optimizer if name.startswith("opt") else config.data if name.startswith("data") else config
    with part.ignore_type():
        setattr(part, name.rpartition(".")[2], value)
    with pytest.raises(UserError) as caught:
        configuration.check(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in NUMBERS if isinstance(FIELDS[name], int)])
def test_text_in_place_of_a_number_is_named_in_one_line(name):
    with pytest.raises(UserError, match="many") as caught:
        configuration.load(DEMO, [f"--config.{name}=many"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuning.method=qlora"], "config.tuning.method is 'qlora': use one of 'full', 'lora', 'probe'"),
        (["tuning.method=lora", "checkpoint="], "config.checkpoint is empty"),
        (["tuning.method=probe", "freeze=('head/.*',)"], "config.freeze is for config.tuning.method=full"),
        (
            ["tuning.method=lora", "model=ResNet-18", "encryption=none"],
            "is for Vision Transformers, and config.model=ResNet-18",
        ),
        (["tuning.method=probe", "model=ConvMixer-64/2", "model_options.patch_size=8"], "is for Vision Transformers"),
        (["tuning.method=lora", "tuning.layers=('head',)"], "'head' matches no layer"),
        (["tuning.method=lora", "tuning.rank=0"], "config.tuning.rank is 0: give at least 1"),
    ],
)
def test_a_method_of_tuning_that_does_not_fit_is_one_line(overrides, message):
    with pytest.raises(UserError) as caught:
        configuration.load(DEMO, [f"--config.{override}" for override in overrides])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=both"], "config.task is 'both': use one of 'single_label', 'multi_label'"),
        (
            ["best_by=test_accuracy", "data.validation=0.1"],
            "weights that the test images choose make the test",
        ),
        (["best_by=val_accuracy"], "but there are no validation images: set config.data.validation to a split"),
        (
            ["best_by=accuracy", "data.validation=0.1"],
            "config.best_by is 'accuracy': use one of val_loss, ",
        ),
        (
            ["best_by=val_roc_auc", "data.validation=0.1", "task=multi_label"],
            "use one of .*val_label_accuracy",
        ),
        (["patience=3", "data.validation=0.1"], "config.patience is 3, but config.best_by is empty: name the measure"),
        (["patience=-1"], "config.patience is -1: give at least 0"),
        (["data.validation=1.5"], "config.data.validation is 1.5: give a fraction between 0 and 1"),
        (["task=multi_label", "class_weights=balanced"], "config.class_weights is 'balanced', which needs one label"),
        (["task=multi_label", "label_smoothing=0.1"], "config.label_smoothing is 0.1, which needs one label per image"),
    ],
)
def test_fields_of_the_evaluation_are_checked_together(overrides, message):
    with pytest.raises(UserError, match=message):
        configuration.load(DEMO, [f"--config.{override}" for override in overrides])
