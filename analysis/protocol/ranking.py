"""The order of all arms where every two of them are compared: how good an arm can at best, and must at worst, be ranked.

The ranks hold together with 95 %, like the claims they come from: an arm is placed behind those that are shown to be better, and before
those that are shown to be worse. Arms between which nothing is shown share ranks.
Source: Mogstad, Romano, Shaikh, Wilhelm, "Inference for Ranks" (Review of Economic Studies 2024), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.protocol.claim_statistics import LEVEL, Verdict
from analysis.protocol.claims import Claim
from analysis.protocol.decision import WITHHELD

FEWEST = 3
"""Arms from which a ranking says more than a comparison."""


@dataclass(frozen=True)
class Rank:
    """The place of one arm among those of its task, family and model. 1 is the best."""

    arm: str
    task: str
    family: str
    model: str
    score: float
    """Mean of the metric over its seeds, a share in [0, 1]."""
    best: int
    worst: int
    of: int
    """Number of arms."""


def rankings(verdicts: Sequence[Verdict], claims: Sequence[Claim]) -> list[Rank]:
    """The ranks of all arms of a task, family and model, highest score first, if there are three or more, each claimed against each."""
    groups: dict[tuple[str, str, str], list[tuple[Verdict, Claim]]] = {}
    for verdict, claim in zip(verdicts, claims, strict=True):
        if verdict.kind == "claim" and verdict.baseline is not None and verdict.difference is not None:
            groups.setdefault((verdict.task, verdict.family, verdict.model), []).append((verdict, claim))
    out: list[Rank] = []
    for (task, family, model), inside in groups.items():
        scores: dict[str, dict[int, float]] = {}
        for verdict, claim in inside:
            for arm, of_arm in ((verdict.method, claim.ours), (str(verdict.baseline), claim.theirs)):
                scores[arm] = scores.get(arm, {}) | of_arm
        pairs = {frozenset((verdict.method, str(verdict.baseline))): verdict for verdict, _ in inside}
        if len(scores) < FEWEST or any(frozenset(pair) not in pairs for pair in combinations(scores, 2)):
            continue
        wins = [shown for verdict in pairs.values() if (shown := _shown(verdict)) is not None]
        ranks = []
        for arm, by_seed in scores.items():
            ahead, behind = sum(loser == arm for _, loser in wins), sum(winner == arm for winner, _ in wins)
            mean = float(np.mean(list(by_seed.values())))
            ranks.append(Rank(arm, task, family, model, mean, 1 + ahead, len(scores) - behind, len(scores)))
        out += sorted(ranks, key=lambda rank: -rank.score)
    return out


def _shown(verdict: Verdict) -> tuple[str, str] | None:
    """(the better arm, the worse one); None if nothing is shown."""
    interval = verdict.interval
    withheld = any(reason.name in WITHHELD for reason in verdict.conditions)
    if (
        withheld
        or not verdict.complete
        or verdict.p_holm is None
        or verdict.p_holm >= LEVEL
        or interval is None
        or interval.low <= 0 <= interval.high
    ):
        return None
    pair = (verdict.method, str(verdict.baseline))
    return pair if interval.low > 0 else pair[::-1]
