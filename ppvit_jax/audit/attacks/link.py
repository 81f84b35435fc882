"""Link attack: tells from two models, adapted with different keys, whether they share a base model."""

from ppvit_jax.audit.attack import Attack, Column, Finding, Inputs, Row, timed
from ppvit_jax.audit.solvers import link


def run(inputs: Inputs) -> Finding:
    """Runs `link.compare` on the two adapted models."""
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
    attacker_has="two models adapted with different keys; no base model and no image",
    needs=("model", "second_model"),
    label="tensors",
    column=Column("link: deviations above chance", "deviations above", place=2),
    run=run,
)
