"""What a sweep asks of the statistics in `analysis`: what its plan can detect, which comparisons of a race go on, and what came out.

The one place where the package looks up to `analysis`, on behalf of the command line. Neither torch nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jepa_ray import plan, results
from jepa_ray.config import Arm, SweepConfig, compared


def detectable(sweep: SweepConfig, arms: Sequence[Arm], estimates: Mapping[str, plan.Estimate]) -> list[str]:
    """Lines of the plan: the smallest difference that its seeds and test examples detect, task by task where their sizes differ.

    Empty where nothing is compared with a baseline, or on fewer than two seeds. Raises ValueError where `confirm.pilot` cannot be used.
    """
    from analysis import planning

    claims, seeds = compared(arms, controls=False), len(sweep.confirm.seeds)
    if not claims or seeds < 2:
        return []
    sizes: dict[int, list[str]] = {}
    for arm in arms:
        if arm.name in claims and arm.name in estimates and estimates[arm.name].test_examples > 1:
            names = sizes.setdefault(estimates[arm.name].test_examples, [])
            names += [arm.task] if arm.task not in names else []
    out = []
    for examples, tasks in sizes.items():
        confirm = sweep.confirm
        if confirm.pilot is not None:
            spread = planning.pilot(Path(confirm.pilot))
        else:
            spread = planning.stated(examples, confirm.sd_seed, confirm.discordance)
        told = planning.lines(spread, seeds=seeds, examples=examples, claims=len(claims), margin=confirm.margin)
        out += [f"{', '.join(tasks)}: {line}" if len(sizes) > 1 else line for line in told]
    return out


def tables(sweep: SweepConfig, folder: Path) -> list[str]:
    """The tables that a sweep's output ends with: best of each arm, and the confirmation that counts (`analysis.summary`)."""
    from analysis.inputs.sweep import read
    from analysis.summary import summarise
    from analysis.summary_tables import brief
    from analysis.text_tables import text

    found = summarise(read(folder, curves=()))
    return [text(table) for table in brief(found, sweep.confirm.seeds)]


def verdict(sweep: SweepConfig, folder: Path) -> list[str]:
    """A sentence per claim, controls after them, with the difference at equal FLOPs, and per arm without a claim.

    Empty without confirmation.
    """
    if not sweep.confirm.seeds or not compared(results.read_arms(folder)):
        return []
    from analysis.protocol.claims import gather
    from analysis.verdict import judge

    try:
        found = judge(gather(folder))
    except ValueError as error:
        return [f"none: {error}"]
    lines = []
    for ruling in found.verdicts:
        lines.append(f"{'control, ' if ruling.kind == 'control' else ''}{ruling.sentence}")
        shown = [reason for reason in ruling.conditions if reason.name == "equal FLOPs" and ruling.kind == "claim"]
        lines += [f"    {reason.name}: {reason.text}" for reason in shown]
    return [*lines, *found.absent]


def race_rule(sweep: SweepConfig, arms: Sequence[Arm]) -> Callable[[Sequence[float], int], tuple[bool, str]] | None:
    """(paired differences, look) -> whether a comparison is run on more seeds, and why; None where `confirm.race` asks for no race.

    The level is that of the smallest p in Holm's correction over all claims, so what is decided at a look stays so in the verdict.
    """
    if not sweep.confirm.race:
        return None
    from analysis.protocol.claim_statistics import LEVEL
    from analysis.stats import sequential

    looks, margin = sweep.confirm.race, sweep.confirm.margin
    alpha = LEVEL / max(1, len(compared(arms, controls=False)))

    def rule(differences: Sequence[float], look: int) -> tuple[bool, str]:
        found = sequential.decide(differences, look, looks, margin, alpha)
        return found.go_on, found.reason

    return rule
