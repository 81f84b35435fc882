"""Comparison of methods by attacks: tries every attack on every encryption method, with several keys."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ppvit_jax.adaptation import adapt
from ppvit_jax.audit.attack import Attack, Counts, EncryptedImages, Finding, Inputs, Row
from ppvit_jax.data.progress import Progress
from ppvit_jax.encryption import Encryption
from ppvit_jax.errors import UserError
from ppvit_jax.keys import SecretKey
from ppvit_jax.models import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Models:
    """Plain Vision Transformers of one shape, to be adapted with every key.

    base: parameters of the public model.
    tuned: parameters of the same model after fine-tuning.
    patch_size, image_size: in pixels.
    """

    base: Params
    tuned: Params
    patch_size: int
    image_size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Images and models to try attacks on.

    plain: uint8 [n, side, side, 3]; None skips the attacks on images.
    reference: uint8 [m, side, side, 3], other images with similar content, or None.
    counts: numbers of images to attack with.
    noise: standard deviation, in gray levels, of the noise that the owner adds before encrypting; 0 for none.
    models: the models to adapt; None skips the attacks on models.
    """

    plain: np.ndarray | None
    reference: np.ndarray | None
    counts: Counts
    noise: float = 0.0
    models: Models | None = None

    def allows(self, attack: Attack) -> bool:
        """Returns True if the attack has images, or models, to run on."""
        return (self.models if attack.on_models else self.plain) is not None


@dataclasses.dataclass(frozen=True)
class Record:
    """One row of a finding, together with its method, attack, repetition (the number of the key) and draw of images.

    The draw is None if every key has a draw of its own.
    """

    method: str
    repetition: int
    attack: str
    succeeded: bool | None
    row: Row
    draw: int | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The results of all attacks on all methods.

    specs: the methods, in order.
    records: the rows of all findings.
    refused: the reasons why attacks do not apply, by method and attack.
    pictures: pairs of a method and a finding with pictures, for the first key only.
    """

    specs: list[str]
    records: list[Record]
    refused: dict[tuple[str, str], str]
    pictures: list[tuple[str, Finding]]


def experiment_key(seed: int, number: int) -> SecretKey:
    """Returns the key of one repetition. It is for experiments only: anyone who knows the seed can derive it."""
    return SecretKey(hashlib.sha256(f"ppvit audit {seed} {number}".encode()).digest())


def compare(
    methods: Sequence[Encryption],
    material: Material,
    attacks: Sequence[Attack],
    *,
    keys: int,
    seed: int,
    draws: int | None = None,
) -> Comparison:
    """Tries attacks on every method, with several keys. Attacks for which `material` has no data are skipped.

    Args:
      methods: the encryption methods, with their block sizes.
      material: images and models to attack.
      attacks: the attacks, in any order.
      keys: number of repetitions, each with a new key.
      seed: seed of the keys and of the order of the images.
      draws: number of draws of images, which every key encrypts; None gives every key one draw of its own.

    Returns:
      The results of all attacks on all methods.

    Raises:
      UserError: the images have a size that does not fit a method.
    """
    attacks = [attack for attack in attacks if material.allows(attack)]
    records: list[Record] = []
    refused: dict[tuple[str, str], str] = {}
    pictures: list[tuple[str, Finding]] = []
    draw_numbers: list[int | None] = [None] if draws is None else list(range(draws))
    progress = Progress("methods by attacks", len(methods) * len(draw_numbers) * keys * len(attacks), "attacks")
    attempts = itertools.count(1)
    for method, draw, number in itertools.product(methods, draw_numbers, range(keys)):
        findings, reasons = try_attacks(
            method, material, attacks, seed=seed, number=number, draw=draw, done=lambda: progress.update(next(attempts))
        )
        for finding in findings:
            name, succeeded = finding.attack, finding.succeeded
            records += [Record(method.spec, number, name, succeeded, row, draw) for row in finding.rows]
        refused |= {(method.spec, name): reason for name, reason in reasons.items()}
        if number == 0 and not draw:
            pictures += [(method.spec, finding) for finding in findings if finding.pictures]
    progress.close()
    return Comparison([method.spec for method in methods], records, refused, pictures)


def try_attacks(
    method: Encryption,
    material: Material,
    attacks: Sequence[Attack],
    *,
    seed: int,
    number: int,
    draw: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> tuple[list[Finding], dict[str, str]]:
    """Tries attacks on one method with one key.

    Args:
      method: the encryption method, with its block size.
      material: images and models to attack, as each of `attacks` needs them.
      attacks: the attacks, in any order.
      seed: as for `compare`.
      number: number of the repetition.
      draw: number of the draw of images; None draws them by the number of the repetition.
      done: function that is called after each attack.

    Returns:
      The findings, and the reasons why the other attacks do not apply, by attack.
    """
    key, second_key = experiment_key(seed, 2 * number), experiment_key(seed, 2 * number + 1)
    inputs = Inputs(counts=material.counts, reference=material.reference, seed=number, brief=True)
    not_adapted = ""
    if material.models:
        try:
            inputs = _adapt_models(inputs, method, material.models, key, second_key)
        except UserError as error:
            not_adapted = str(error)
    if material.plain is not None:
        random = np.random.default_rng([seed, number if draw is None else draw])
        inputs = _encrypt_images(inputs, method, material.plain, material.noise, key, random)
    findings, refused = [], {}
    for attack in sorted(attacks, key=lambda attack: attack.column.place):
        try:
            if attack.on_models and not_adapted:
                raise UserError(not_adapted)
            findings.append(attack.run(inputs))
        except UserError as error:
            refused[attack.name] = str(error)
        done()
    return findings, refused


def _adapt_models(inputs: Inputs, method: Encryption, models: Models, key: SecretKey, second_key: SecretKey) -> Inputs:
    size = {"height": models.image_size, "width": models.image_size}
    method = dataclasses.replace(method, block_size=models.patch_size)
    permutations = method.absorb(key, **size)
    return dataclasses.replace(
        inputs,
        base=models.base,
        model=adapt(models.tuned, permutations),
        second_model=adapt(models.tuned, method.absorb(second_key, **size)),
        permutations=permutations,
    )


def _encrypt_images(
    inputs: Inputs, method: Encryption, plain: np.ndarray, noise: float, key: SecretKey, random: np.random.Generator
) -> Inputs:
    plain = plain[random.permutation(len(plain))]
    noisy = None
    if noise:
        noisy = np.clip(np.rint(plain + random.normal(0, noise, plain.shape)), 0, 255).astype(np.uint8)
    secret = method.derive(key, height=plain.shape[1], width=plain.shape[2])
    images = method.encrypt(plain if noisy is None else noisy, secret, np.arange(len(plain), dtype=np.uint32))
    return dataclasses.replace(inputs, plain=plain, noisy=noisy, encrypted=EncryptedImages(images, method, secret))
