"""A sweep from its first suggestion to its last confirmation: stages of jobs, each run by Ray Tune.

    search    every arm's study proposes configurations, arms in turn, so that their budgets stay equal
    select    the best COMPLETE trial of each arm by `search.metric`, on validation only, frozen in selection.json
    confirm   each arm's best configuration on every fresh seed (or as many as a race needs), scored once on the sealed test split
    matched   the more expensive of each method and its baseline again, with the training FLOPs of the cheaper one

Resuming needs no separate mode: no stage runs a configuration again whose results are already in the tables.
Events go to the listener (the console); this module prints nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from jepa_ray import plan, results
from jepa_ray.config import Arm, SweepConfig, TrialConfig, config_id
from jepa_ray.orchestration import data_reports
from jepa_ray.orchestration.cluster import Cluster, Interrupt, Workload, prepare
from jepa_ray.orchestration.early_stopping import ArmScheduler
from jepa_ray.orchestration.jobs import Job, ended, storage, write, written
from jepa_ray.orchestration.keeping import check_room, clean, settle
from jepa_ray.orchestration.mailbox import Mailbox
from jepa_ray.orchestration.progress import Beats
from jepa_ray.orchestration.recipes import Prepare, RunTrial
from jepa_ray.orchestration.selection import Decide, Further, confirmations, matched, race, select
from jepa_ray.orchestration.stages import FixedJobs, Identities, Listener, Search
from jepa_ray.orchestration.trackers import trackers
from jepa_ray.orchestration.tracking import tracking
from jepa_ray.orchestration.tune_adapters import Events, JobSearcher, JobSource, job_of
from jepa_ray.orchestration.worker import SharedInputs, trainable
from jepa_ray.results import Stage


@dataclass(frozen=True)
class Outcome:
    """The outcome of a sweep."""

    failed: list[dict[str, Any]]
    """Rows of trials whose last attempt FAILED."""
    unconfirmed: list[str]
    """Arms without a COMPLETE trial, and hence without a best one to confirm."""


def run_sweep(
    sweep: SweepConfig,
    folder: Path,
    cluster: Cluster,
    listener: Listener,
    *,
    interrupt: Interrupt | None = None,
    prepare_one: Prepare | None = None,
    run_trial: RunTrial | None = None,
    decide: Decide | None = None,
    further: Further | None = None,
) -> Outcome:
    """Run the whole sweep, or resume it.

    `prepare_one` and `run_trial` replace the real functions (tests, benchmarks). `decide` is a race's rule for stopping comparisons;
    without it, all arms run on all seeds. `further` adds seeds after a look at the results until it returns none.
    """
    interrupt = interrupt or Interrupt()
    arms = results.declare_arms(folder, sweep)
    shutil.rmtree(storage(folder), ignore_errors=True)  # left by a run that was killed
    models = {sweep.model} if isinstance(sweep.model, str) else set(sweep.model.values())
    listener.say(
        "Preparing data and models"
        + (" (a tiny base that is not cached is trained first, which takes about a minute)" if "tiny" in models else "")
    )
    name = f"mailbox of {sweep.name}, {uuid.uuid4().hex[:8]}"  # for the dashboard; the same process may run a sweep twice
    mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).options(name=name).remote()
    listener.watch(Beats(mailbox))
    stored, refused = prepare(sweep, cluster, prepare_one, mailbox)
    if not stored:
        raise ValueError("\n".join(dict.fromkeys(refused.values())))
    begun = len(results.read_trials(folder, ["trial_id"])) > 0
    for workload, data in stored.items():
        listener.prepared(*workload, data.report)
        changed = data_reports.renew(folder, *workload, data.report)
        if changed and begun:
            listener.say(data_reports.told(" ".join(workload), changed))
    for workload, reason in refused.items():
        listener.say(f"{' '.join(workload)}: {reason}; its arms are FAILED, the others continue")
    clean(sweep, folder)
    check_room(sweep, folder, arms, {workload: data.model_bytes for workload, data in stored.items()})
    unprepared = _refuse(sweep, folder, arms, refused)
    shown_in = trackers(sweep, folder.resolve(), listener.say)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, storage(folder), ignore_errors=True)
        callbacks = stack.enter_context(tracking(shown_in, sweep, folder.resolve(), mailbox, listener.say))
        references = {workload: data.references for workload, data in stored.items()}
        shared = SharedInputs(cluster.resources, references, run_trial, mailbox, keep=sweep.confirm.keep != "none", tracked=bool(shown_in))
        identify = Identities(folder, stored)
        search = Search(sweep, folder, [arm for arm in arms if (arm.family, arm.task) in stored], identify, listener, interrupt)
        listener.stage("search", search.total, search.done, cluster.max_concurrent)
        _tune(search, sweep, cluster, shared, interrupt, callbacks, search.scheduler(mailbox))
        selection: dict[str, TrialConfig] = {}
        if sweep.confirm.seeds:
            selection = select(sweep, folder, search, listener)

            def run_list(stage: Stage, wanted: list[tuple[str, TrialConfig]]) -> None:
                jobs = FixedJobs(sweep, folder, identify, stage, wanted, listener=listener, interrupt=interrupt)
                listener.stage(stage, jobs.total, jobs.done, cluster.max_concurrent)
                _tune(jobs, sweep, cluster, shared, interrupt, callbacks)

            going = list(selection)
            looks = sweep.confirm.race if decide is not None else ()
            for look in looks or (len(sweep.confirm.seeds),):
                run_list("confirm", confirmations(selection, going, sweep.confirm.seeds[:look]))
                if decide is not None and look < len(sweep.confirm.seeds):
                    going, sentences = race(sweep, folder, selection, going, look, identify=identify, decide=decide)
                    for sentence in sentences:
                        listener.say(sentence)
            while True:
                pairs, sentences = matched(sweep, folder, selection, identify) if sweep.confirm.equal_flops else ([], [])
                for sentence in sentences:
                    listener.say(sentence)
                if pairs:
                    run_list("matched", pairs)
                more, sentences = further(sweep.confirm.seeds) if further is not None else ((), [])
                for sentence in sentences:
                    listener.say(sentence)
                if not more:
                    break
                sweep = sweep.model_copy(update={"confirm": sweep.confirm.model_copy(update={"seeds": more})})
                run_list("confirm", confirmations(selection, going, more))
            settle(sweep, folder, selection, identify, listener.say)
    missing = [arm.name for arm in arms if sweep.confirm.seeds and arm.name not in selection]
    failed = [row for row in results.finished(folder).values() if row["state"] == "FAILED" and row["config_id"] not in unprepared]
    return Outcome(failed=failed, unconfirmed=missing)


def _refuse(sweep: SweepConfig, folder: Path, arms: Sequence[Arm], refused: dict[Workload, str]) -> set[str]:
    """Write a FAILED row for every arm whose data or model could not be prepared; return the ids of such rows that are out of date."""
    past = set()
    for arm in arms:
        config = plan.trial_config(sweep, arm, {})
        identity = config_id(config, f"not prepared {arm.name}")
        job = Job(identity, identity, arm.name, "search", folder.resolve(), config)
        reason = refused.get((arm.family, arm.task))
        if reason is None:
            past.add(identity)
        elif not written(job):
            write(job, ended(job, "FAILED", reason))
    return past


def _tune(
    source: JobSource,
    sweep: SweepConfig,
    cluster: Cluster,
    shared: SharedInputs,
    interrupt: Interrupt,
    callbacks: Sequence[tune.Callback],
    scheduler: ArmScheduler | None = None,
) -> None:
    """Run all jobs of a stage."""
    first = source.next()
    if first is None:
        return  # nothing left to run; Tune would take a second to find out
    run_one = tune.with_parameters(trainable, shared=shared)
    run_one.__name__ = f"{sweep.name}-{first.stage}"  # by which the dashboard calls its actors
    tuner = tune.Tuner(
        tune.with_resources(run_one, cluster.resources.trial_resources()),
        tune_config=tune.TuneConfig(
            search_alg=JobSearcher(source, first),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=cluster.max_concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: job_of(trial).name,
            trial_dirname_creator=lambda trial: job_of(trial).trial_id,
        ),
        run_config=tune.RunConfig(
            name=first.stage,
            storage_path=str(storage(first.folder)),
            verbose=0,
            callbacks=[Events(source), *callbacks],
            failure_config=tune.FailureConfig(max_failures=sweep.resources.max_failures),
        ),
    )
    interrupt.enabled = True
    try:
        tuner.fit()
    finally:
        interrupt.enabled = False
