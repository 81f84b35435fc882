"""Tests of the help of every command, subcommand and conversion script."""

import argparse
import importlib
import itertools
import pkgutil
import re
import shlex

import pytest
from helpers.command import make_key, run_ppvit
from helpers.convert import convert
from helpers.tiny import random_params, tiny_model
from helpers.transformers import tiny_transformer

import checkpoints_convert
from ppvit_jax import adaptation, checkpoint, commands, encryption, models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.commands.shared.encryption_choices import adaptable_encryptions, image_encryptions
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.models.families import FAMILIES

COMMANDS = [module.name for module in pkgutil.iter_modules(commands.__path__) if not module.ispkg]
SCRIPTS = [module.name for module in pkgutil.iter_modules(checkpoints_convert.__path__) if "_to_" in module.name]
# Values of the options with text values, beside the defaults.
TEXT_OPTIONS = {"sub_block": ["whole"], "shared": ["blocks", "none"], "channels": ["none"], "keys": ["per_image"]}


def subcommands(parser):
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(child for group in choices for child in group.values())]


def parsers():
    for name in COMMANDS:
        module = importlib.import_module(f"ppvit_jax.commands.{name}")
        if hasattr(module, "add_arguments"):
            parser = argparse.ArgumentParser(prog=f"ppvit {name}")
            module.add_arguments(parser)
            yield from subcommands(parser)


PARSERS = {parser.prog: parser for parser in parsers()}


def actions(parser):
    skipped = (argparse._HelpAction, argparse._SubParsersAction)
    return [action for action in parser._actions if not isinstance(action, skipped)]


@pytest.mark.parametrize("prog", PARSERS)
def test_a_command_says_what_it_does_and_shows_examples_that_it_accepts(prog):
    parser = PARSERS[prog]
    assert re.match(r"[A-Z][a-z-]+s\b.*\.$", parser.description, re.DOTALL), parser.description
    examples = [line.strip() for line in parser.epilog.splitlines() if line.startswith("  ")]
    assert examples
    for example in examples:
        _, name, *arguments = shlex.split(example)
        assert example.startswith(prog)
        if "--help" not in arguments:
            PARSERS[f"ppvit {name}"].parse_args(arguments)


@pytest.mark.parametrize("prog", PARSERS)
def test_an_option_has_a_help_of_its_own_with_its_default(prog):
    for action in actions(PARSERS[prog]):
        name = "/".join(action.option_strings) or action.dest
        text = action.help or ""
        assert len(text.split()) > 2 and not re.match(r"of |as |to |for |such |\(", text), f"{name}: {text}"
        takes_a_value = action.nargs != 0
        assert not takes_a_value or action.metavar or action.choices, f"{name} has no metavar"
        if takes_a_value and action.default not in (None, "", []):
            assert "(default: " in text, f"{name}: {text}"
        assert not re.search("centre|colour|grey|optimis|normalis|behaviour", text), f"{name}: {text}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_converts(name, capsys):
    assert convert(name, "--help") == 0
    text = capsys.readouterr().out
    assert re.search(r"\n\nConverts .*?\.\n", text, re.DOTALL)
    assert f"\nexample:\n  python -m checkpoints_convert.{name} " in text


def variants(name):
    """Returns every encryption that a method and one value of each of its options make."""
    method = encryption.METHODS[name]
    options = []
    for field, default in ((field.name, getattr(method, field.name, None)) for field in _fields(method)):
        values = [not default] if isinstance(default, bool) else TEXT_OPTIONS.get(field, [])
        options.append(["", *(f"{field}={value}" for value in values)])
    for chosen in itertools.product(*options):
        spec = f"{name}:{','.join(filter(None, chosen))}".removesuffix(":")
        try:
            encryption.parse(spec, 4)
        except UserError:
            continue
        yield spec


def _fields(method):
    return [field for field in method.__dataclass_fields__.values() if field.name != "block_size"]


def families():
    """Returns a model of each family that can be adapted."""
    options = {"patch_size": 4, "kernel_size": 3, "adaptive_matrix": "softmax"}
    convmixer = models.parse_name("ConvMixer-16/2", image_size=16, num_classes=3, options=options)
    transformers = {name: tiny_transformer(f"{name}/4", image_size=16) for name in ("DINOv2-S", "SigLIP-B", "CLIP-B")}
    shapes = {"ViT": tiny_model(), "ConvMixer": convmixer, **transformers}
    return {name: random_params(shape) for name, shape in shapes.items()}


def is_adapted(params, spec):
    try:
        method = encryption.parse(spec, 4)
        adaptation.adapt(params, method.absorb(SecretKey(bytes(32)), height=16, width=16))
    except UserError:
        return False
    return True


@pytest.mark.parametrize("family", ["ViT", "ConvMixer", "DINOv2-S", "SigLIP-B", "CLIP-B"])
def test_help_names_the_encryptions_that_a_family_can_be_adapted_to(family):
    params = families()[family]
    named = adaptable_encryptions()
    assert all(is_adapted(params, spec) for spec in named)
    possible = {name for name in encryption.METHODS if any(is_adapted(params, spec) for spec in variants(name))}
    assert {spec.partition(":")[0] for spec in named} == possible < encryption.METHODS.keys()


@pytest.mark.parametrize("command", ["adapt", "restore", "rekey", "predict"])
def test_the_help_of_a_checkpoint_names_every_family_that_is_read(command):
    (action,) = [action for action in actions(PARSERS[f"ppvit {command}"]) if action.dest == "checkpoint"]
    titles = [family.title for family in FAMILIES if family.infer is not None]
    assert len(titles) > 6 and all(title in action.help for title in titles)


@pytest.mark.parametrize("command", ["adapt", "restore", "rekey"])
def test_the_help_of_the_commands_on_models_lists_these_alone(command):
    (action,) = [action for action in actions(PARSERS[f"ppvit {command}"]) if action.dest == "encryption"]
    listed = re.search(r": (.*?); options", action.help)
    assert listed and re.split(", | or ", listed[1]) == adaptable_encryptions()


@pytest.mark.slow
def test_adapt_takes_what_its_help_lists_and_refuses_the_rest(tmp_path, capsys):
    checkpoint.write(tmp_path / "plain.npz", random_params(tiny_model()), Metadata(image_size=16))
    options = ["--key", make_key(tmp_path, 1), "--checkpoint", tmp_path / "plain.npz", "--image-size=16"]
    for number, spec in enumerate((*adaptable_encryptions(), "pe", "le", "ele", "etc", "neuracrypt")):
        output = tmp_path / f"{number}.npz"
        status = run_ppvit("adapt", *options, "--encryption", spec, "--output", output)
        assert status == (0 if spec in adaptable_encryptions() else 1), spec
        assert output.exists() == (status == 0)
        assert status == 0 or f"a model cannot be adapted to {spec}" in capsys.readouterr().err


def test_help_names_the_encryptions_whose_results_files_can_hold(tmp_path, capsys):
    assert set(image_encryptions()) == set(encryption.METHODS) - {"neuracrypt", "color-neuracrypt"}
    for name in ("encrypt", "decrypt", "audit dictionary"):
        (action,) = [action for action in actions(PARSERS[f"ppvit {name}"]) if action.dest == "encryption"]
        listed = re.search(r": (.*?); options", action.help)
        assert listed and re.split(", | or ", listed[1]) == image_encryptions()
