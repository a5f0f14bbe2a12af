"""How often a comparison fires where the method has no effect: our protocol, and the paper's recipe in the same simulator.

    python -m benchmarks.false_positives [--json] [--replicates N]

Ours (search on validation, frozen, fresh seeds, paired t and crossed interval) is to stay within one point of 5 % at 5 and 10 seeds,
whatever the variance is made of. The paper's (best of 20 cells by test accuracy, one-tailed t on the same five seeds) is measured for
several shares of the runs' variance that all cells of an arm have in common, with one baseline cell and with the best of 4 of them
(`4 baselines`); its two-sided rate counts what favours the method. Below every rate, `+-`, stands its Monte-Carlo standard error.

Rates with cells that truly differ have no limit: two frozen cells then do differ, and a test that says so is right about these two.
"""

from __future__ import annotations

import argparse

from analysis.simulate import Design, Rate, paper, protocol
from benchmarks.timing import finish

WORLDS = {
    "plain": {},
    "seeds only": {"shared": 0.0},
    "small seed noise": {"run_sd": 0.1},
    "tastes": {"taste_sd": 0.3},
    "strong tastes": {"taste_sd": 0.6, "run_sd": 0.1},
    "32 examples": {"test_examples": 32},
}
"""What varies, by name: fields of Design that differ from its defaults."""
SEEDS = (5, 10)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CELLS = 20
"""The paper's grid: five k times four lambda."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.false_positives", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--replicates", type=int, default=40_000, help="comparisons per line of ours; a quarter as many of the paper's")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    limits: dict[str, tuple[str, float]] = {}

    def note(name: str, rate: Rate) -> None:
        figures[name] = rate.rate
        figures[f"{name} +-"] = rate.error

    for seeds in SEEDS:
        for world, changes in WORLDS.items():
            found = protocol(Design(seeds=seeds, **changes), options.replicates)  # type: ignore[arg-type]
            name = f"ours, {seeds} seeds, {world}"
            note(name, found["both"])
            note(f"t alone, {seeds} seeds, {world}", found["paired t"])
            # One name, one limit: the rate has to lie in the band, so its distance from 5 % is what is limited.
            figures[f"{name}, off 5 %"] = abs(found["both"].rate - 0.05)
            limits[f"{name}, off 5 %"] = ("<=", 0.01)
        note(f"ours, {seeds} seeds, cells differ", protocol(Design(seeds=seeds, cell_sd=0.2), options.replicates)["both"])
    for share in SHARES:
        design = Design(cells=CELLS, shared=share)
        for tuned in (1, 4):
            found = paper(design, max(1, options.replicates // 4), baseline_cells=tuned)
            for test, rate in found.items():
                short = test.partition(",")[0]
                note(f"paper, {short}, shared {share:g}" + ("" if tuned == 1 else f", {tuned} baselines"), rate)
    finish("false_positives", figures, limits, options.json, {"replicates": options.replicates, "level": 0.05})


if __name__ == "__main__":
    main()
