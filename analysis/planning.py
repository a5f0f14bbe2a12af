"""A plan before spending: the smallest difference that so many seeds and test examples can detect, and the seeds that a margin needs.

    python -m analysis.planning [--examples 500] [--seeds 5] [--claims 2] [--margin 0.01]
                                [--pilot results/OTHER | --sd-seed 0.015 --discordance 0.1]

The spread comes from a pilot sweep, or is stated as two numbers that one can guess: the standard deviation over seeds of the paired
difference in accuracy, sd, and the share q of examples on which two runs of the two arms disagree. With D = 1, 0 or -1 for an example that
the method wins, neither, or loses, and no mean difference to speak of, E D^2 = q is the sum of the three components of
`stats/crossed.py`, and
over seeds the mean of N examples varies by var_seed + var_residual / N. A share r of the disagreements comes back at every seed
(var_example = r (q - var_seed)), the rest is chance of the run (var_residual), so that

    var_seed = (sd^2 - (1 - r) q / N) / (1 - (1 - r) / N)        0 where sd is below what the answers scatter by themselves
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
from analysis.protocol.claim_statistics import LEVEL, PLANS, POWER
from analysis.protocol.claims import Claim, gather
from analysis.stats import crossed
from analysis.text_tables import sized
from jepa_ray.results import JUDGED

SD_SEED = 0.015
DISCORDANCE = 0.1
RECURRENCE = 0.05
ORIGIN = (
    "assumed: half of 40 pairs of arms of this project's tiny models have 0.6 to 2.2 points and 7 to 12 %; the paper's table 12 has 0.3 "
    "to 5 points over seeds for one arm"
)
"""Where the defaults come from: medians of those 40 pairs, 2 to 5 seeds x 256 to 512 examples each, are 1.5 points, 9 %, and 4 % of the
disagreements that come back at every seed."""
MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variance components of a paired difference, and in words where they come from."""

    parts: crossed.Components
    origin: str


def stated(
    examples: int, sd_seed: float | None = None, discordance: float | None = None, recurrence: float = RECURRENCE, origin: str | None = None
) -> Spread:
    """Components from the spread over seeds on so many test examples and the share on which two arms disagree; None: the defaults.

    Raises ValueError for a share outside [0, 1], no example, or a spread over seeds that so few disagreements cannot have.
    """
    sd, share = SD_SEED if sd_seed is None else sd_seed, DISCORDANCE if discordance is None else discordance
    if examples < 1:
        raise ValueError(f"A plan needs at least 1 test example; it has {examples}.")
    if not 0 < share <= 1 or not 0 <= recurrence <= 1:
        raise ValueError(f"Discordance lies in (0, 1] and recurrence in [0, 1]; they are {share:g} and {recurrence:g}.")
    if not 0 <= sd < 1 or sd**2 > share:
        raise ValueError(
            f"An sd over seeds of {sd:g} is not possible: arms that disagree on {share:g} of the examples have a mean square difference of "
            f"at most that, so sd is at most {math.sqrt(share):.3g}; raise the discordance or lower the sd."
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
    origin_text = f"sd over seeds {_points(sd)} points, arms disagree on {100 * share:g} % of examples"
    if left * share > sd**2 * (1 + 1e-9):
        origin_text += f", of which {examples} scatter by {_points(math.sqrt(left * share))} points by themselves, so that counts"
    if origin is None:
        origin = "stated" if sd_seed is not None and discordance is not None else ORIGIN
    return Spread(parts=parts, origin=f"{origin_text} ({origin})")


def pilot(folder: Path, metric: str = JUDGED) -> Spread:
    """Components pooled over a sweep's claims, weighted by seeds less one. Raises ValueError where it has none to offer.

    Its controls only where no claim is of use: an arm that is meant to fail (no trained end of turn) scatters like no other.
    """
    paired = [claim for claim in gather(folder, metric).claims if claim.right is not None and claim.baseline is not None]
    for kind in ("claim", "control"):
        with contextlib.suppress(_Silent):
            return _pooled([claim for claim in paired if claim.kind == kind], folder, kind)
    raise ValueError(
        f"{folder} cannot serve as a pilot: no method and baseline with answers at two confirmation seeds or more; name another sweep, "
        "or state sd_seed and discordance."
    )


class _Silent(ValueError):
    """Claims without any spread to learn from."""


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
    disagree = f"arms are estimated to disagree on {100 * sum(map(pooled, names)):.3g} % of them"
    spread_text = f"sd over seeds {_points(sd)} points on {examples} examples, {disagree}"
    left_out = f", {silent} without spread left out" if silent else ""
    return Spread(
        parts=parts,
        origin=f"{spread_text} (pilot {folder}: {len(estimates)} {kind}{'s' * (len(estimates) != 1)}, {weight} degrees of freedom over seeds{left_out})",
    )


def examples_needed(spread: Spread, difference: float, *, seeds: int, claims: int) -> int | None:
    """Fewest test examples on which so many seeds detect the difference; None where a million do not (then seeds are what is too few)."""

    def enough(examples: int) -> bool:
        return crossed.detectable(spread.parts, seeds=seeds, examples=examples, power=POWER, alpha=LEVEL / claims) <= difference

    if not enough(MOST_EXAMPLES):
        return None
    low, high = 1, MOST_EXAMPLES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def lines(spread: Spread, *, seeds: int, examples: int, claims: int, margin: float = 0.01) -> list[str]:
    """The plan in words: what is detectable with these seeds (if anything is), with 5, 10, 20, what the margin needs, and by which spread.

    Raises ValueError for fewer than 2 seeds, no claim, or a margin outside (0, 1).
    """
    if claims < 1 or not 0 < margin < 1:
        raise ValueError(f"A plan needs at least 1 claim and a margin in (0, 1); it has {claims} and {margin:g}.")
    alpha, parts = LEVEL / claims, spread.parts
    counts = sorted({seeds, *PLANS})
    detectable = crossed.plan(parts, examples=examples, seeds=counts, power=POWER, alpha=alpha)
    need = crossed.seeds_needed(parts, margin, examples=examples, power=POWER, alpha=alpha)
    others = "; ".join(f"{n} seeds: {_points(detectable[n]) if detectable[n] < 1 else 'none'}" for n in counts if n != seeds)
    family = f"{claims} claim{'s' * (claims > 1)}"
    # No two accuracies differ by more than 100 points: where the test would need more, nothing can come out significant.
    can = (
        f"can detect {_points(detectable[seeds])} points with" if detectable[seeds] < 1 else "cannot detect any effect, however large, with"
    )
    out = [f"{can} {seeds} seeds x {examples} examples (power {POWER:g}, {family}); {others}"]
    wanted = sized(margin)
    if need is not None:
        out.append(f"{wanted} need{'s' * (margin == 0.01)} {need} seeds" + (", fewer than planned" if need < seeds else ""))
    else:
        most, enough = counts[-1], examples_needed(spread, margin, seeds=counts[-1], claims=claims)
        # With seeds without end the examples' own part is left: a normal test of a mean of N.
        least = math.sqrt(parts.var_example / examples) * float(stats.norm.isf(alpha / 2) + stats.norm.ppf(POWER))
        why = f"no number of seeds detects {wanted} on {examples} examples (at best {_points(least)})"
        if least <= margin:
            why = f"{wanted}: more than {crossed.MOST_SEEDS} seeds on {examples} examples"
        out.append(f"{why}; " + (f"{most} seeds do on {enough} examples" if enough else f"nor do {most} seeds on any number of examples"))
    return [*out, f"by {spread.origin}"]


def _points(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.3g}"


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
    parser.add_argument("--pilot", type=Path, metavar="results/OTHER", help="a sweep whose spread is taken")
    parser.add_argument("--sd-seed", type=float, help=f"sd over seeds of the paired difference, as a share (default {SD_SEED:g})")
    parser.add_argument("--discordance", type=float, help=f"share of examples on which two arms disagree (default {DISCORDANCE:g})")
    options = parser.parse_args(arguments)
    options.pilot = options.pilot or options.folder
    if options.pilot is not None and (options.sd_seed is not None or options.discordance is not None):
        parser.error("--pilot and --sd-seed or --discordance are two answers to one question; give one of them")
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
