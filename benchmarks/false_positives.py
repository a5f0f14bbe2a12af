"""How often a comparison is significant although the method has no effect: our protocol and the paper's recipe, in the same simulator.

    python -m benchmarks.false_positives [--json] [--replicates N]

Our protocol (search on validation, frozen, fresh seeds, paired t and crossed interval) must stay within one point of 5 % at 5 and 10
seeds, for every composition of the variance. The paper's recipe (best of 20 cells by test accuracy, one-tailed t on the same five seeds)
is measured for several shares of the runs' variance that all cells of an arm have in common, with one baseline cell and with the best of
4 of them (`4 baselines`); its two-sided rate counts only results in favour of the method. `+-` is a rate's Monte-Carlo standard error.

Rates for cells that truly differ have no limit: two frozen cells then do differ, and a test that says so is right about these two.

Families have eight methods and one baseline. With the larger of both p corrected by Holm, any method may be significant in at most 5 %
of sweeps, to one point; the rate with only the seeds' p corrected is shown too. Races (`confirm.race`): both tests at any look, the
3.33 % of a first plan to one point under every stopping rule; also, compared with all seeds at once, how often a true gain is found
`better` and with how many seeds. `going on`: habits of adding seeds and methods after looking, 5.3 % at most; the same without a rule is
shown too. `rule`: the functions that process a user's tables, end to end, with a tenth of the replicates.
"""

from __future__ import annotations

import argparse

from analysis.simulation.claims_chosen import chosen_claims
from analysis.simulation.decisions import family, raced, ruled
from analysis.simulation.going_on import HABITS
from analysis.simulation.going_on import rates as going_on
from analysis.simulation.sweeps import LEVEL, Design, Rate, paper, protocol
from analysis.stats.looks import alpha_of
from benchmarks.timing import finish

WORLDS = {
    "plain": {},
    "seeds only": {"shared": 0.0},
    "small seed noise": {"run_sd": 0.1},
    "tastes": {"taste_sd": 0.3},
    "strong tastes": {"taste_sd": 0.6, "run_sd": 0.1},
    "32 examples": {"test_examples": 32},
}
"""Name of a simulated world -> fields of Design that differ from their defaults."""
SEEDS = (5, 10)
LOOKS = ((3, 5, 10), (5, 10, 20))
METHODS = 8
MOST_SEEDS = 40
"""Where those who go on stop at the latest."""
RACE = {"test_examples": 512, "run_sd": 0.05, "cells": 1, "val_examples": 2}
"""A race on a test set of common size between arms without a search: fields of Design."""
EFFECTS = (0.0, 0.05, 0.1, 0.2, 0.4)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CELLS = 20
"""The paper's grid: five k times four lambda."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.false_positives", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--replicates", type=int, default=40_000, help="comparisons per line of ours; a quarter for the paper's")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    limits: dict[str, tuple[str, float]] = {}

    def note(name: str, rate: Rate) -> None:
        figures[name] = rate.rate
        figures[f"{name} +-"] = rate.error

    def in_band(name: str, rate: Rate, level: float = LEVEL) -> None:
        # A figure has only one limit, so the band is expressed as a limit on the distance from the level.
        note(name, rate)
        off = f"{name}, off {100 * level:.3g} %"
        figures[off] = abs(rate.rate - level)
        limits[off] = ("<=", 0.01)

    def at_most(name: str, rate: Rate) -> None:
        note(name, rate)
        limits[name] = ("<=", 0.06)

    for seeds in SEEDS:
        for world, changes in WORLDS.items():
            rates = protocol(Design(seeds=seeds, **changes), options.replicates)  # type: ignore[arg-type]
            name = f"ours, {seeds} seeds, {world}"
            in_band(name, rates["both"])
            note(f"t alone, {seeds} seeds, {world}", rates["paired t"])
        note(f"ours, {seeds} seeds, cells differ", protocol(Design(seeds=seeds, cell_sd=0.2), options.replicates)["both"])
    for world in ("plain", "strong tastes"):
        design = Design(seeds=10, cells=1, val_examples=2, **WORLDS[world])  # type: ignore[arg-type]
        several = family(design, METHODS, max(1, options.replicates // 4))
        at_most(f"{METHODS} methods, {world}", several["corrected"])
        note(f"{METHODS} methods, seeds corrected only, {world}", several["seeds corrected only"])
    for looks in LOOKS:
        title = f"race {', '.join(map(str, looks))}"
        for world, changes in WORLDS.items():
            race = raced(Design(seeds=looks[-1], **changes), looks, max(1, options.replicates // 2))  # type: ignore[arg-type]
            in_band(f"{title}, any look, {world}", race.at_any_look, alpha_of(1, LEVEL))
            at_most(f"{title}, {world}", race.significant)
        for effect in EFFECTS:
            race = raced(Design(seeds=looks[-1], effect=effect, **RACE), looks, max(1, options.replicates // 8))  # type: ignore[arg-type]
            name = f"{title}, effect {effect:g}"
            figures |= {f"{name}, points": 100 * race.gain, f"{name}, seeds": race.seeds, f"{name}, futile": race.futile.rate}
            figures |= {f"{name}, better": race.better.rate, f"{name}, better with all": race.fixed_better.rate}
    few = max(1, options.replicates // 10)
    for seeds in SEEDS:
        rates = ruled(Design(seeds=seeds), few)
        in_band(f"rule, {seeds} seeds", rates["significant"], alpha_of(1, LEVEL))
        at_most(f"rule, better, {seeds} seeds", rates["better"])
    at_most("rule, raced 3, 5, 10", ruled(Design(seeds=10), few, looks=LOOKS[0])["significant"])
    at_most("rule, 3 methods", ruled(Design(seeds=5), max(1, few // 3), claims=3)["significant"])
    for world in ("plain", "strong tastes"):
        design = Design(seeds=MOST_SEEDS, test_examples=64, **WORLDS[world])  # type: ignore[arg-type]
        habits = [(name, habit, ()) for name, habit in HABITS.items()]
        for name, habit, race_looks in (*habits, ("a race, then always 5 more", HABITS["always 5 more"], LOOKS[0])):
            found = going_on(habit, design, options.replicates, race=race_looks)
            note(f"going on, {name}, {world}", found["rule"])
            limits[f"going on, {name}, {world}"] = ("<=", 0.053)
            note(f"going on without a rule, {name}, {world}", found["naive"])
        claims = chosen_claims(Design(seeds=15, test_examples=64, **WORLDS[world]), options.replicates)  # type: ignore[arg-type]
        note(f"going on, a claim chosen for its result, {world}", claims["rule"])
        limits[f"going on, a claim chosen for its result, {world}"] = ("<=", 0.053)
        note(f"going on without a rule, a claim chosen for its result, {world}", claims["naive"])
    for share in SHARES:
        design = Design(cells=CELLS, shared=share)
        for tuned in (1, 4):
            rates = paper(design, max(1, options.replicates // 4), baseline_cells=tuned)
            for test, rate in rates.items():
                short = test.partition(",")[0]
                note(f"paper, {short}, shared {share:g}" + ("" if tuned == 1 else f", {tuned} baselines"), rate)
    finish("false_positives", figures, limits, options.json, {"replicates": options.replicates, "level": 0.05})


if __name__ == "__main__":
    main()
