"""Whether a sweep that decides for itself runs more seeds, and how many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.inputs.preregistration import Declared
from analysis.protocol.advice import AT_ONCE, go_on, plan, reach
from analysis.protocol.claim_statistics import Verdict
from analysis.protocol.claims import Claim
from analysis.protocol.decision import rule
from jepa_ray.config import Arm
from jepa_ray.results import Look

ARMS = (Arm("jepa", "llama3", "nl-rx", "jepa", "claim", "base"),)


def case(
    gain: float, *, seeds: int = 5, examples: int = 400, spread: float = 0.01, differ: float = 0.1, margin: float = 0.01
) -> tuple[Verdict, Claim, Declared]:
    """A method with this mean gain, of this spread over seeds, and answers that differ on this share of examples."""
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 1, seeds)
    shifts = gain + spread * (shifts - shifts.mean()) / shifts.std(ddof=1)
    right_SN = rng.random((seeds, examples)) < 0.5
    ours_SN = right_SN.copy()
    for row, shift in zip(ours_SN, shifts, strict=True):
        up = round(examples * (differ + shift) / 2)
        down = round(examples * (differ - shift) / 2)
        row[rng.permutation(np.flatnonzero(~row))[: max(up, 0)]] = True
        row[rng.permutation(np.flatnonzero(row))[: max(down, 0)]] = False
    ours, theirs = (dict(enumerate(map(float, one.mean(axis=1)))) for one in (ours_SN, right_SN))
    claim = Claim("jepa", "base", "claim", "nl-rx", "llama3", "tiny", ours, theirs, (ours_SN, right_SN))
    declared = Declared(arms=ARMS, seeds=tuple(range(seeds)))
    (verdict,) = rule([claim], "test_accuracy", margin, declared)[0]
    plan(verdict, claim, margin, declared)
    return verdict, claim, declared


def asked(made: tuple[Verdict, Claim, Declared], most: int, margin: float = 0.01) -> tuple[int, str]:
    verdict, claim, declared = made
    number, sentences = go_on([verdict], [claim], margin, most, declared)
    return number, " ".join(sentences)


def test_as_many_as_the_verdict_asks_for_within_what_the_weights_allow() -> None:
    made = case(0.002, examples=4000, spread=0.008)
    needed = made[0].seeds_needed
    assert needed is not None and 5 < needed <= 5 + AT_ONCE * 5
    number, sentence = asked(made, 40)
    assert number == needed and f"{needed - 5} more seeds would detect 1 point; going on to {needed}" in sentence
    assert asked(made, needed)[0] == needed, "the limit is inclusive"


def test_hopeless_is_what_no_allowed_number_of_seeds_would_show() -> None:
    made = case(0.0, spread=0.03)
    number, sentence = asked(made, 6)
    assert number == 5 and "hopeless" in sentence and "even 6 seeds detect only" in sentence
    assert reach(*made[:2], 6, made[2]) > max(abs(made[0].interval.low), abs(made[0].interval.high))  # type: ignore[union-attr]


def test_an_effect_that_may_be_large_is_looked_at_again_even_if_the_margin_is_out_of_reach() -> None:
    made = case(0.04, spread=0.04, examples=200)
    assert made[0].verdict == "undecided" and (made[0].seeds_needed is None or made[0].seeds_needed > 20)
    number, sentence = asked(made, 20)
    assert number == 20 and "its interval reaches" in sentence
    assert asked(made, 200)[0] == 5 + int(AT_ONCE * 5) or asked(made, 200)[0] == made[0].seeds_needed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"p_holm": 0.02}, "what it lacks does not depend on seeds"),
        ({"p_holm": 0.01}, "what it lacks does not depend on seeds"),
    ],
)
def test_what_seeds_do_not_settle(change: dict[str, Any], words: str) -> None:
    verdict, claim, declared = case(0.0)
    for name, value in change.items():
        setattr(verdict, name, value)
    number, sentence = asked((verdict, claim, declared), 40)
    assert number == 5 and words in sentence


def test_what_cannot_be_tested_runs_as_many_again_once() -> None:
    """A few seeds that agree exactly say nothing; others may not."""
    verdict, claim, declared = case(0.0)
    verdict.p = None
    number, sentence = asked((verdict, claim, declared), 40)
    assert number == 10 and "cannot be tested: as many again may differ; going on to 10" in sentence
    look = Look(looked_at="now", why="verdict", seeds=(), race=(), trials={})
    assert asked((verdict, claim, replace(declared, looked=(look, look))), 40) == (
        5,
        "jepa against base is undecided after 5 seeds, and cannot be tested",
    )


def test_decided_and_incomplete_claims_ask_for_nothing() -> None:
    verdict, claim, declared = case(0.0)
    assert go_on([verdict], [claim], 0.01, 5, declared)[1][0].endswith("which are all that confirm.max_seeds allows")
    verdict.conditions = []
    assert go_on([verdict], [claim], 0.01, 40, declared) == (5, [])
    assert asked(case(0.2), 40) == (
        5,
        "jepa against base is undecided after 5 seeds: it is significant, and what it lacks does not depend on seeds",
    )
