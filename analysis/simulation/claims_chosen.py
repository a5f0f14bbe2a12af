"""How often a sweep is wrong if its user declares a claim because of what the results showed, without any effect.

M methods are claimed against their baseline. After the first look the user adds the pair of arms, among all that were not declared, that
differs most (smallest p), looks again, then runs more seeds and looks once more. `rule` counts as `Declared` does: the late claim begins at
the second look, and the family is then all pairs. `naive` tests the chosen pair, all seeds together, at 5 %.

M methods, P pairs, R replicates, S seeds, N examples.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from analysis.simulation.going_on import larger_p
from analysis.simulation.sweeps import LEVEL, Design, Rate, both_p, confirmations
from analysis.stats import looks
from analysis.stats.looks import Stage


def chosen_claims(design: Design, replicates: int, methods: int = 3, seed: int = 0, *, start: int = 5) -> dict[str, Rate]:
    """Share of sweeps in which any claim is significant at any look. `design.seeds` is the number of seeds at the last look."""
    if design.seeds <= start or methods < 2:
        raise ValueError(f"needs at least 2 methods and more than {start} seeds; there are {methods} methods and {design.seeds} seeds")
    random, hits = np.random.default_rng(seed), {"rule": 0, "naive": 0}
    pairs = list(combinations(range(methods + 1), 2))
    declared = [place for place, (one, _) in enumerate(pairs) if one == 0]
    others = [place for place in range(len(pairs)) if place not in declared]
    for right_ARSN in confirmations(replace(design, cells=1, val_examples=2), replicates, random, arms=methods + 1):
        D_PRSN = np.stack([right_ARSN[b].astype(np.float64) - right_ARSN[a] for a, b in pairs])
        first_PR = np.stack([np.maximum(*both_p(D_RSN[:, :start])) for D_RSN in D_PRSN])
        wrong_R = (first_PR[declared] < looks.level((Stage(start),), LEVEL / methods)).any(axis=0)
        naive_R = (first_PR[declared] < LEVEL / methods).any(axis=0)
        late_R = np.array(others)[first_PR[others].argmin(axis=0)]
        D_RSN = D_PRSN[late_R, np.arange(len(late_R))]
        wrong_R |= larger_p(D_RSN[:, :start], (Stage(start, 2),)) < looks.level((Stage(start, 2),), LEVEL / len(pairs))
        naive_R |= first_PR[others].min(axis=0) < LEVEL
        more = design.seeds - start
        for history, inside in (((Stage(start, 2), Stage(more, 3)), [D_RSN]), ((Stage(start), Stage(more, 3)), D_PRSN[declared])):
            for one_RSN in inside:
                wrong_R |= larger_p(one_RSN, history) < looks.level(history, LEVEL / len(pairs))
        naive_R |= np.maximum(*both_p(D_RSN)) < LEVEL
        hits["rule"] += int(wrong_R.sum())
        hits["naive"] += int(naive_R.sum())
    return {name: Rate(hits=count, n=replicates) for name, count in hits.items()}
