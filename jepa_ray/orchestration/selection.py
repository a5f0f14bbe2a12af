"""Decides what runs after the search: the best configuration of each arm, frozen; the seeds of a race; pairs at equal FLOPs.

Nothing here starts a trial. Selection reads validation results only; the race and the pairs read the confirmation's results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_ray import results
from jepa_ray.config import SweepConfig, TrialConfig, canonical, comparisons
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.orchestration.stages import Listener, Search
from jepa_ray.orchestration.studies import digest
from jepa_ray.results import damaged
from jepa_ray.system import atomic

Decide = Callable[[Sequence[float], int], tuple[bool, str]]
"""(paired differences by seed, look in seeds) -> whether the comparison continues, and why."""
Further = Callable[[Sequence[int]], tuple[tuple[int, ...], list[str]]]
"""Seeds that have run -> all seeds to run until the next look at the results (none: no further one), and sentences on why."""
Identify = Callable[[str, TrialConfig], str]
"""(arm, configuration) -> config_id."""


def select(sweep: SweepConfig, folder: Path, search: Search, listener: Listener) -> dict[str, TrialConfig]:
    """Arm -> its best configuration by the validation metric, frozen in a file before the test split is opened.

    A selection that was made for exactly this sweep is read back, not made again. After `--extend` a new file is written next to the
    old one. The file written last counts, so returning to an earlier sweep writes that sweep's selection once more.
    """
    earlier = damaged.selections(folder)
    files = list(earlier)
    this = digest(sweep)
    source = next((name for name in reversed(earlier) if earlier[name]["sweep"] == this), None)
    kept: dict[str, Any] = earlier[source]["arms"] if source is not None else {}
    last: dict[str, Any] = {arm: best for selection in earlier.values() for arm, best in selection["arms"].items()}
    metric = sweep.search.metric
    arms = dict(kept)
    if set(search.studies) - set(kept):  # arms that could not run before are added; the others stay as frozen
        for arm, (row, config) in search.best().items():
            if arm not in kept:
                trial = {"trial_id": row["trial_id"], "config_id": row["config_id"], metric: float(row[metric])}
                arms[arm] = {**trial, "config": canonical(config)}
    if not last and (opened := _scored(folder) & set(arms)):
        listener.say(
            f"The test split has been opened before: {', '.join(sorted(opened))} has test scores, but no selection file is left. If this "
            "selection differs from the lost one, report the results as exploratory, or confirm on a test split that is still sealed."
        )
    again = {arm for arm, best in arms.items() if arm in last and best["config"] != last[arm]["config"]}
    if again and source is None:
        listener.say(
            f"The test split has been opened before ({files[-1]}), and {', '.join(sorted(again))} is now frozen to another configuration, "
            "chosen when test scores could be seen. Report its results as exploratory, or confirm on a test split that is still sealed."
        )
    elif again:
        listener.say(f"This is again the sweep of {source}, so its selection counts again.")
    if source is None or arms.keys() != kept.keys() or source != files[-1]:
        frozen = {
            "sweep": this,
            "metric": metric,
            "mode": sweep.search.mode,
            "seeds": sweep.confirm.seeds,
            "frozen_at": results.now(),
            "arms": arms,
        }
        atomic.write_text(folder / _next_name(folder), json.dumps(frozen, indent=2) + "\n")
    return {arm: TrialConfig.model_validate(best["config"]) for arm, best in arms.items() if arm in search.studies}


def _next_name(folder: Path) -> str:
    """The name with the next free number; a selection that was set aside keeps its number."""
    numbers = [int(match[1] or 1) for path in folder.iterdir() if (match := re.match(r"selection(?:-(\d+))?\.json", path.name))]
    return f"selection-{max(numbers) + 1}.json" if numbers else "selection.json"


def _scored(folder: Path) -> set[str]:
    """Arms with a model that has been scored on the test split."""
    return {row["arm"] for row in results.finished(folder).values() if row["stage"] != "search" and row[results.JUDGED] is not None}


def confirmations(selection: Mapping[str, TrialConfig], arms: Collection[str], seeds: Sequence[int]) -> list[tuple[str, TrialConfig]]:
    """Arm and configuration of every confirmation: all arms on one seed, then on the next."""
    return [(arm, confirmation(best, seed)) for seed in seeds for arm, best in selection.items() if arm in arms]


def race(
    sweep: SweepConfig,
    folder: Path,
    selection: Mapping[str, TrialConfig],
    going: Collection[str],
    look: int,
    *,
    identify: Identify,
    decide: Decide,
) -> tuple[list[str], list[str]]:
    """The arms of `going` that run on more seeds after the first `look` seeds, and a sentence for each comparison that ends.

    An arm continues as long as one of its comparisons does; an arm without a comparison always continues. Differences are in the
    verdict's metric, regardless of the metric that the search selected by.
    """
    rows, seeds = results.finished(folder), sweep.confirm.seeds[:look]

    def scores(arm: str) -> dict[int, float]:
        by_seed = {seed: rows.get(identify(arm, confirmation(selection[arm], seed)), {}) for seed in seeds}
        complete = {seed: row[results.JUDGED] for seed, row in by_seed.items() if row.get("state") == "COMPLETE"}
        return {seed: score for seed, score in complete.items() if score is not None}

    sentences, on = [], set()
    declared = [(one.arm, one.other) for one in comparisons(results.read_arms(folder))]
    pairs = [(arm, twin) for arm, twin in declared if arm in going and twin in selection]
    for arm, twin in pairs:
        ours, theirs = scores(arm), scores(twin)
        differences = [ours[seed] - theirs[seed] for seed in seeds if seed in ours and seed in theirs]
        continues, reason = decide(differences, look)
        if continues:
            on |= {arm, twin}
        else:
            sentences.append(f"{arm} against {twin} ends after {look} of {len(sweep.confirm.seeds)} seeds: {reason}")
    on |= set(going) - {arm for pair in pairs for arm in pair}
    return [arm for arm in going if arm in on], sentences


def matched(
    sweep: SweepConfig, folder: Path, selection: Mapping[str, TrialConfig], identify: Identify
) -> tuple[list[tuple[str, TrialConfig]], list[str]]:
    """For each seed, the more expensive of every two arms of a claim, with the training FLOPs of the cheaper one as its budget.

    Also returns a sentence for each pair that cannot be matched because its trials lack `train_flops_unpacked`, the unit of budgets.
    Excluded: controls, pairs whose costs agree within `results.FLOPS_ALIKE`, and sweeps with a first stage or masked encoders.
    """
    if sweep.pretrain is not None or sweep.base.masked is not None:
        return [], []  # there is no obvious way to split a budget over two stages; masked encoders have none
    rows, out = results.finished(folder), []
    uncounted: dict[tuple[str, str], list[int]] = {}
    declared = [(one.arm, one.other) for one in comparisons(results.read_arms(folder), controls=False)]
    claims = [(arm, twin) for arm, twin in declared if arm in selection and twin in selection]
    for seed in sweep.confirm.seeds:
        for arm, twin in claims:
            configs = {name: confirmation(selection[name], seed) for name in (arm, twin)}
            pair = {name: rows.get(identify(name, config), {}) for name, config in configs.items()}
            if any(row.get("state") != "COMPLETE" for row in pair.values()):
                continue
            spent = {name: float(row["train_flops_unpacked"] or 0) for name, row in pair.items()}
            if not all(spent.values()):
                uncounted.setdefault((arm, twin), []).append(seed)
                continue
            if max(spent.values()) <= (1 + results.FLOPS_ALIKE) * min(spent.values()):
                continue
            expensive = max(spent, key=lambda name: spent[name])
            optim = configs[expensive].optim.model_copy(update={"max_train_flops": min(spent.values())})
            run = (expensive, configs[expensive].model_copy(update={"optim": optim}))
            out += [run] if run not in out else []  # two claims may need the same run
    sentences = [
        f"{arm} against {twin}: not matched at equal FLOPs on {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}, as not "
        "both trials have train_flops_unpacked, the unit of FLOPs budgets (earlier versions did not write it)."
        for (arm, twin), seeds in uncounted.items()
    ]
    return out, sentences
