"""The attacks of the audit, one file each, and the one list that names them."""

from ppvit_jax.audit.attack import Attack
from ppvit_jax.audit.attacks import ciphertext_only, dictionary, known_plaintext, link, position_embedding, weights

# In the order in which the command line and reports list them.
ATTACKS: tuple[Attack, ...] = (
    weights.ATTACK,
    known_plaintext.ATTACK,
    ciphertext_only.ATTACK,
    dictionary.ATTACK,
    link.ATTACK,
    position_embedding.ATTACK,
)


def named(name: str) -> Attack:
    """Returns the attack with this name."""
    return next(attack for attack in ATTACKS if attack.name == name)
