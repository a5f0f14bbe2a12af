"""How often verdicts are right or wrong in simulated sweeps: families of claims, races, and `decision.rule` itself end to end.

Outcomes are simulated by `sweeps.py`. `family` and `raced` compute the tests of many replicates at once, with the same formulas; `ruled`
passes each replicate to the functions that handle a user's tables (`sequential.decide`, then `decision.rule`). A test compares the two.

A arms, the baseline first; R replicates, S seeds, N examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.inputs.preregistration import Declared
from analysis.protocol.claim_statistics import LEVEL, Verdict
from analysis.protocol.claims import Claim
from analysis.protocol.decision import rule
from analysis.protocol.equal_cost import Panel
from analysis.simulation.sweeps import Design, Rate, both_p, confirmations
from analysis.stats import sequential
from analysis.stats.looks import alpha_of
from jepa_ray.results import Arm

METRIC = "test_accuracy"


def family(design: Design, claims: int, replicates: int, seed: int = 0) -> dict[str, Rate]:
    """Rates of sweeps, of several methods with one baseline, in which any claim is significant after Holm's correction.

    `corrected`: the larger of both p is corrected, as in a verdict. `seeds corrected only`: only the paired t-test is corrected, and the
    test over seeds x examples has 5 % per claim.
    """
    random = np.random.default_rng(seed)
    hits = {"corrected": 0, "seeds corrected only": 0}
    for right_ARSN in confirmations(design, replicates, random, claims + 1):
        p_2AR = np.stack([both_p(ours_RSN.astype(np.float64) - right_ARSN[0]) for ours_RSN in right_ARSN[1:]], axis=1)
        # Holm rejects at least one claim exactly if the smallest p is below level / claims.
        hits["corrected"] += int((p_2AR.max(axis=0) < alpha_of(1, LEVEL) / claims).any(axis=0).sum())
        hits["seeds corrected only"] += int(((p_2AR[0] < alpha_of(1, LEVEL) / claims) & (p_2AR[1] < alpha_of(1, LEVEL))).any(axis=0).sum())
    return {name: Rate(hits=count, n=replicates) for name, count in hits.items()}


@dataclass(frozen=True, kw_only=True)
class Race:
    """Operating characteristics of a race against all seeds at once, on the same simulated runs."""

    significant: Rate
    """Both tests below the nominal level of the look at which the race ended."""
    at_any_look: Rate
    """Both tests below the nominal level at any look: the upper limit for every way of stopping."""
    better: Rate
    """Significant, above 0, and the margin reached."""
    fixed: Rate
    """Significant with all seeds, no race."""
    fixed_better: Rate
    futile: Rate
    """Stopped as hopeless before the last look."""
    seeds: float
    """Mean number of seeds that the race ran."""
    gain: float
    """Mean difference with all seeds: the effect to be found."""


def raced(design: Design, looks: Sequence[int], replicates: int, seed: int = 0, *, margin: float = 0.01) -> Race:
    """One claim, raced at these looks and, on the same runs, tested once at the end."""
    levels, random = sequential.spending(looks, alpha_of(1, LEVEL)), np.random.default_rng(seed)
    counts = dict.fromkeys(("significant", "at_any_look", "better", "fixed", "fixed_better", "futile"), 0)
    seeds, gain = 0, 0.0
    for right_ARSN in confirmations(_with_seeds(design, looks), replicates, random):
        D_RSN = right_ARSN[1].astype(np.float64) - right_ARSN[0]
        gain += float(D_RSN.mean(axis=(1, 2)).sum())
        going_R = np.ones(D_RSN.shape[0], dtype=bool)
        any_R = np.zeros_like(going_R)
        for look, level in zip(looks, levels, strict=True):
            d_RS = D_RSN[:, :look].mean(axis=2)
            p_R = np.maximum(*both_p(D_RSN[:, :look]))
            mean_R, se_R = d_RS.mean(axis=1), d_RS.std(axis=1, ddof=1) / math.sqrt(look)
            # Differences without spread cannot be tested, so the race continues (`sequential.decide`).
            decided_R, futile_R = (
                end_R & (np.ptp(d_RS, axis=1) > 1e-9) for end_R in sequential.ended(mean_R, se_R, look - 1, level, margin)
            )
            last = look == looks[-1]
            ends_R = going_R & (decided_R | futile_R | last)
            any_R |= p_R < level
            counts["significant"] += int((ends_R & (p_R < level)).sum())
            counts["better"] += int((ends_R & (p_R < level) & (mean_R >= margin)).sum())
            counts["futile"] += int((going_R & futile_R & ~decided_R).sum()) if not last else 0
            seeds += look * int(ends_R.sum())
            going_R &= ~ends_R
            if last:
                counts["fixed"] += int((p_R < LEVEL).sum())
                counts["fixed_better"] += int(((p_R < LEVEL) & (mean_R >= margin)).sum())
        counts["at_any_look"] += int(any_R.sum())
    return Race(
        seeds=seeds / replicates, gain=gain / replicates, **{name: Rate(hits=count, n=replicates) for name, count in counts.items()}
    )


def ruled(
    design: Design, replicates: int, seed: int = 0, *, claims: int = 1, looks: Sequence[int] = (), margin: float = 0.01
) -> dict[str, Rate]:
    """Rates of sweeps with any claim that `rule` finds significant, better, worse, equivalent; with looks, after `sequential.decide`."""
    hits = dict.fromkeys(("significant", "better", "worse", "equivalent"), 0)
    random = np.random.default_rng(seed)
    for right_ARSN in confirmations(_with_seeds(design, looks), replicates, random, claims + 1):
        for replicate in range(right_ARSN.shape[1]):
            verdicts = rulings(right_ARSN[:, replicate], looks, margin)
            hits["significant"] += any(v.p_holm is not None and v.p_holm < LEVEL and v.interval is not None for v in verdicts)
            for word in ("better", "worse", "equivalent"):
                hits[word] += any(v.verdict == word for v in verdicts)
    return {name: Rate(hits=count, n=replicates) for name, count in hits.items()}


def rulings(right_ASN: NDArray[np.bool_], looks: Sequence[int] = (), margin: float = 0.01) -> list[Verdict]:
    """The verdicts on one sweep's answers, raced at these looks; all other conditions agree with accuracy."""
    A, S, _ = right_ASN.shape
    scores_AS = right_ASN.mean(axis=2)
    claims = []
    for arm in range(1, A):
        differences = (scores_AS[arm] - scores_AS[0]).tolist()
        seeds = next((n for n in looks if not sequential.decide(differences[:n], n, looks, margin, alpha_of(1, LEVEL) / (A - 1)).go_on), S)
        ours, theirs = (dict(enumerate(scores_AS[i, :seeds].tolist())) for i in (arm, 0))
        gain = float(np.mean(differences[:seeds]))
        claim = Claim(f"method{arm}/simulated", "baseline/simulated", "claim", "simulated", "simulated", "simulated", ours, theirs)
        claim.right = right_ASN[arm, :seeds], right_ASN[0, :seeds]
        claim.stopping = {"prefix": gain, "contains": gain}
        claim.panels = [Panel(at="equal FLOPs", metric=METRIC, by_seed=dict(enumerate(differences[:seeds])), spent=1.0, how="the same")]
        claims.append(claim)
    sides = [("baseline", None), *((f"method{arm}", "baseline/simulated") for arm in range(1, A))]
    arms = [Arm(name, "simulated", "simulated", f"{name}/simulated", "claim" if twin else "baseline", twin) for name, twin in sides]
    plan = Declared(arms=tuple(arms), seeds=tuple(range(S)), looks=tuple(looks))
    return rule(claims, METRIC, margin, plan)[0]


def _with_seeds(design: Design, looks: Sequence[int]) -> Design:
    if looks and looks[-1] != design.seeds:
        raise ValueError(f"The last look of a race must be all {design.seeds} seeds; it is {looks[-1]}.")
    return design
