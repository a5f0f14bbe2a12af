"""What a sweep declared before it ran: its arms and their comparisons, its seeds, the looks of a race, its margin.

The family of claims and the seeds of a verdict are those that were declared, not those that have finished so far: otherwise a sweep that is
half done, or lost a run, would be tested by an easier rule. Arms come from the arms table (`results.read_arms`), the rest from
`sweep.yaml`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.text_tables import named
from jepa_ray import results
from jepa_ray.results import Arm, Comparison, Look, comparisons, possible

GROUP = ["task", "family", "model"]
"""Columns in which an arm and its baseline agree."""
MARGIN = 0.01
"""The difference that matters, if the sweep does not state one: one point."""
NOT_RUN = "not run"
"""Status of a declared arm without a trial."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One sweep's declaration. A field that cannot be read is empty or has its default, and `notes` says so."""

    arms: tuple[Arm, ...] = ()
    seeds: tuple[int, ...] = ()
    """Seeds of the confirmation, in the order in which they run."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds after which a race looks, the last one being all; empty without a race."""
    margin: float = MARGIN
    """The difference that matters, as a share (`confirm.margin`)."""
    metric: str = "val_accuracy"
    """Column that selects (`search.metric`)."""
    mode: str = "max"
    looked: tuple[Look, ...] = ()
    """The looks at results so far (`results.read_looks`). In a folder that did not record them, each earlier version of the sweep file that
    had other seeds (`sweep-N.yaml`) counts as one."""
    notes: tuple[str, ...] = ()
    undeclared: str | None = None
    """Why it is unknown which arms are compared, and the remedy; None if it is known. Also in the notes."""

    late: bool = False
    """Whether a comparison was declared in the light of results (`chosen_late`; `claims.gather` finds out)."""

    @property
    def comparisons(self) -> list[Comparison]:
        """What is compared with what, in the order of declaration."""
        return comparisons(self.arms)

    @property
    def claims(self) -> int:
        """Size of the family of claims; controls are counted separately.

        A claim that was chosen in the light of results is one of all pairs of arms that could have been chosen, so all of these count.
        """
        return possible(self.arms) if self.late else len(comparisons(self.arms, controls=False))

    @property
    def controls(self) -> int:
        """How many controls are compared with a baseline."""
        return sum(one.kind == "control" for one in self.comparisons)

    def number(self, trial_id: str, seed: int, pair: tuple[str, str] | None = None) -> int:
        """The look, counted from 1, at which a confirmed trial became known, or will at the next verdict.

        With a pair of arms: the first such look at which they were compared.
        """
        known = False
        for number, look in enumerate(self.looked, 1):
            known = known or trial_id in look.trials or (look.guessed and seed in look.seeds)
            if known and (pair is None or pair in look.declared(self.arms)):
                return number
        return len(self.looked) + 1

    def after(self, scored: Collection[str], used: Mapping[int, tuple[str, str]]) -> int:
        """The first look that can count for a comparison whose known trials were replaced by others; 1 if none was.

        `scored`: ids of all confirmation trials of both arms; `used`: seed -> the two that count. Which of two runs of a seed counts would
        otherwise be a choice in the light of results.
        """
        replaced = [
            number
            for number, look in enumerate(self.looked, 1)
            if any(trial in scored and seed in used and trial not in used[seed] for trial, seed in look.trials.items())
        ]
        return 1 + max(replaced, default=0)

    def chosen_late(self, arm_of: Mapping[str, str]) -> bool:
        """Whether a comparison was declared in the light of results: after both of its arms had some, or after one had if `claims` names
        the pair. `arm_of`: trial id -> name of its arm."""
        pairs = {(one.arm, one.other) for one in self.comparisons}
        usual = {(arm.name, arm.baseline) for arm in self.arms}  # nobody chose with what these are compared
        seen: set[str] = set()
        for look in self.looked:
            seen |= {arm.name for arm in self.arms} if look.guessed else {arm_of[trial] for trial in look.trials if trial in arm_of}
            later = pairs - look.declared(self.arms)
            if any({*pair} <= seen or (pair not in usual and {*pair} & seen) for pair in later):
                return True
        return False

    def race_at(self, number: int) -> tuple[int, ...]:
        """The race that was declared at a look."""
        return self.looked[number - 1].race if number <= len(self.looked) else self.looks

    def due(self, reached: int) -> tuple[int, ...]:
        """The seeds that an arm with `reached` seeds is due to run: all, or in a race those up to its next look."""
        return self.seeds[: next((look for look in self.looks if look >= reached), len(self.seeds))]

    def missing(self, seeds: Sequence[int]) -> list[int]:
        """Planned seeds that are not among these."""
        return [seed for seed in self.due(len(seeds)) if seed not in set(seeds)]


def declared(folder: Path) -> Declared:
    """The declaration of the sweep in `folder`."""
    notes: list[str] = []
    plan: Mapping[str, Any] = {}
    try:
        plan = _tree(folder / "sweep.yaml")
    except ValueError as error:
        notes.append(f"{error}, so the plan is unknown; val_accuracy is assumed to be the selecting metric.")
    search, confirm = _section(plan, "search"), _section(plan, "confirm")
    arms: tuple[Arm, ...] = ()
    undeclared = None
    try:
        arms = tuple(results.read_arms(folder))
    except ValueError as error:
        undeclared = f"{error}."
        notes.append(undeclared)
    looked: tuple[Look, ...] = ()
    try:
        looked = tuple(results.looks_of(folder))
    except ValueError as error:
        looked = tuple(results.guessed_looks(folder))
        notes.append(f"{error}.")
    seeds = _numbers(confirm.get("seeds"))
    if confirm.get("until") == "decided":
        seeds = results.planned_seeds(seeds, looked)
    # Once a confirmation has results, its plan stands: a plan cut to what has run, or without what failed, could be cut when it suits.
    known = {seed for look in looked if not look.guessed for seed in (*look.trials.values(), *look.seeds)}
    dropped = tuple(seed for seed in sorted(known) if seed not in seeds)
    if dropped:
        notes.append(
            f"{named('seed', dropped)} left confirm.seeds after results were known. They still count: a verdict on chosen seeds would be "
            "too sure. Put them back into confirm.seeds if an arm lacks them."
        )
    margin = confirm.get("margin", MARGIN)
    return Declared(
        arms=arms,
        seeds=(*dropped, *seeds),
        looks=_numbers(confirm.get("race")),
        margin=float(margin) if isinstance(margin, int | float) and 0 < margin < 1 else MARGIN,
        metric=str(search.get("metric", Declared.metric)),
        mode=str(search.get("mode", Declared.mode)),
        looked=looked,
        notes=tuple(notes),
        undeclared=undeclared,
    )


def pairs(arms: Iterable[Arm], rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The two arms of every declared comparison among these rows, the method last: `label`s, in the order of declaration.

    `rows` have the columns `arm`, `label` and GROUP. Both sides are of one task, family and model.
    """
    out, declared = [], comparisons(list(arms))
    for _, group in rows.groupby(GROUP, sort=True):
        labels = dict(zip(group["arm"], group["label"], strict=True))
        out += [(labels[one.other], labels[one.arm]) for one in declared if one.arm in labels and one.other in labels]
    return list(dict.fromkeys(out))


def baselines(arms: Iterable[Arm], rows: pd.DataFrame) -> dict[str, str]:
    """`label` of each arm among these rows -> that of its own baseline, whether or not the two are compared."""
    out: dict[str, str] = {}
    declared = list(arms)
    for _, group in rows.groupby(GROUP, sort=True):
        labels = dict(zip(group["arm"], group["label"], strict=True))
        out |= {labels[arm.name]: labels[arm.baseline] for arm in declared if arm.name in labels and arm.baseline in labels}
    return out


def standing(rows: pd.DataFrame) -> str | None:
    """Why an arm has no result: `not run`, or that all its trials FAILED; None if it has one.

    `rows` are the arm's trials.
    """
    if rows.empty:
        return NOT_RUN
    if not rows["state"].eq("FAILED").all():
        return None
    return f"all {len(rows)} trials FAILED" if len(rows) > 1 else "its only trial FAILED"


def progress(plan: Declared, trials: pd.DataFrame) -> list[str]:
    """Sentences on what was declared and is missing: one per arm without a result or with missing seeds."""
    if plan.notes:
        return list(plan.notes)
    if not plan.seeds:
        return ["The sweep has no confirmation (no confirm.seeds), and search results are biased upwards."]
    done = trials[trials["stage"] == "confirm"]
    have = {str(arm): set(map(int, rows["seed"])) & set(plan.seeds) for arm, rows in done.groupby("arm")}
    outcomes = {arm.name: standing(trials[trials["arm"] == arm.name]) for arm in plan.arms}
    nothing = [f"{arm}: {outcome}." for arm, outcome in outcomes.items() if outcome is not None]
    # An arm whose trials all FAILED has nothing to confirm: its missing seeds do not mean that the sweep is still running.
    due = {arm: plan.due(len(have.get(arm, ()))) for arm, outcome in outcomes.items() if outcome in (None, NOT_RUN)}
    missing = {arm: sorted(set(seeds) - have.get(arm, set())) for arm, seeds in due.items()}
    number, total = sum(map(len, missing.values())), sum(map(len, due.values()))
    if not number:
        return nothing
    ended = f"{total - number} of {total} planned confirmation trials have ended: the sweep is still running or was interrupted"
    lack = [f"{arm}: no trial yet for confirmation {named('seed', lack)}." for arm, lack in missing.items() if lack and not outcomes[arm]]
    return [f"{ended}. All results use only these.", *lack, *nothing]


def listed(values: Iterable[Any]) -> str:
    """Values separated by commas: 4, 23, 82."""
    return ", ".join(str(value) for value in values)


def _tree(path: Path) -> Mapping[str, Any]:
    """The content of a sweep file. Raises ValueError with a short reason if it cannot be read."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path.name} does not contain a sweep")
    return tree


def _section(plan: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = plan.get(name)
    return section if isinstance(section, dict) else {}


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(value for value in values if isinstance(value, int)) if isinstance(values, (list, tuple)) else ()
