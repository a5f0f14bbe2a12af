"""Ranks of arms that are compared with each other, from the claims between them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from analysis.inputs.preregistration import Declared
from analysis.protocol.claims import Claim
from analysis.protocol.decision import rule
from analysis.protocol.ranking import Rank, rankings
from jepa_ray.config import Arm

SEEDS = (82, 23, 37, 84, 4)
EXAMPLES = 400


def claims_between(levels: dict[str, float], pairs: list[tuple[str, str]]) -> list[Claim]:
    """Each arm is right on the examples below its level, which varies by a few examples over seeds."""
    hardness_N = (np.arange(EXAMPLES) + 0.5) / EXAMPLES
    jitter = {arm: 0.005 * np.random.default_rng(place).integers(-1, 2, len(SEEDS)) for place, arm in enumerate(levels)}
    right = {arm: np.array([hardness_N < level + shift for shift in jitter[arm]]) for arm, level in levels.items()}
    scores = {arm: {seed: float(row.mean()) for seed, row in zip(SEEDS, rows, strict=True)} for arm, rows in right.items()}
    return [
        Claim(ours, theirs, "claim", "nl-rx", "llama3", "tiny", scores[ours], scores[theirs], (right[ours], right[theirs]))
        for ours, theirs in pairs
    ]


def ranks_of(levels: dict[str, float], pairs: list[tuple[str, str]] | None = None, seeds: tuple[int, ...] = SEEDS) -> list[Rank]:
    pairs = pairs if pairs is not None else [(later, earlier) for earlier, later in combinations(levels, 2)]
    arms = [Arm(arm, "llama3", "nl-rx", arm, against=tuple(b for a, b in pairs if a == arm)) for arm in levels]
    claims = claims_between(levels, pairs)
    return rankings(rule(claims, "test_accuracy", 0.01, Declared(arms=tuple(arms), seeds=seeds))[0], claims)


def test_arms_that_are_not_shown_to_differ_share_ranks() -> None:
    ranks = ranks_of({"baseline": 0.5, "jepa": 0.7, "infonce": 0.702, "bad": 0.2})
    assert {rank.arm: (rank.best, rank.worst) for rank in ranks} == {
        "infonce": (1, 2),
        "jepa": (1, 2),
        "baseline": (3, 3),
        "bad": (4, 4),
    }
    assert [rank.arm for rank in ranks][2:] == ["baseline", "bad"] and all(rank.of == 4 for rank in ranks)
    assert ranks[-1].score == pytest.approx(0.2, abs=0.005)


def test_the_order_in_which_a_pair_is_named_does_not_matter() -> None:
    levels = {"baseline": 0.5, "jepa": 0.7, "infonce": 0.6}
    pairs = [(earlier, later) for earlier, later in combinations(levels, 2)]
    assert ranks_of(levels) == ranks_of(levels, pairs)


def test_no_ranks_unless_every_two_arms_are_claimed_and_every_seed_is_there() -> None:
    levels = {"baseline": 0.5, "jepa": 0.7, "infonce": 0.2}
    assert ranks_of(levels, [("jepa", "baseline"), ("infonce", "baseline")]) == []
    assert ranks_of({"baseline": 0.5, "jepa": 0.7}) == [], "two arms: the claim says it"
    claims = claims_between(levels, [("jepa", "baseline"), ("infonce", "baseline"), ("infonce", "jepa")])
    for claim in claims:
        claim.doubt = "the tables do not belong together"
    verdicts = rule(claims, "test_accuracy", 0.01, Declared(seeds=SEEDS))[0]
    assert {(rank.best, rank.worst) for rank in rankings(verdicts, claims)} == {(1, 3)}
    assert {(rank.best, rank.worst) for rank in ranks_of(levels, seeds=(*SEEDS, 99))} == {(1, 3)}, "a seed is missing: nothing is shown"
