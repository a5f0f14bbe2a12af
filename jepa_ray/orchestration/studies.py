"""One Optuna study per arm, used through ask and tell and stored in the sweep's `study.db`; nothing here runs a trial.

A study records every suggestion and how its trial ended: COMPLETE with its value, PRUNED if cut early (with the intermediate
values so far), FAIL if there is no finite value. A trial that a killed process left RUNNING is served again under its own number.
The tables are authoritative: a configuration whose outcome they contain is not run; the study gets that outcome.

    optuna-dashboard sqlite:///results/lora/study.db        shows the studies while they grow

If the arm of a new study already has trials in the tables (`study.db` was lost), the study begins with them.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from jepa_ray import plan
from jepa_ray.config import Arm, SearchConfig, SweepConfig, canonical
from jepa_ray.config.space import Distribution
from jepa_ray.orchestration.rebuild_study import Told
from jepa_ray.plan import warm_start
from jepa_ray.plan.changes import FREE
from jepa_ray.streams import derive_seed, stream

TOLD = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL}


@dataclass(frozen=True)
class PendingTrial:
    """A suggestion: the study's trial number and the value of every parameter of the arm's space that applies."""

    number: int
    params: dict[str, Any]
    place: int
    """Position among all suggestions of the arm, from 1; unlike `number`, it keeps counting after `--extend` has changed the space."""


def open_storage(folder: Path) -> BaseStorage:
    """`study.db` of the sweep in `folder`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage(f"sqlite:///{folder.resolve() / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}})


class ArmStudy:
    """The study of one arm.

    `taken` counts the trials started over all runs of the sweep, repeated suggestions included. `exhausted` is True when no further
    trial is due, because the budget or the grid is used up.
    """

    def __init__(
        self, sweep: SweepConfig, arm: Arm, storage: BaseStorage, recover: Callable[[], list[Told]] = list, *, over: bool = False
    ) -> None:
        """`recover` returns the arm's search trials from the tables, for a new study to begin with. `over`: the search has ended, because
        its best trial is frozen; suggestions without a row were repeats.
        """
        self._sweep, self._arm, self._storage = sweep, arm, storage
        self._space = plan.space(sweep, arm)
        self._study = self._open()
        if self._study.user_attrs.get("unfilled"):
            self._recover(recover(), over)
        self._live: dict[int, Trial] = {}
        self._enqueue()
        trials = self._study.get_trials(deepcopy=False)
        self._orphans = [trial for trial in trials if trial.state == TrialState.RUNNING]
        taken = {trial.user_attrs.get("place") for trial in trials}
        self._gaps = [place for place in self._study.user_attrs.get("gaps", []) if place not in taken]
        self.taken = _taken(self._study)
        self.exhausted = self.taken >= sweep.search.num_trials and not self._orphans

    @property
    def interrupted(self) -> int:
        """Trials that an earlier process left unfinished and that have not been served again yet."""
        return len(self._orphans)

    def ask(self) -> PendingTrial | None:
        """The next suggestion, or None when the arm is exhausted. Interrupted trials come first, unchanged."""
        place = self._gaps[0] if self._gaps else self.taken + 1
        self._study.sampler = sampler(self._sweep.search, self._arm.name, place - 1, conditional=any(d.when for d in self._space.values()))
        if self._orphans:
            trial = Trial(self._study, self._orphans.pop(0)._trial_id)
        elif self.exhausted or (
            self._sweep.search.algorithm == "grid" and not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        ):
            self.exhausted = True
            return None
        else:
            trial = self._study.ask()
            self._gaps = self._gaps[1:]
            self.taken += 1
        self.exhausted = self.taken >= self._sweep.search.num_trials and not self._orphans
        self._live[trial.number] = trial
        place = trial.user_attrs.get("place", place)  # an interrupted trial keeps its place
        trial.set_user_attr("place", place)
        return PendingTrial(trial.number, draw(self._space, trial), int(place))

    def found(self) -> list[str]:
        """config_ids in the order of their first suggestion."""
        trials = self._study.get_trials(deepcopy=False)
        return list(dict.fromkeys(trial.user_attrs["config_id"] for trial in trials if "config_id" in trial.user_attrs))

    def ended(self) -> dict[str, FrozenTrial]:
        """config_id -> first finished trial of the configuration."""
        out: dict[str, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if "config_id" in trial.user_attrs and trial.state.is_finished():
                out.setdefault(str(trial.user_attrs["config_id"]), trial)
        return out

    def params(self, config_id: str) -> dict[str, Any]:
        """Parameters of the first suggestion that led to this configuration."""
        trials = self._study.get_trials(deepcopy=False)
        return next(dict(trial.params) for trial in trials if trial.user_attrs.get("config_id") == config_id)

    def note(self, number: int, **attributes: Any) -> None:
        """Store attributes of a trial (config_id, trial_id)."""
        for name, value in attributes.items():
            self._live[number].set_user_attr(name, value)

    def report(self, number: int, value: float, epoch: int) -> None:
        """Store an intermediate value; an epoch that a restarted trial reports again keeps its first value."""
        trial = self._live[number]
        if math.isfinite(value) and epoch not in self._storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(value, epoch)

    def tell(self, number: int, state: str, value: float | None, epoch: int | None = None) -> None:
        """Record how a trial ended. `state` is one of the results tables; COMPLETE without a finite value is a failure for the sampler.

        `epoch`: the last one, with which the trial's curve ends.
        """
        outcome = TOLD[state]
        if value is not None and epoch and number in self._live:
            self.report(number, value, epoch)
        if outcome == TrialState.COMPLETE and (value is None or not math.isfinite(value)):
            outcome = TrialState.FAIL
        self._study.tell(number, value if outcome == TrialState.COMPLETE else None, state=outcome, skip_if_finished=True)
        self._live.pop(number, None)

    def _open(self) -> Study:
        """The arm's study; if the space has changed, a new one that continues the old.

        Optuna cannot change a parameter's kind or choices within a study. When `--extend` has changed the space, the arm continues
        in `<arm> #2`: finished trials that fit into the new space are copied, interrupted ones are enqueued.
        """
        space = json.dumps({path: canonical(distribution) for path, distribution in self._space.items()}, sort_keys=True)
        names = set(optuna.get_all_study_names(self._storage))
        generations = [name for number in range(1, len(names) + 2) if (name := _name(self._arm.name, number)) in names]
        old = optuna.load_study(study_name=generations[-1], storage=self._storage) if generations else None
        if old is not None and old.user_attrs.get("space", space) == space:
            old.set_user_attr("space", space)
            return self._named(old)
        direction = StudyDirection.MAXIMIZE if self._sweep.search.mode == "max" else StudyDirection.MINIMIZE
        study = optuna.create_study(study_name=_name(self._arm.name, len(generations) + 1), storage=self._storage, direction=direction)
        for trial in old.get_trials(deepcopy=False) if old is not None else ():
            if trial.state == TrialState.RUNNING:
                study.enqueue_trial(trial.params, user_attrs={"interrupted": True})
            elif trial.state.is_finished() and (moved := self._moved(trial)) is not None:
                study.add_trial(moved)
        study.set_user_attr("taken_before", _taken(old, TrialState.RUNNING) if old is not None else 0)
        study.set_user_attr("unfilled", old is None)
        study.set_user_attr("space", space)
        return self._named(study)

    def _recover(self, rows: list[Told], over: bool) -> None:
        """Begin with the trials in the tables. If the process is killed halfway, the next one continues from there."""
        present = set(self.found())
        for trial in rows:
            if trial.params is not None and trial.row["config_id"] not in present:
                self._study.add_trial(self._recovered(trial))
        places = {trial.place for trial in rows}
        gaps = [] if over else [place for place in range(1, max(places, default=0)) if place not in places]
        added = sum(trial.params is not None for trial in rows)
        self._study.set_user_attr("taken_before", self._sweep.search.num_trials - added if over else len(rows) - added)
        self._study.set_user_attr("gaps", gaps)
        self._study.set_user_attr("unfilled", False)

    def _recovered(self, trial: Told) -> FrozenTrial:
        value, state = trial.row[self._sweep.search.metric], TOLD[trial.row["state"]]
        params = dict(trial.params or {})
        if state == TrialState.COMPLETE and (value is None or not math.isfinite(value)):
            state = TrialState.FAIL
        if state == TrialState.PRUNED:  # Optuna takes the last intermediate value
            value = trial.curve[max(trial.curve)] if trial.curve else None
        return optuna.trial.create_trial(
            state=state,
            value=value if state != TrialState.FAIL else None,
            params=params,
            distributions={path: self._space[path].to_optuna() for path in params},
            intermediate_values=dict(trial.curve),
            user_attrs={"config_id": trial.row["config_id"], "trial_id": trial.row["trial_id"], "place": trial.place},
        )

    def _named(self, study: Study) -> Study:
        """Set the metric's name, for optuna-dashboard, which otherwise shows "Objective 0"."""
        if study.metric_names != [self._sweep.search.metric]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([self._sweep.search.metric])
        return study

    def _moved(self, trial: FrozenTrial) -> FrozenTrial | None:
        """A finished trial of the arm's former space, for the study of the new one; None if it is outside the new space."""
        distributions = {path: self._space[path].to_optuna() for path in trial.params if path in self._space}
        if len(distributions) < len(trial.params) or not all(_contains(distributions[path], value) for path, value in trial.params.items()):
            return None
        return optuna.trial.create_trial(
            state=trial.state,
            value=trial.value,
            params=trial.params,
            distributions=distributions,
            intermediate_values=trial.intermediate_values,
            user_attrs={**trial.user_attrs, "copied": True},
        )

    def _enqueue(self) -> None:
        """Enqueue the defaults, so that no search ends below them, then the suggestions of earlier sweeps, or the grid for `grid`."""
        search, first = self._sweep.search, plan.defaults(self._sweep, self._arm)
        queue = [*([first] if first else []), *self._earlier()]
        if search.algorithm == "grid":
            points = plan.grid(self._sweep, self._arm)
            if len(points) > search.num_trials:  # only part of the grid fits: sample it fairly instead of taking one corner
                order = stream(search.seed, "grid order", self._arm.name).permutation(len(points))
                points = [points[index] for index in order]
            queue = sorted(points, key=lambda point: point != first)
        for params in queue:
            self._study.enqueue_trial(params, skip_if_exists=True)

    def _earlier(self) -> list[dict[str, Any]]:
        """Suggestions from `search.warm_start` as of the arm's start: later results of those sweeps change nothing here."""
        search = self._sweep.search
        noted = self._study.user_attrs.get("warm_start", {"folders": []})
        if search.warm_start and noted["folders"] != list(search.warm_start):
            history = warm_start.read(search.warm_start, self._arm.method, self._space, search.metric, search.mode)
            noted = {
                "folders": list(search.warm_start),
                "trials": len(history.trials),
                "suggestions": history.suggestions,
                "text": history.text(),
            }
            self._study.set_user_attr("warm_start", noted)
        return list(noted["suggestions"]) if search.warm_start else []


def identity(sweep: SweepConfig) -> dict[str, Any]:
    """What identifies a sweep: everything except its name, its output folder, its resources, its trackers, which models it keeps, what it
    claims, and how long it goes on."""
    tree = {key: value for key, value in canonical(sweep).items() if key not in (*FREE, "claims")}
    return tree | {"confirm": {key: value for key, value in tree["confirm"].items() if key not in ("keep", "until", "max_seeds")}}


def digest(sweep: SweepConfig) -> str:
    """Digest that identifies the sweep in its selection files."""
    return hashlib.sha256(json.dumps(identity(sweep), sort_keys=True).encode()).hexdigest()[:16]


def draw(space: dict[str, Distribution], trial: Trial) -> dict[str, Any]:
    """Draw every parameter that applies, in file order, because a `when` refers to parameters drawn earlier."""
    params: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # samplers that fall back to independent sampling warn for every parameter
        for path, distribution in space.items():
            if distribution.applies(params):
                params[path] = distribution.suggest(trial, path)
    return params


def sampler(search: SearchConfig, arm: str, number: int, conditional: bool) -> BaseSampler:
    """Optuna's sampler for the arm's trial `number`.

    Each trial gets a new sampler seeded by its number, so an interrupted sweep continues as if it had not been interrupted and never
    repeats its first draws. QMC is a single sequence, so its seed stays the same. Samplers that do not handle a parameter
    (categorical ones in CMA-ES, conditional ones in most) draw it at random.
    """
    seed = derive_seed(search.seed, "sampler", arm, number) % 2**32
    startup = max(4, min(10, search.num_trials // 3))
    independent = RandomSampler(seed=derive_seed(search.seed, "independent sampler", arm, number) % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.algorithm:
            case "tpe":
                # group: the multivariate estimate is made within sets of parameters that occur together.
                return TPESampler(seed=seed, multivariate=True, group=conditional, constant_liar=True, n_startup_trials=startup)
            case "gp":
                return GPSampler(seed=seed, independent_sampler=independent, n_startup_trials=startup, warn_independent_sampling=False)
            case "qmc":
                fixed = derive_seed(search.seed, "sampler", arm) % 2**32
                return QMCSampler(
                    seed=fixed,
                    scramble=True,
                    independent_sampler=independent,
                    warn_independent_sampling=False,
                    warn_asynchronous_seeding=False,
                )
            case "cmaes":
                return CmaEsSampler(seed=seed, independent_sampler=independent, n_startup_trials=startup, warn_independent_sampling=False)
            case "random" | "grid":
                return RandomSampler(seed=seed)


def _name(arm: str, generation: int) -> str:
    return arm if generation == 1 else f"{arm} #{generation}"


def _taken(study: Study, *without: TrialState) -> int:
    left_out = (TrialState.WAITING, *without)
    trials = study.get_trials(deepcopy=False)
    return int(study.user_attrs.get("taken_before", 0)) + sum(
        trial.state not in left_out and "copied" not in trial.user_attrs for trial in trials
    )


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
