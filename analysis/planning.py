"""Power before spending: the smallest difference that a number of seeds and test examples detects, and the seeds that a margin needs.

    python -m analysis.planning [--examples 500] [--seeds 5] [--claims 2] [--margin 0.01]
                                [--pilot results/OTHER | --sd-seed 0.015 --discordance 0.1]

The spread comes from a pilot sweep, or is stated as two numbers that can be guessed: sd, the standard deviation over seeds of the paired
difference in accuracy, and q, the share of examples on which a run of one arm and a run of the other disagree. Let D be 1, 0 or -1 for an
example that the method wins, ties or loses. If the mean difference is negligible, E D^2 = q is the sum of the three components of
`stats/crossed.py`, and the mean of N examples has variance var_seed + var_residual / N over seeds. A share r of the disagreements recurs at
every seed (var_example = r (q - var_seed)), the rest is chance of the run (var_residual). Therefore

    var_seed = (sd^2 - (1 - r) q / N) / (1 - (1 - r) / N)        0 if sd is below the scatter of the answers alone
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from analysis.command_line import run
from analysis.inputs.tables import refuse_damaged
from analysis.protocol.advice import PLANS, POWER, planned_level
from analysis.protocol.claims import Claim, gather
from analysis.stats import crossed
from analysis.text_tables import counted, sized
from jepa_ray.results import JUDGED

SD_SEED = 0.015
DISCORDANCE = 0.1
RECURRENCE = 0.05
ORIGIN = (
    "assumed: of 40 pairs of arms of this project's tiny models, half have 0.6 to 2.2 points and 7 to 12 %; in the paper's table 12, "
    "single arms have 0.3 to 5 points over seeds"
)
"""Where the defaults come from. The medians of those 40 pairs (2 to 5 seeds x 256 to 512 examples each) are 1.5 points, 9 %, and 4 % of
disagreements that recur at every seed."""
MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variance components of a paired difference, and a description of their origin."""

    parts: crossed.Components
    origin: str
    warning: str = ""
    """Why the components are unreliable; empty if they are not."""


def stated(
    examples: int, sd_seed: float | None = None, discordance: float | None = None, recurrence: float = RECURRENCE, origin: str | None = None
) -> Spread:
    """Components from the sd over seeds on this many test examples and the share of examples on which two arms disagree (None: default).

    Raises ValueError for a share outside [0, 1], no example, or an sd over seeds that is too large for the discordance.
    """
    sd, share = SD_SEED if sd_seed is None else sd_seed, DISCORDANCE if discordance is None else discordance
    if examples < 1:
        raise ValueError(f"A plan needs at least 1 test example; it has {examples}.")
    if not 0 < share <= 1 or not 0 <= recurrence <= 1:
        raise ValueError(f"Discordance must be in (0, 1] and recurrence in [0, 1]; they are {share:g} and {recurrence:g}.")
    if not 0 <= sd < 1 or sd**2 > share:
        raise ValueError(
            f"An sd over seeds of {sd:g} is impossible with a discordance of {share:g}: the mean square difference is at most the "
            f"discordance, so the sd is at most {math.sqrt(share):.3g}. Raise the discordance or lower the sd."
        )
    left = (1 - recurrence) / examples
    var_seed = max(0.0, (sd**2 - left * share) / (1 - left)) if left < 1 else 0.0
    parts = crossed.Components(
        seeds=0,
        examples=examples,
        mean=0.0,
        var_seed=var_seed,
        var_example=recurrence * (share - var_seed),
        var_residual=(1 - recurrence) * (share - var_seed),
    )
    description = f"sd over seeds {_in_points(sd)}, arms disagree on {100 * share:g} % of examples"
    if left * share > sd**2 * (1 + 1e-9):
        description += f"; the scatter of {examples} answers alone is larger, {_in_points(math.sqrt(left * share))}, and is used instead"
    if origin is None:
        origin = "stated" if sd_seed is not None and discordance is not None else ORIGIN
    return Spread(parts=parts, origin=f"{description} ({origin})")


def pilot(folder: Path, metric: str = JUDGED) -> Spread:
    """Components pooled over a sweep's claims, weighted by seeds minus one. Raises ValueError if the sweep has none.

    Controls are used only if no claim is usable: the scatter of an arm that is meant to fail (no trained end of turn) is not typical.
    """
    paired = [claim for claim in gather(folder, metric).claims if claim.right is not None and claim.baseline is not None]
    for kind in ("claim", "control"):
        with contextlib.suppress(_Silent):
            return _pooled([claim for claim in paired if claim.kind == kind], folder, kind)
    raise ValueError(
        f"{folder} cannot serve as a pilot: no method and baseline have answers at two or more confirmation seeds. Name another sweep, or "
        "state sd_seed and discordance."
    )


class _Silent(ValueError):
    """No claim has a spread to estimate from."""


def _pooled(claims: Sequence[Claim], folder: Path, kind: str) -> Spread:
    estimates, silent = [], 0
    for claim in claims:
        assert claim.right is not None
        try:
            estimates.append(crossed.components(claim.right[0].astype(float) - claim.right[1]))
        except ValueError:  # one seed, or two arms that never disagree
            silent += 1
    weight = sum(parts.seeds - 1 for parts in estimates)
    if not weight:
        raise _Silent

    def pooled(name: str) -> float:
        return float(sum((parts.seeds - 1) * getattr(parts, name) for parts in estimates) / weight)

    examples = min(parts.examples for parts in estimates)
    names = ("var_seed", "var_example", "var_residual")
    parts = crossed.Components(seeds=weight, examples=examples, mean=0.0, **{name: pooled(name) for name in names})
    sd = math.sqrt(parts.var_seed + parts.var_residual / examples)
    clustered = ", not allowing for their clusters" * any(claim.clusters is not None for claim in claims)
    disagree = f"arms disagree on an estimated {100 * sum(map(pooled, names)):.3g} % of them"
    left_out = f", {silent} without spread left out" if silent else ""
    sources = f"{counted(len(estimates), kind)}, {counted(weight, 'degree')} of freedom over seeds{left_out}"
    return Spread(
        parts=parts,
        origin=f"sd over seeds {_in_points(sd)} on {counted(examples, 'example')}{clustered}, {disagree} (pilot {folder}: {sources})",
        warning=_warning(weight),
    )


def _warning(freedom: int) -> str:
    """Empty from 2 degrees of freedom on. The interval is that of chi-square: freedom * sd^2 / true sd^2."""
    if freedom > 1:
        return ""
    low, high = (math.sqrt(freedom / stats.chi2.ppf(share, freedom)) for share in (0.975, 0.025))
    return (
        f"warning: a pilot with {counted(freedom, 'degree')} of freedom says almost nothing about the spread: the true sd is {low:.2g} to "
        f"{high:.2g} times this one (95 % interval). Use a pilot with more seeds, or state sd_seed and discordance"
    )


def examples_needed(spread: Spread, difference: float, *, seeds: int, claims: int) -> int | None:
    """Fewest test examples on which this many seeds detect the difference; None if a million do not (then the seeds are too few)."""

    def enough(examples: int) -> bool:
        return crossed.detectable(spread.parts, seeds=seeds, examples=examples, power=POWER, alpha=planned_level(claims)) <= difference

    if not enough(MOST_EXAMPLES):
        return None
    low, high = 1, MOST_EXAMPLES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def lines(spread: Spread, *, seeds: int, examples: int, claims: int, margin: float = 0.01) -> list[str]:
    """The plan in words: what these seeds, and 5, 10 and 20, can detect (if anything), what the margin needs, and the spread behind it.

    Raises ValueError for fewer than 2 seeds, no claim, or a margin outside (0, 1).
    """
    if claims < 1 or not 0 < margin < 1:
        raise ValueError(f"A plan needs at least 1 claim and a margin in (0, 1); it has {claims} and {margin:g}.")
    alpha, parts = planned_level(claims), spread.parts
    counts = sorted({seeds, *PLANS})
    detectable = crossed.plan(parts, examples=examples, seeds=counts, power=POWER, alpha=alpha)
    need = crossed.seeds_needed(parts, margin, examples=examples, power=POWER, alpha=alpha)
    others = "; ".join(f"{n} seeds: {_points(detectable[n]) if detectable[n] < 1 else 'none'}" for n in counts if n != seeds)
    # No two accuracies differ by more than 100 points: if the test needs more, no result can be significant.
    can = f"can detect {_in_points(detectable[seeds])} with" if detectable[seeds] < 1 else "cannot detect any effect, however large, with"
    out = [f"{can} {seeds} seeds x {counted(examples, 'example')} (power {POWER:g}, {counted(claims, 'claim')}); {others}"]
    wanted = sized(margin)
    if need is not None:
        out.append(f"{wanted} need{'s' * (margin == 0.01)} {need} seeds" + (", fewer than planned" if need < seeds else ""))
    else:
        most, enough = counts[-1], examples_needed(spread, margin, seeds=counts[-1], claims=claims)
        # With infinitely many seeds only the part of the examples is left: a normal test of a mean of N.
        least = math.sqrt(parts.var_example / examples) * float(stats.norm.isf(alpha / 2) + stats.norm.ppf(POWER))
        why = f"no number of seeds detects {wanted} on {counted(examples, 'example')} (at best {_points(least)})"
        if least <= margin:
            why = f"{wanted} need{'s' * (margin == 0.01)} more than {crossed.MOST_SEEDS} seeds on {counted(examples, 'example')}"
        out.append(
            f"{why}; "
            + (f"{most} seeds detect it on {enough} examples" if enough else f"{most} seeds cannot detect it on any number of examples")
        )
    return [*out, f"based on {spread.origin}", *([spread.warning] if spread.warning else [])]


def told(spread: Spread, *, seeds: int, examples: int, claims: int, margin: float = 0.01) -> list[str]:
    """`lines`; or for a single seed, that nothing can be tested on it, and the differences that 5, 10 and 20 seeds detect."""
    if seeds != 1:
        return lines(spread, seeds=seeds, examples=examples, claims=claims, margin=margin)
    detectable = crossed.plan(spread.parts, examples=examples, seeds=PLANS, power=POWER, alpha=planned_level(claims))
    found = "; ".join(f"{n} seeds: {_in_points(detectable[n])}" for n in PLANS if detectable[n] < 1)
    would = f"detectable with more seeds x {counted(examples, 'example')} (power {POWER:g}, {counted(claims, 'claim')}): {found or 'none'}"
    return [f"one seed cannot be tested, since it does not show how much seeds differ; {would}", f"based on {spread.origin}"]


def _points(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.3g}"


def _in_points(share: float) -> str:
    number = _points(share)
    return f"{number} point{'s' * (number != '1')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.planning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--examples", type=int, default=500, help="test examples (default 500)")
    parser.add_argument("--seeds", type=int, default=5, help="planned confirmation seeds (default 5)")
    parser.add_argument("--claims", type=int, default=2, help="methods x tasks x families that are compared with a baseline (default 2)")
    parser.add_argument("--margin", type=float, default=0.01, help="the difference that matters, as a share (default 0.01, one point)")
    parser.add_argument("folder", nargs="?", type=Path, metavar="results/OTHER", help="the same as --pilot")
    parser.add_argument("--pilot", type=Path, metavar="results/OTHER", help="a sweep to take the spread from")
    parser.add_argument("--sd-seed", type=float, help=f"sd over seeds of the paired difference, as a share (default {SD_SEED:g})")
    parser.add_argument("--discordance", type=float, help=f"share of examples on which two arms disagree (default {DISCORDANCE:g})")
    options = parser.parse_args(arguments)
    options.pilot = options.pilot or options.folder
    if options.pilot is not None and (options.sd_seed is not None or options.discordance is not None):
        parser.error("--pilot cannot be combined with --sd-seed or --discordance: both state the spread. Give one of them.")
    try:
        if options.pilot is not None:
            refuse_damaged(options.pilot)
        spread = stated(options.examples, options.sd_seed, options.discordance) if options.pilot is None else pilot(options.pilot)
        plan = lines(spread, seeds=options.seeds, examples=options.examples, claims=options.claims, margin=options.margin)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(plan))
    return 0


if __name__ == "__main__":
    run(main)
