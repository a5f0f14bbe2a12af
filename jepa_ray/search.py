"""A sweep from its first suggestion to its last confirmation: two stages of jobs, each run by Ray Tune.

    search    every arm's study proposes configurations, arms in turn, so that their budgets stay equal
    select    the best COMPLETE trial of each arm by `search.metric`, on validation only, frozen in selection.json
    confirm   each arm's best on every fresh seed, scored once on the sealed test split

Resuming needs no mode of its own: what the tables hold of a configuration is not run again, in either stage.
May import ray. The console is told what happens; nothing is printed here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune

from jepa_ray import plan, results
from jepa_ray.cluster import Cluster, Interrupt, Pair, Prepare, Stored, prepare
from jepa_ray.config import SweepConfig, TrialConfig, canonical, config_id
from jepa_ray.jobs import Job, ended, storage, write, written
from jepa_ray.mailbox import Mailbox
from jepa_ray.results import Stage
from jepa_ray.scheduler import ArmScheduler, Events, JobSearcher, Source
from jepa_ray.studies import ArmStudy, identity, open_storage
from jepa_ray.worker import RunTrial, Stock, trainable


class Listener(Protocol):
    """Who is told what happens (the console)."""

    def prepared(self, name: str, report: dict[str, Any]) -> None: ...
    def stage(self, stage: Stage, total: int, done: int, concurrent: int) -> None: ...
    def started(self, job: Job) -> None: ...
    def progress(self, job: Job, metrics: dict[str, Any]) -> None: ...
    def finished(self, job: Job, outcome: dict[str, Any]) -> None: ...
    def repeated(self, job: Job, outcome: dict[str, Any]) -> None: ...
    def restarted(self, job: Job, reason: str) -> None: ...
    def say(self, sentence: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a sweep came to."""

    failed: list[dict[str, Any]]
    """Rows of trials whose last attempt is FAILED."""
    unconfirmed: list[str]
    """Arms without a COMPLETE trial, which therefore have no best one to confirm."""


def run(
    sweep: SweepConfig,
    folder: Path,
    cluster: Cluster,
    listener: Listener,
    interrupt: Interrupt | None = None,
    prepare_one: Prepare | None = None,
    run_trial: RunTrial | None = None,
) -> Outcome:
    """Run, or go on with, the whole sweep. `prepare_one` and `run_trial` replace training's own (tests, benchmarks)."""
    interrupt = interrupt or Interrupt()
    arms = plan.arms(sweep)
    shutil.rmtree(storage(folder), ignore_errors=True)  # of a run that was killed
    models = {sweep.model} if isinstance(sweep.model, str) else set(sweep.model.values())
    listener.say(
        "Preparing data and models"
        + (" (a tiny base that is not in the cache is trained first: about a minute)" if "tiny" in models else "")
    )
    stored, refused = prepare(sweep, cluster, prepare_one)
    if not stored:
        raise ValueError("\n".join(dict.fromkeys(refused.values())))
    for pair, data in stored.items():
        listener.prepared(_name(pair, sweep), data.report)
        _write_report(folder, pair, data.report)
    for pair, reason in refused.items():
        listener.say(f"{_name(pair, sweep)}: {reason}; its arms are FAILED, the others go on")
    unprepared = _refuse(sweep, folder, refused)
    try:
        mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).remote()
        stock = Stock(cluster.slot, {pair: data.references for pair, data in stored.items()}, run_trial, mailbox)
        search = Search(sweep, folder, stored, listener, interrupt)
        listener.stage("search", search.total, search.done, cluster.max_concurrent)
        _tune(search, cluster, stock, search.scheduler(mailbox), folder, sweep.resources.max_failures, interrupt)
        selection: dict[str, TrialConfig] = {}
        if sweep.confirm.seeds:
            selection = select(sweep, folder, search, listener)
            confirm = Confirm(sweep, folder, stored, selection, listener, interrupt)
            listener.stage("confirm", confirm.total, confirm.done, cluster.max_concurrent)
            _tune(confirm, cluster, stock, None, folder, sweep.resources.max_failures, interrupt)
    finally:
        shutil.rmtree(storage(folder), ignore_errors=True)
    missing = [arm.name for arm in arms if sweep.confirm.seeds and arm.name not in selection]
    failed = [row for row in results.finished(folder).values() if row["state"] == "FAILED" and row["config_id"] not in unprepared]
    return Outcome(failed=failed, unconfirmed=missing)


def _name(pair: Pair, sweep: SweepConfig) -> str:
    return pair[0] if len(sweep.tasks) == 1 else " ".join(pair)


def _write_report(folder: Path, pair: Pair, report: dict[str, Any]) -> None:
    path = folder / "data" / f"{pair[0]}-{pair[1]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _refuse(sweep: SweepConfig, folder: Path, refused: dict[Pair, str]) -> set[str]:
    """A FAILED row for every arm whose data or model could not be prepared; ids of such rows that are of the past."""
    past = set()
    for arm in plan.arms(sweep):
        config = plan.trial_config(sweep, arm, {})
        identity = config_id(config, f"not prepared {arm.name}")
        job = Job(identity, identity, arm.name, "search", folder.resolve(), config)
        reason = refused.get((arm.family, arm.task))
        if reason is None:
            past.add(identity)
        elif not written(job):
            write(job, ended(job, "FAILED", reason))
    return past


class _Jobs:
    """What both stages do with a job: tell the listener, and write the row of one whose process died too often."""

    def __init__(self, sweep: SweepConfig, folder: Path, stored: dict[Pair, Stored], listener: Listener, interrupt: Interrupt) -> None:
        self._sweep, self._folder, self._stored, self._listener, self._interrupt = sweep, folder, stored, listener, interrupt
        self._attempts: dict[str, int] = {}

    def _job(self, arm: str, stage: Stage, config: TrialConfig, attempt: int = 1) -> Job:
        identity = self._identity(config)
        return Job(results.attempt_id(identity, attempt), identity, arm, stage, self._folder.resolve(), config)

    def _identity(self, config: TrialConfig) -> str:
        return config_id(config, self._stored[config.model.family, config.data.task].identity)

    def started(self, job: Job) -> None:
        self._listener.started(job)

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        self._listener.progress(job, metrics)

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        self._listener.finished(job, outcome)

    def restarted(self, job: Job, reason: str) -> None:
        self._attempts[job.trial_id] = self._attempts.get(job.trial_id, 1) + 1
        self._listener.restarted(job, reason)

    def died(self, job: Job, reason: str) -> None:
        if not written(job):
            times, allowed = self._attempts.get(job.trial_id, 1), self._sweep.resources.max_failures
            error = f"its process died {times} time{'s' if times > 1 else ''} (resources.max_failures = {allowed}); {reason}"
            write(job, ended(job, "FAILED", error))
        self.finished(job, results.finished(self._folder)[job.config_id])

    def step(self) -> None:
        self._interrupt.take_up()


class Search(_Jobs):
    """Jobs of the search stage, from the arms' studies."""

    def __init__(self, sweep: SweepConfig, folder: Path, stored: dict[Pair, Stored], listener: Listener, interrupt: Interrupt) -> None:
        super().__init__(sweep, folder, stored, listener, interrupt)
        database = open_storage(folder)
        self._arms = {arm.name: arm for arm in plan.arms(sweep) if (arm.family, arm.task) in stored}
        self.studies = {name: ArmStudy(sweep, arm, database) for name, arm in self._arms.items()}
        self._known = results.finished(folder)
        self._running: dict[str, list[tuple[str, int]]] = {}
        self.total = sweep.search.num_trials * len(self.studies)
        self.done = sum(study.taken - study.interrupted for study in self.studies.values())

    def next(self) -> Job | None:
        """The next configuration that has to be run; those whose outcome is known are told to their study on the way."""
        while open_arms := [name for name, study in self.studies.items() if not study.exhausted]:
            # Interrupted trials first; then the arm that has had the fewest trials.
            arm = min(open_arms, key=lambda name: (not self.studies[name].interrupted, self.studies[name].taken))
            study = self.studies[arm]
            asked = study.ask()
            if asked is None:
                continue
            job = self._job(arm, "search", plan.trial_config(self._sweep, self._arms[arm], asked.params))
            study.note(asked.number, config_id=job.config_id, trial_id=job.trial_id)
            if row := self._known.get(job.config_id):
                study.tell(asked.number, row["state"], row[self._sweep.search.metric])
                self._listener.repeated(job, row)
            elif job.config_id in self._running:
                self._running[job.config_id].append((arm, asked.number))  # told when its twin ends
            else:
                self._running[job.config_id] = [(arm, asked.number)]
                return job
        return None

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        super().progress(job, metrics)
        value = metrics.get(self._sweep.search.metric)
        if value is not None:
            for arm, number in self._running.get(job.config_id, ()):
                self.studies[arm].report(number, value, int(metrics["epoch"]))

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        self._known[job.config_id] = row = {self._sweep.search.metric: None, **outcome}
        first, *twins = self._running.pop(job.config_id)
        for arm, number in (first, *twins):
            self.studies[arm].tell(number, row["state"], row[self._sweep.search.metric])
        super().finished(job, outcome)
        for _ in twins:
            self._listener.repeated(job, outcome)

    def best(self) -> dict[str, tuple[dict[str, Any], TrialConfig]]:
        """Arm -> row and configuration of its best COMPLETE trial by the validation metric, the first found of equals."""
        metric, sign = self._sweep.search.metric, 1.0 if self._sweep.search.mode == "max" else -1.0
        rows = {
            key: row
            for key, row in results.finished(self._folder).items()
            if row["state"] == "COMPLETE" and row["stage"] == "search" and row[metric] is not None and math.isfinite(row[metric])
        }
        best = {}
        for arm, study in self.studies.items():
            found = [key for key in study.found() if key in rows]
            if not found:
                self._listener.say(f"Arm {arm} has no COMPLETE trial, so that there is nothing to confirm; the other arms go on.")
                continue
            key = max(found, key=lambda key: sign * float(rows[key][metric]))  # max keeps the first of equals
            config = plan.trial_config(self._sweep, self._arms[arm], study.params(key))
            assert self._identity(config) == key, f"study.db and trials disagree about {key}"
            best[arm] = (rows[key], config)
        return best

    def scheduler(self, mailbox: Any) -> ArmScheduler:
        """ASHA per arm, its rungs as the tables of earlier runs left them."""
        search, time = self._sweep.search, self._sweep.scheduler.time_attr
        scheduler = ArmScheduler(self._sweep.scheduler, search.metric, search.mode, lambda job: ray.get(mailbox.stop.remote(job.trial_id)))
        split, _, name = search.metric.partition("_")
        curves = results.read_metrics(self._folder, filters=[("split", "==", split)])
        arms = {row["trial_id"]: row["arm"] for row in self._known.values() if row["stage"] == "search"}
        for trial_id, curve in curves[curves["name"].isin([name, search.metric])].groupby("trial_id"):
            if (trial := str(trial_id)) in arms:
                points = curve.dropna(subset=[time, "value"]).sort_values("epoch")
                scheduler.remember(arms[trial], trial, zip(points[time].tolist(), points["value"].tolist(), strict=True))
        return scheduler


class Confirm(_Jobs):
    """Jobs of the confirmation stage: every selected configuration on every seed, all arms on a seed before the next."""

    def __init__(
        self,
        sweep: SweepConfig,
        folder: Path,
        stored: dict[Pair, Stored],
        selection: dict[str, TrialConfig],
        listener: Listener,
        interrupt: Interrupt,
    ) -> None:
        super().__init__(sweep, folder, stored, listener, interrupt)
        attempts = results.read_trials(folder, ["config_id", "state"])
        complete = set(attempts.loc[attempts["state"] == "COMPLETE", "config_id"])
        wanted = [(arm, config) for seed in sweep.confirm.seeds for arm, best in selection.items() for config in [confirmation(best, seed)]]
        self._queue = [
            self._job(arm, "confirm", config, attempt=1 + int((attempts["config_id"] == self._identity(config)).sum()))
            for arm, config in wanted
            if self._identity(config) not in complete
        ]
        self.total = len(wanted)
        self.done = len(wanted) - len(self._queue)

    def next(self) -> Job | None:
        return self._queue.pop(0) if self._queue else None


def confirmation(best: TrialConfig, seed: int) -> TrialConfig:
    """A selected configuration on a fresh seed, scored on the test split as well."""
    return best.model_copy(update={"seed": seed, "evaluation": best.evaluation.model_copy(update={"test": True})})


def select(sweep: SweepConfig, folder: Path, search: Search, listener: Listener) -> dict[str, TrialConfig]:
    """Arm -> its best configuration by the validation metric, ties by first found; frozen in a file before the test split is opened.

    A selection that was made for this very sweep is read back, not made again. After `--extend` a new one is made beside the old.
    """
    digest = hashlib.sha256(json.dumps(identity(sweep), sort_keys=True).encode()).hexdigest()[:16]
    files = sorted(folder.glob("selection*.json"), key=lambda path: (len(path.name), path.name))
    kept: dict[str, Any] = {}
    for path in reversed(files):
        frozen = json.loads(path.read_text())
        if frozen["sweep"] == digest:
            kept = frozen["arms"]
            break
    if kept and not set(search.studies) - set(kept):
        return {arm: TrialConfig.model_validate(best["config"]) for arm, best in kept.items()}
    if files and not kept:
        listener.say(
            f"The test split has been opened before ({files[-1].name}): this selection is made after its numbers could be seen. "
            "Report it as exploratory, or confirm on a test split that is still sealed."
        )
    arms, configs, metric = {}, {}, sweep.search.metric
    for arm, best in kept.items():  # an arm that could not be run before is added to them, and they stay as they were frozen
        configs[arm], arms[arm] = TrialConfig.model_validate(best["config"]), best
    for arm, (row, config) in search.best().items():
        if arm in kept:
            continue
        configs[arm] = config
        arms[arm] = {"trial_id": row["trial_id"], "config_id": row["config_id"], metric: row[metric], "config": canonical(config)}
    frozen = {
        "sweep": digest,
        "metric": metric,
        "mode": sweep.search.mode,
        "seeds": sweep.confirm.seeds,
        "frozen_at": results.now(),
        "arms": arms,
    }
    if kept and arms.keys() == kept.keys():
        return configs
    path = folder / ("selection.json" if not files else f"selection-{len(files) + 1}.json")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(frozen, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return configs


def _tune(
    source: Source, cluster: Cluster, stock: Stock, scheduler: ArmScheduler | None, folder: Path, max_failures: int, interrupt: Interrupt
) -> None:
    """Run a stage's jobs to the last one."""
    first = source.next()
    if first is None:
        return  # nothing left to run: Tune would take a second to find that out
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, stock=stock), cluster.slot.trial_resources()),
        tune_config=tune.TuneConfig(
            search_alg=JobSearcher(source, first),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=cluster.max_concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=first.stage,
            storage_path=str(storage(folder)),
            verbose=0,
            callbacks=[Events(source)],
            failure_config=tune.FailureConfig(max_failures=max_failures),
        ),
    )
    interrupt.armed = True
    try:
        tuner.fit()
    finally:
        interrupt.armed = False


def _trial_name(trial: Any) -> str:
    return Job.from_json(trial.config["job"]).trial_id
