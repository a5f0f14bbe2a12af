"""What more seeds would show, and whether a sweep that decides for itself (`confirm.until`) runs them.

Everything follows from the spread seen so far and from the rule for looks: a plan of new seeds is tested at the level of its own look, with
the weights of its own stages, so the next verdict keeps what this one promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.inputs.preregistration import Declared
from analysis.protocol.claim_statistics import LEVEL, UNDECLARED, Verdict, gaps_by_answer, gaps_by_seed
from analysis.protocol.claims import Claim
from analysis.stats import crossed, looks
from analysis.text_tables import counted, points, sized

POWER = 0.8
PLANS = (5, 10, 20)
AT_ONCE = 4.5
"""Most new seeds of a look, relative to those before it: beyond, the weights of the stages cost more than 3 % of them."""


def planned_level(claims: int) -> float:
    """The nominal level of a new plan's tests, for the smallest of this many p (Holm): part of the error is kept for later looks."""
    return looks.alpha_of(1, LEVEL / claims)


def plan(found: Verdict, claim: Claim, margin: float, declared: Declared = UNDECLARED) -> None:
    """Add what a new plan of 5, 10 and 20 seeds would detect, and how many seeds the next look needs.

    At the level that Holm's correction requires of the smallest p of the family.
    """
    if found.p is None:
        return
    parts, have = _parts(found, claim), len(claim.ours)
    wanted: dict[str, Any] = {"examples": parts.examples, "power": POWER}
    found.detectable = crossed.plan(parts, seeds=PLANS, alpha=planned_level(found.family_size), **wanted)
    history = _history(found, claim)
    level = looks.level(history, LEVEL / found.family_size)
    if crossed.detectable(parts, seeds=have, alpha=level, stages=looks.stages(history), **wanted) <= margin:
        found.seeds_needed = have
        return
    alpha = looks.level(_extended(found, claim, have + 1, declared), LEVEL / found.family_size)
    found.seeds_needed = crossed.seeds_needed(
        parts,
        margin,
        alpha=alpha,
        have=have,
        stages=lambda seeds: looks.stages(_extended(found, claim, seeds, declared)),
        **wanted,
    )


def reach(found: Verdict, claim: Claim, seeds: int, declared: Declared = UNDECLARED) -> float:
    """The smallest difference, as a share, that the next look detects with power 0.8 if it has `seeds` in all."""
    parts, history = _parts(found, claim), _extended(found, claim, seeds, declared)
    alpha = looks.level(history, LEVEL / found.family_size)
    return crossed.detectable(parts, seeds=seeds, examples=parts.examples, power=POWER, alpha=alpha, stages=looks.stages(history))


def go_on(verdicts: Sequence[Verdict], claims: Sequence[Claim], margin: float, most: int, declared: Declared) -> tuple[int, list[str]]:
    """How many seeds to run in all until the next look, and a sentence for each undecided claim: as many as the claim that asks for most.

    A claim asks for none if it is decided, if even `most` seeds would not detect the largest difference that its interval leaves open
    (hopeless), or if it is significant and lacks something that seeds do not bring. `verdicts` and `claims` belong together one by one.
    """
    number, sentences = len(declared.seeds), []
    for found, claim in zip(verdicts, claims, strict=True):
        if found.kind != "claim" or found.verdict != "undecided" or not found.complete:
            continue
        have, head = len(found.seeds), f"{found.method} against {found.baseline} is undecided after {counted(len(found.seeds), 'seed')}"
        if found.p is None or found.interval is None:
            again = min(2 * have, most)
            if len(declared.looked) > 1 or again == have:
                sentences.append(f"{head}, and cannot be tested")
                continue
            number = max(number, again)
            sentences.append(f"{head} and cannot be tested: as many again may differ; going on to {again}")
            continue
        if found.p_holm is not None and found.p_holm < LEVEL:
            sentences.append(f"{head}: it is significant, and what it lacks does not depend on seeds")
            continue
        if have >= most:
            sentences.append(f"{head}, which are all that confirm.max_seeds allows")
            continue
        plausible = max(abs(found.interval.low), abs(found.interval.high))
        needed, limit = found.seeds_needed, min(most, have + int(AT_ONCE * have))
        if needed is not None and needed <= most:
            target = min(limit, needed if needed > have else 2 * have)
            why = (
                f"{counted(needed - have, 'more seed')} would detect {sized(margin)}"
                if needed > have
                else "as many again are run, as far as allowed"
            )
        elif (smallest := reach(found, claim, most, declared)) <= plausible:
            target, why = (
                limit,
                f"its interval reaches {points(plausible).lstrip('+')} points, and {most} seeds detect {100 * smallest:.2f}",
            )
        else:
            bound = f"its interval ends at {100 * plausible:.2f} points, and even {most} seeds detect only {100 * smallest:.2f}"
            sentences.append(f"{head} and hopeless: {bound}")
            continue
        number = max(number, target)
        sentences.append(f"{head}: {why}; going on to {target}")
    return number, sentences


def _parts(found: Verdict, claim: Claim) -> crossed.Components:
    if claim.right is not None and found.interval is not None:
        return crossed.components(gaps_by_answer(claim.right), claim.clusters)
    # scores by seed only: one placeholder example carries all the spread
    spread = float(np.var(gaps_by_seed(claim), ddof=1))
    return crossed.Components(seeds=len(found.seeds), examples=1, mean=0.0, var_seed=spread, var_example=0.0, var_residual=0.0)


def _history(found: Verdict, claim: Claim) -> looks.History:
    return claim.history or (looks.Stage(len(claim.ours), race=tuple(found.looks)),)


def _extended(found: Verdict, claim: Claim, seeds: int, declared: Declared) -> looks.History:
    """The history if the next look has `seeds` in all."""
    history = _history(found, claim)
    number = 1 + max(len(declared.looked), history[-1].number)
    return looks.extended(history, max(1, seeds - len(claim.ours)), number=number)
