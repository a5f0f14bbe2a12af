"""What a sweep asks of `analysis`: the power of its plan, the rule of its race, its tables and verdicts, and whether it goes on.

The only module that imports `analysis`, and only when asked: everything below it runs without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_ray.config import Arm, SweepConfig, comparisons
from jepa_ray.streams import derive_seed

if TYPE_CHECKING:
    import pandas as pd

    from jepa_ray.orchestration.keeping import Ruling
    from jepa_ray.orchestration.selection import Decide, Further
    from jepa_ray.plan import Estimate
    from jepa_ray.results import Look


def detectable(sweep: SweepConfig, arms: Sequence[Arm], estimates: Mapping[str, Estimate]) -> list[str]:
    """Lines of the plan: the smallest difference that its seeds and test examples detect, task by task where their sizes differ.

    Empty where no arm is claimed to differ from another, or nothing is confirmed. Raises ValueError where `confirm.pilot` cannot be used.
    """
    from analysis import planning

    claims, confirm, seeds = comparisons(arms, controls=False), sweep.confirm, len(sweep.confirm.seeds)
    if not claims or not seeds:
        return []
    sizes: dict[int, list[str]] = {}
    for arm in arms:
        if arm.name in {claim.arm for claim in claims} and arm.name in estimates and estimates[arm.name].test_examples > 1:
            names = sizes.setdefault(estimates[arm.name].test_examples, [])
            names += [arm.task] if arm.task not in names else []
    out = []
    for examples, tasks in sizes.items():
        pilot = planning.pilot(Path(confirm.pilot)) if confirm.pilot is not None else None
        spread = pilot or planning.stated(examples, confirm.sd_seed, confirm.discordance)
        told = planning.told(spread, seeds=seeds, examples=examples, claims=len(claims), margin=confirm.margin)
        out += [f"{', '.join(tasks)}: {line}" if len(sizes) > 1 else line for line in told]
    return out


def verdict_table(folder: Path) -> pd.DataFrame:
    """One row per claim and control: verdict, difference and its 95 % interval (shares), Holm p, seeds, and the sentence.

    ValueError if a file is damaged, or nothing can be compared yet; says why.
    """
    import pandas as pd

    from analysis.inputs.tables import refuse_damaged
    from analysis.protocol.claims import gather
    from analysis.verdict import judge

    refuse_damaged(folder)
    report = judge(gather(folder))
    if not report.verdicts:
        raise ValueError(" ".join([*report.none, *report.absent]))
    return pd.DataFrame(
        [
            {
                **{name: getattr(one, name) for name in ("method", "baseline", "kind", "family", "task", "verdict", "difference")},
                **{end: getattr(one.interval, end, None) for end in ("low", "high")},
                **{"p_holm": one.p_holm, "seeds": len(one.seeds), "sentence": one.sentence},
            }
            for one in report.verdicts
        ]
    )


def tables(sweep: SweepConfig, folder: Path) -> list[str]:
    """The last tables of a sweep's output: best of each arm, and the confirmation that counts."""
    from analysis.inputs.sweep import read
    from analysis.summary import summarise
    from analysis.summary_tables import brief
    from analysis.text_tables import text

    seen = read(folder, curves=())
    return [text(table) for table in brief(summarise(seen), seen.declared.seeds if sweep.confirm.seeds else ())]


def verdict(sweep: SweepConfig, folder: Path) -> list[str]:
    """The lines of all rulings."""
    return [line for _, lines in rulings(sweep, folder) for line in lines]


def rulings(sweep: SweepConfig, folder: Path) -> list[Ruling]:
    """A sentence per claim and control, and per arm without a claim, each with the arms it compares; records the look at the results. Empty
    without confirmation."""
    from jepa_ray import results

    declared = comparisons(results.read_arms(folder))
    if not sweep.confirm.seeds or not declared:
        return []
    from analysis.protocol.claims import gather
    from analysis.verdict import judge

    try:
        found = judge(gather(folder))
    except ValueError as error:
        return [((), [f"none: {error}"])]
    results.record_look(folder, "verdict", found.seeds, sweep.confirm.race, declared, found.seen)
    told: list[Ruling] = []
    for ruling in found.verdicts:
        sentence = f"{'control, ' if ruling.kind == 'control' else ''}{ruling.sentence}"
        told.append(((ruling.method, ruling.baseline), [sentence]))
    return [*told, *(((), [sentence]) for sentence in found.absent)]


def race_rule(sweep: SweepConfig, arms: Sequence[Arm], looked: Sequence[Look] = ()) -> Decide | None:
    """(paired differences, look) -> whether a comparison is run on more seeds, and why; None where `confirm.race` asks for no race. The
    level is that of the smallest p in Holm's correction over all claims, and that of the looks before this plan."""
    if not sweep.confirm.race:
        return None
    from analysis.protocol.claim_statistics import LEVEL
    from analysis.stats import looks, sequential

    race, margin = sweep.confirm.race, sweep.confirm.margin
    number = 1 + sum((look.seeds, look.race) != (sweep.confirm.seeds, race) for look in looked)
    alpha = looks.alpha_of(number, LEVEL) / max(1, len(comparisons(arms, controls=False)))

    def rule(differences: Sequence[float], look: int) -> tuple[bool, str]:
        found = sequential.decide(differences, look, race, margin, alpha)
        return found.go_on, found.reason

    return rule


def further(sweep: SweepConfig, folder: Path) -> Further | None:
    """The seeds that have run -> all seeds until the next look, and a sentence per undecided claim; None without `confirm.until`.

    Each call is a look at the results, and recorded. The new seeds run on every arm, so that all claims stay paired.
    """
    if sweep.confirm.until != "decided":
        return None

    def go_on(ran: Sequence[int]) -> tuple[tuple[int, ...], list[str]]:
        from analysis.protocol import advice
        from analysis.protocol.claims import gather
        from analysis.verdict import in_order, judge
        from jepa_ray import results

        evidence = gather(folder)
        found, tested, planned = judge(evidence), in_order(evidence), evidence.declared.seeds
        most = sweep.confirm.max_seeds
        number, sentences = advice.go_on(found.verdicts[: len(tested)], tested, found.margin, most, evidence.declared)
        seeds = with_more(planned, number, taken=sweep.base.seed)
        results.record_look(folder, "verdict", planned, (), comparisons(results.read_arms(folder)), found.seen, planned=seeds)
        if set(seeds) - set(ran):
            return seeds, sentences
        lack = [one for one in found.verdicts if one.kind == "claim" and one.difference is not None and not one.complete]
        why = (
            next((reason.text for reason in one.conditions if reason.holds is False and "planned seeds" in reason.text), "") for one in lack
        )
        return (), [
            *sentences,
            *(f"{one.method} against {one.baseline} stays undecided: {text}" for one, text in zip(lack, why, strict=True)),
        ]

    return go_on


def with_more(seeds: Sequence[int], number: int, *, taken: int) -> tuple[int, ...]:
    """`seeds`, followed by as many from the stream of confirmation seeds as make `number` in all; never `taken`, the seed of the search."""
    out, place = list(seeds), 0
    while len(out) < number:
        seed = derive_seed(0, "confirmation seeds", place) % 2**31
        out += [seed] if seed not in (*out, taken) else []
        place += 1
    return tuple(out)
