"""The stages of a sweep as sources of jobs: the search, which asks the arms' studies, and lists that are known in advance.

Outcomes go to the listener and, in the search, to the studies. Ray is imported only for the mailbox that stops trials.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
from optuna.trial import TrialState

from jepa_ray import plan, results
from jepa_ray.config import Arm, SweepConfig, TrialConfig, config_id
from jepa_ray.orchestration import rebuild_study
from jepa_ray.orchestration.cluster import Interrupt, Stored, Workload
from jepa_ray.orchestration.early_stopping import ArmScheduler
from jepa_ray.orchestration.jobs import Job, ended, write, written
from jepa_ray.orchestration.studies import ArmStudy, digest, open_storage
from jepa_ray.plan import warm_start
from jepa_ray.results import Stage, damaged
from jepa_ray.system import full_disk
from jepa_ray.system.heartbeat import Beat


class Listener(Protocol):
    """Receives the events of a sweep (the console)."""

    def watch(self, beats: Callable[[], Mapping[str, Beat]]) -> None: ...
    def prepared(self, family: str, task: str, report: dict[str, Any]) -> None: ...
    def stage(self, stage: Stage, total: int, done: int, concurrent: int) -> None: ...
    def started(self, job: Job) -> None: ...
    def progress(self, job: Job, metrics: dict[str, Any]) -> None: ...
    def finished(self, job: Job, outcome: dict[str, Any]) -> None: ...
    def repeated(self, job: Job, outcome: dict[str, Any]) -> None: ...
    def restarted(self, job: Job, reason: str) -> None: ...
    def say(self, sentence: str) -> None: ...


class Identities:
    """config_ids of trials. An id also identifies the data that the trial runs on, and every trial belongs to one arm.

    If the spaces of two arms overlap, both may propose the same configuration. The first arm gets it under its plain id, the other one
    runs it under a separate id. Each arm's rows are then complete, and neither lacks a confirmation.

    A row of an earlier version keeps the id of that version (`Stored.former`), unless the checkpoint was written after its trial started.
    """

    def __init__(self, folder: Path, stored: Mapping[Workload, Stored]) -> None:
        self._stored = stored
        rows = results.read_trials(folder, ["config_id", "arm", "started_at"]).sort_values("started_at")
        self._owners = dict(zip(rows["config_id"], rows["arm"], strict=True))
        started = zip(rows["config_id"], rows["started_at"], strict=True)
        self._started = {key: time for key, time in started if isinstance(time, str)}

    def stands_for(self, identity: str, arm: str, config: TrialConfig) -> bool:
        """Whether the id is that of the arm's configuration; in earlier versions, arms with equal configurations shared the plain id."""
        return identity in (self(arm, config), *self._plain(config))

    def was_of(self, identity: str, arm: str, config: TrialConfig) -> bool:
        """The same for an id whose row is lost; a plain id without an owner is assigned to the arm."""
        if identity in self._plain(config):
            self._owners.setdefault(identity, arm)
        return self.stands_for(identity, arm, config)

    def __call__(self, arm: str, config: TrialConfig) -> str:
        stored = self._stored[config.model.family, config.data.task]
        if stored.former not in ("", stored.identity):
            for former in (config_id(config, stored.former), config_id(config, f"{stored.former} of {arm}")):
                if self._owners.get(former) == arm and self._started.get(former, stored.written) >= stored.written:
                    return former
        plain = config_id(config, stored.identity)
        return plain if self._owners.setdefault(plain, arm) == arm else config_id(config, f"{stored.identity} of {arm}")

    def _plain(self, config: TrialConfig) -> list[str]:
        """The ids that the configuration would have if no other arm had proposed it: today's, and that of earlier versions."""
        stored = self._stored[config.model.family, config.data.task]
        return [config_id(config, data) for data in (stored.identity, stored.former) if data]


class _Jobs:
    """Common to both stages: tell the listener, and write the row of a job whose process died more than `max_failures` times."""

    def __init__(self, sweep: SweepConfig, folder: Path, identify: Identities, listener: Listener, interrupt: Interrupt) -> None:
        self._sweep, self._folder, self._identify, self._listener, self._interrupt = sweep, folder, identify, listener, interrupt
        self._attempts: dict[str, int] = {}

    def _job(self, arm: str, stage: Stage, config: TrialConfig, attempt: int = 1, number: int | None = None) -> Job:
        identity = self._identify(arm, config)
        return Job(results.attempt_id(identity, attempt), identity, arm, stage, self._folder.resolve(), config, number)

    def started(self, job: Job) -> None:
        self._listener.started(job)

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        self._listener.progress(job, metrics)

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        self._listener.finished(job, outcome)

    def restarted(self, job: Job, reason: str) -> None:
        self._stop_if_full(reason)
        self._attempts[job.trial_id] = self._attempts.get(job.trial_id, 1) + 1
        self._listener.restarted(job, reason)

    def _stop_if_full(self, reason: str) -> None:
        if full_disk.says_full(reason) or full_disk.probe(self._folder):
            raise full_disk.DiskFull(reason)

    def died(self, job: Job, reason: str) -> None:
        self._stop_if_full(reason)
        if not written(job):
            times, allowed = self._attempts.get(job.trial_id, 1), self._sweep.resources.max_failures
            error = f"its process died {times} time{'s' if times > 1 else ''} (resources.max_failures = {allowed}); {reason}"
            write(job, ended(job, "FAILED", error))
        self.finished(job, results.finished(self._folder)[job.config_id])

    def step(self) -> None:
        self._interrupt.check()


class Search(_Jobs):
    """Jobs of the search stage, from the arms' studies."""

    def __init__(
        self, sweep: SweepConfig, folder: Path, arms: Sequence[Arm], identify: Identities, listener: Listener, interrupt: Interrupt
    ) -> None:
        super().__init__(sweep, folder, identify, listener, interrupt)
        database = open_storage(folder)
        self._arms = {arm.name: arm for arm in arms}
        self._known = results.finished(folder)
        curves = functools.cache(lambda: rebuild_study.curves(folder, sweep.search.metric, sweep.scheduler.curve_unit))

        def recover(arm: Arm) -> list[rebuild_study.Told]:
            return rebuild_study.told(sweep, arm, plan.space(sweep, arm), self._known, curves(), identify.stands_for)

        frozen: dict[str, Any] = next((kept["arms"] for kept in damaged.selections(folder).values() if kept["sweep"] == digest(sweep)), {})
        if any((folder / "trials").glob("_*")):  # rows were set aside: a suggestion without a row may be one of them
            frozen = {}
        self.studies = {
            name: ArmStudy(sweep, arm, database, functools.partial(recover, arm), over=name in frozen) for name, arm in self._arms.items()
        }
        self._lost, self._whole = self._find_lost()
        self._running: dict[str, list[tuple[str, int]]] = {}
        self._spent = dict.fromkeys(self.studies, 0.0)
        for row in self._known.values():
            self._spend(row["arm"], row)
        self.total = sweep.search.num_trials * len(self.studies)
        self.done = sum(study.taken - study.interrupted for study in self.studies.values()) - len(self._lost)

    def _find_lost(self) -> tuple[dict[str, Job], set[str]]:
        """Jobs to run again, by config_id, because the study has the trial's outcome but its row is lost; and which were COMPLETE.

        Their new outcome goes to the tables only: the study already has one.
        """
        jobs: dict[str, Job] = {}
        whole = set()
        for name, study in self.studies.items():
            for key, trial in study.ended().items():
                if key in self._known or key in jobs:
                    continue
                config = plan.trial_config(self._sweep, self._arms[name], trial.params)
                if self._identify.was_of(key, name, config):
                    place = trial.user_attrs.get("place")
                    jobs[key] = Job(key, key, name, "search", self._folder.resolve(), self._at_rungs(config), place)
                    whole |= {key} if trial.state == TrialState.COMPLETE else set()
        return jobs, whole

    def next(self) -> Job | None:
        """The next configuration to run: first those whose rows are lost. Outcomes that are already known go to the study without a run."""
        for job in self._lost.values():
            if job.config_id not in self._known and job.config_id not in self._running:
                self._running[job.config_id] = []
                return job
        while open_arms := [name for name, study in self.studies.items() if not study.exhausted and self._affords(name)]:
            # Interrupted trials first, then the arm with the fewest trials.
            arm = min(open_arms, key=lambda name: (not self.studies[name].interrupted, self.studies[name].taken))
            study = self.studies[arm]
            asked = study.ask()
            if asked is None:
                continue
            config = self._at_rungs(plan.trial_config(self._sweep, self._arms[arm], asked.params))
            job = self._job(arm, "search", config, number=asked.place)
            study.note(asked.number, config_id=job.config_id, trial_id=job.trial_id)
            if row := self._known.get(job.config_id):
                study.tell(asked.number, row["state"], row[self._sweep.search.metric], self._end_of_curve(row))
                self._listener.repeated(job, row)
            elif job.config_id in self._running:
                self._running[job.config_id].append((arm, asked.number))  # its study is told when the twin ends
            else:
                self._running[job.config_id] = [(arm, asked.number)]
                return job
        return None

    def _at_rungs(self, config: TrialConfig) -> TrialConfig:
        """The configuration of a job: ASHA needs a validation at each of its rungs. The trial's identity does not depend on them."""
        evaluation = config.evaluation.model_copy(update={"at_steps": self._sweep.scheduler.at_steps})
        return config.model_copy(update={"evaluation": evaluation})

    def _end_of_curve(self, row: dict[str, Any]) -> int | None:
        """The last epoch (or step) of a COMPLETE trial: it is not reported, so its value comes from the row."""
        done = row.get({"epoch": "epochs_done", "step": "steps"}[self._sweep.scheduler.curve_unit])
        return int(done) if row["state"] == "COMPLETE" and done is not None and done == done else None

    def _affords(self, arm: str) -> bool:
        """Whether another trial of the arm may start; one that an earlier process left unfinished is always resumed."""
        limit = self._sweep.search.train_flops
        return limit is None or self._spent[arm] < limit or bool(self.studies[arm].interrupted)

    def _spend(self, arm: str, row: dict[str, Any]) -> None:
        if arm in self._spent and row.get("stage", "search") == "search":
            self._spent[arm] += row.get("train_flops_unpacked") or row.get("train_flops") or 0.0

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        super().progress(job, metrics)
        value = metrics.get(self._sweep.search.metric)
        if value is not None:
            for arm, number in self._running.get(job.config_id, ()):
                self.studies[arm].report(number, value, int(metrics[self._sweep.scheduler.curve_unit]))

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        self._known[job.config_id] = row = {self._sweep.search.metric: None, **outcome}
        self._spend(job.arm, row)
        asked = self._running.pop(job.config_id)
        twins = asked if job.config_id in self._lost else asked[1:]
        for arm, number in asked:
            self.studies[arm].tell(number, row["state"], row[self._sweep.search.metric], self._end_of_curve(row))
        super().finished(job, outcome)
        for _ in twins:
            self._listener.repeated(job, outcome)

    def best(self) -> dict[str, tuple[dict[str, Any], TrialConfig]]:
        """Arm -> row and configuration of its best COMPLETE trial by the validation metric; among equals, the first suggested."""
        search, trials = self._sweep.search, results.read_trials(self._folder)
        best = {}
        for arm, study in self.studies.items():
            row = results.best_trial(trials[trials["config_id"].isin(study.found())], search.metric, search.mode)
            if row is None:
                self._listener.say(f"Arm {arm} has no COMPLETE trial, so there is nothing to confirm; the other arms continue.")
                continue
            key = str(row["config_id"])
            params = study.params(key)
            # Not by the id, which also names the workers and device, and these may have changed since.
            columns = {path: row.get(warm_start.column_of(path)) for path, value in params.items() if isinstance(value, int | float | str)}
            if wrong := [path for path, value in columns.items() if value != params[path]]:
                raise ValueError(
                    f"{self._folder}/study.db and trials disagree about {', '.join(wrong)} of {key}; "
                    "move study.db elsewhere and run the same command again, which rebuilds it from the tables"
                )
            config = plan.trial_config(self._sweep, self._arms[arm], params)
            best[arm] = ({str(name): value for name, value in row.items()}, config)
        return best

    def scheduler(self, mailbox: Any) -> ArmScheduler:
        """ASHA per arm, with rungs rebuilt from the tables of earlier runs."""
        search, time = self._sweep.search, self._sweep.scheduler.time_attr

        def stop(job: Job) -> None:
            if job.config_id not in self._whole:  # a trial that was COMPLETE and is run again is not cut
                ray.get(mailbox.stop.remote(job.trial_id))

        scheduler = ArmScheduler(self._sweep.scheduler, search.metric, search.mode, stop)
        split, _, name = search.metric.partition("_")
        curves = results.read_metrics(self._folder, filters=[("split", "==", split)])
        arms = {row["trial_id"]: row["arm"] for row in self._known.values() if row["stage"] == "search"}
        for trial_id, curve in curves[curves["name"].isin([name, search.metric])].groupby("trial_id"):
            if (trial := str(trial_id)) in arms:
                points = curve.dropna(subset=[time, "value"]).sort_values("epoch")
                scheduler.remember(arms[trial], trial, zip(points[time].tolist(), points["value"].tolist(), strict=True))
        return scheduler


class FixedJobs(_Jobs):
    """Jobs of a list that is known in advance. Those that are not COMPLETE are tried again when the sweep is run again."""

    def __init__(
        self,
        sweep: SweepConfig,
        folder: Path,
        identify: Identities,
        stage: Stage,
        wanted: Sequence[tuple[str, TrialConfig]],
        *,
        listener: Listener,
        interrupt: Interrupt,
    ) -> None:
        super().__init__(sweep, folder, identify, listener, interrupt)
        attempts = results.read_trials(folder, ["trial_id", "config_id", "state"])
        complete = set(attempts.loc[attempts["state"] == "COMPLETE", "config_id"])
        # The highest attempt, not the number of rows: an earlier row may be lost while the id of a later attempt is taken.
        tries: dict[str, int] = {}
        for trial_id, identity in zip(attempts["trial_id"], attempts["config_id"], strict=True):
            tries[identity] = max(tries.get(identity, 0), results.attempt_of(trial_id))
        distinct = {identify(arm, config): (arm, config) for arm, config in wanted}
        self._queue = [
            self._job(arm, stage, config, attempt=1 + tries.get(identity, 0))
            for identity, (arm, config) in distinct.items()
            if identity not in complete
        ]
        self.stage = stage
        self.total = len(distinct)
        self.done = len(distinct) - len(self._queue)

    def next(self) -> Job | None:
        return self._queue.pop(0) if self._queue else None

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        super().finished(job, outcome)
        if reason := outcome.get("model_error"):
            self._listener.say(f"{job.arm} seed {job.config.seed} is COMPLETE, but its model could not be saved: {reason}")
