"""Tells whether two adapted models with different keys come from the same base."""

from ppvit_jax.audit.attack import Attack, Column, Finding, Inputs, Row, timed
from ppvit_jax.audit.solvers import link


def run(inputs: Inputs) -> Finding:
    """Runs `link.compare`."""
    assert inputs.model is not None and inputs.second_model is not None
    result, seconds = timed(link.compare, inputs.model, inputs.second_model)
    rows: list[Row] = [
        {
            "tensors": tensors,
            "mean cosine": statistic.value,
            "by chance": statistic.chance,
            "deviations above": statistic.z,
            "seconds, all": seconds,
        }
        for tensors, statistic in (
            ("encoder (no key moves it)", result.untouched),
            ("patch embedding, matched", result.patch),
            ("position embedding, matched", result.position),
        )
        if statistic is not None
    ]
    verdict = "linked" if result.linked else "not linked"
    return Finding(ATTACK.name, rows, f"{verdict}: {result.reason}", result.linked, seconds)


ATTACK = Attack(
    name="link",
    attacker_has="two adapted models of different keys; no base and no image",
    needs=("model", "second_model"),
    label="tensors",
    column=Column("link: deviations above chance", "deviations above", place=2),
    run=run,
)
