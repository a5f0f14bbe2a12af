"""Trials on real Ray: one worker and several, errors, and processes that are killed."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jepa_ray import results
from jepa_ray.config import ResourcesConfig, SweepConfig, TrialConfig
from jepa_ray.orchestration.cluster import Cluster, connect
from tests import fake_training as fake

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connect(ResourcesConfig(dashboard=False), num_cpus=2) as connected:
        yield connected


def run(sweep: SweepConfig, folder: Path, cluster: Cluster) -> tuple[object, fake.Heard]:
    from jepa_ray.orchestration.run import run_sweep

    folder.mkdir(exist_ok=True)
    heard = fake.Heard()
    return run_sweep(sweep, folder, cluster, heard, prepare_one=fake.prepare, run_trial=fake.run_trial), heard  # type: ignore[arg-type]


def one_at_a_time(cluster: Cluster) -> Cluster:
    """For sweeps in which nothing depends on concurrency: every stage starts its processes, and each loads Ray Train and torch."""
    return replace(cluster, max_concurrent=1)


def fit(cluster: Cluster, sweep: SweepConfig) -> Cluster:
    """The running cluster with the resources of another sweep."""
    with connect(sweep.resources) as seen:
        return seen


def kill_one_holding(folder: Path, rank: int, killed: list[tuple[str, int]]) -> threading.Thread:
    """In the background: SIGKILL the process of one trial that waits in epoch 2, then let all continue."""

    def work() -> None:
        with fake.hold(folder):
            victim = fake.wait_for(lambda: fake.holding(folder, rank), "a trial in epoch 2")[0]
            os.kill(victim[1], signal.SIGKILL)
            killed.append(victim)

    (folder / "control").mkdir(parents=True)
    (folder / "control" / "hold").touch()
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_job_survives_its_text_form(tmp_path: Path) -> None:
    from jepa_ray.config import TrialConfig
    from jepa_ray.orchestration.jobs import Job

    config = TrialConfig.model_validate({"model": {"family": "llama3"}, "objective": {"lambda": 0.5, "k": 2}, "lora": {"r": 8}})
    job = Job("a-2", "a", "jepa/llama3", "confirm", tmp_path, config)
    assert Job.from_json(job.to_json()) == job


def test_the_minutes_between_checkpoints_reach_the_trial() -> None:
    from jepa_ray.orchestration import worker
    from jepa_ray.orchestration.cluster import _fit

    nodes = [{"Alive": True, "Resources": {"CPU": 2.0, "memory": 1e9}}]
    resources = _fit(ResourcesConfig(checkpoint_minutes=2.5), nodes, None, local=True).resources
    runtime = worker._runtime(resources)
    assert (runtime.checkpoint_minutes, runtime.keep) == (2.5, None) and worker._runtime(resources, Path("m")).keep == Path("m")


def test_a_family_that_cannot_be_prepared_fails_alone_and_runs_once_it_can(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "fake"
    refuse = folder / "control" / "refuse" / "gemma2"
    refuse.parent.mkdir(parents=True)
    refuse.touch()
    sweep = fake.make_sweep(tmp_path, families=["llama3", "gemma2"], search={"num_trials": 1}, methods={"base": "none"})
    outcome, heard = run(sweep, folder, cluster)
    assert any("there is no gemma2 here; get one" in " ".join(event) for event in heard.events)
    trials = results.read_trials(folder).set_index("arm")
    assert trials["state"].to_dict() == {"base/llama3": "COMPLETE", "base/gemma2": "FAILED"}
    assert trials.loc["base/gemma2", "error"] == "there is no gemma2 here; get one" and trials.loc["base/gemma2", "family"] == "gemma2"
    assert [row["arm"] for row in outcome.failed] == ["base/gemma2"]  # type: ignore[attr-defined]

    refuse.unlink()
    outcome, _ = run(sweep, folder, cluster)
    trials = results.read_trials(folder)
    assert sorted(trials.loc[trials["state"] == "COMPLETE", "arm"]) == ["base/gemma2", "base/llama3"]
    assert not outcome.failed  # type: ignore[attr-defined]


def test_what_fails_fails_alone(cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An error, a value that is not finite, and a process that dies more often than `max_failures`."""
    folder = tmp_path / "fake"
    space = {"objective.k": {"choice": [0, 7, 8]}}
    sweep = fake.make_sweep(
        tmp_path, space=space, search={"num_trials": 4, "algorithm": "grid"}, resources={"dashboard": False, "max_failures": 1}
    )
    (folder / "control" / "doom").mkdir(parents=True)
    (folder / "control" / "doom" / "base").touch()
    outcome, heard = run(sweep, folder, cluster)
    rows = results.read_trials(folder)
    jepa = rows[rows["method"] == "jepa"].set_index("k")
    assert jepa["state"].to_dict() == {0: "COMPLETE", 7: "FAILED", 8: "COMPLETE"}
    assert "unlucky number" in jepa.loc[7, "error"]
    base = rows[rows["method"] == "base"]
    assert len(base) == 1, "one configuration runs once, however often it is suggested"
    assert base["state"].item() == "FAILED" and "died 2 times" in base["error"].item()
    assert base["epochs_done"].item() == 1, "its progress is lost"
    assert heard.count("restarted") == 1
    assert sorted(row["arm"] for row in outcome.failed) == ["base/llama3", "jepa/llama3"]  # type: ignore[attr-defined]
    assert not list((folder / "scratch").glob("[!.]*")), "checkpoints of finished trials are left"
    output = capfd.readouterr()
    assert output.out == "" and output.err == "", "Ray printed lines next to those of the console"


def test_a_lost_gpu_costs_a_process_and_no_trial(cluster: Cluster, tmp_path: Path) -> None:
    """A CUDA error that persists in its process would fail every later trial there."""
    folder = tmp_path / "fake"
    (folder / "control").mkdir(parents=True)
    (folder / "control" / "lost").touch()
    _, heard = run(fake.make_sweep(tmp_path, search={"num_trials": 3}), folder, one_at_a_time(cluster))
    rows = results.read_trials(folder)
    assert rows["state"].tolist() == ["COMPLETE"] * 6 and heard.count("restarted") == 1


def test_a_killed_trial_resumes_from_its_last_epoch(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "fake"
    sweep = fake.make_sweep(tmp_path, search={"num_trials": 2})
    killed: list[tuple[str, int]] = []
    thread = kill_one_holding(folder, rank=0, killed=killed)
    _, heard = run(sweep, folder, one_at_a_time(cluster))
    thread.join()
    rows = results.read_trials(folder)
    assert rows["state"].tolist() == ["COMPLETE"] * 4
    assert rows["config_id"].is_unique
    assert heard.count("restarted") >= 1
    assert fake.epochs_trained(folder, killed[0][0]) == [1, 2, 2, 3], "not from its last finished epoch"
    metrics = results.read_metrics(folder, filters=[("trial_id", "==", killed[0][0])])
    assert metrics["epoch"].tolist() == [1, 2, 3]


@pytest.mark.slow
def test_worker_groups_are_killed_cut_and_fail_like_single_workers(cluster: Cluster, tmp_path: Path) -> None:
    """One sweep for everything that a group must survive, because starting a group takes seconds."""
    folder = tmp_path / "fake"
    sweep = fake.make_sweep(
        tmp_path,
        methods={"jepa": {}},
        space={"objective.k": {"choice": [1, 2, 7]}},
        search={"num_trials": 3, "algorithm": "grid"},
        scheduler={"name": "asha", "grace_period": 1},
        resources={"dashboard": False, "workers_per_trial": 2},
    )
    killed: list[tuple[str, int]] = []
    thread = kill_one_holding(folder, rank=1, killed=killed)
    _, heard = run(sweep, folder, fit(cluster, sweep))
    thread.join()
    rows = results.read_trials(folder).set_index("k")
    assert rows["state"].to_dict() == {1: "COMPLETE", 2: "PRUNED", 7: "FAILED"}
    assert rows.loc[1, "num_workers"] == 2
    assert rows.loc[2, "epochs_done"] == 1
    assert "unlucky number" in rows.loc[7, "error"] and "rank 1" in rows.loc[7, "error"]
    # Rank 0 may have finished epoch 2 alone before it missed rank 1.
    assert fake.epochs_trained(folder, killed[0][0], rank=1) in ([1, 2, 2, 3], [1, 2, 3])
    restarts = [event for event in heard.events if event[0] == "restarted"]
    assert rows.loc[1, "trial_id"] in {event[1] for event in restarts}
    if len(restarts) > 1:  # on a busy machine, Ray may lose a process of its own; which one, the summary of warnings tells
        warnings.warn(f"restarted more than once: {restarts}", stacklevel=1)

    import ray
    from ray.util import placement_group_table

    states = [group["state"] for group in placement_group_table().values()]
    assert states.count("CREATED") == 0, "a placement group has leaked"
    assert ray.cluster_resources()["CPU"] == 2


def test_workers_that_never_meet_fail_the_trial_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unittest.mock import MagicMock

    import ray.train.torch

    from jepa_ray.orchestration import worker
    from jepa_ray.orchestration.jobs import Job, TrialResources

    assert hasattr(ray.train.torch.config, worker._SETUP), "Ray's errors name another function"

    class Unconnected:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def fit(self) -> None:
            raise RuntimeError(f"ray::execute.{worker._SETUP}() (pid=1)\n  File ...\nRuntimeError: no NCCL in this build\n")

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Unconnected)
    monkeypatch.setattr(worker.ray, "get", lambda _: None)
    config = TrialConfig.model_validate({"model": {"family": "llama3", "model": "tiny"}})
    job = Job("a1", "a1", "jepa/llama3", "search", tmp_path, config)
    worker._run_group(job, MagicMock(resources=TrialResources(workers=2, gpus=1)))
    (row,) = results.read_trials(tmp_path).to_dict("records")
    assert row["state"] == "FAILED" and row["error"].startswith("NCCL could not start: RuntimeError: no NCCL in this build; check that")


@pytest.mark.slow
def test_workers_that_share_one_network_in_shards(cluster: Cluster, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A real trial: same texts and numbers as one worker's, without Ray."""
    from jepa_ray.orchestration.run import run_sweep
    from jepa_ray.training.runtime import Runtime
    from jepa_ray.training.trial import run_trial
    from tests import tiny_models

    checkpoint = tiny_checkpoints["llama3"]
    prepared = tiny_models.prepared_of(checkpoint, train=7, val=5)
    sweep = fake.make_sweep(
        tmp_path,
        model={"llama3": str(checkpoint)},
        methods={"jepa": {"k": 1}},
        space={},
        search={"num_trials": 1},
        base={"optim": {"num_epochs": 2, "batch_size": 4}, "evaluation": {"max_new_tokens": 8}},
        resources={"dashboard": False, "workers_per_trial": 2, "sharding": "fsdp"},
    )
    folder = tmp_path / "fake"
    folder.mkdir()

    def run_sharded(config: TrialConfig, *others: Any) -> Any:
        from jepa_ray.training.trial import run_trial as train  # here, so that only the two workers load transformers

        (tmp_path / "config.json").write_text(config.model_dump_json(by_alias=True))
        assert others[1].sharding == "fsdp"
        return train(config, *others)

    resources = fit(cluster, sweep)
    run_sweep(sweep, folder, resources, fake.Heard(), prepare_one=lambda *_: prepared, run_trial=run_sharded)  # type: ignore[arg-type]
    (row,) = results.read_trials(folder).to_dict("records")
    assert row["state"] == "COMPLETE" and row["num_workers"] == 2, row["error"]
    config = TrialConfig.model_validate_json((tmp_path / "config.json").read_text())
    wanted = run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "one")
    for name in ("train_ce", "train_jepa", "val_accuracy", "val_ce", "num_parameters"):
        assert row[name] == pytest.approx(wanted.summary[name], rel=1e-4), name
    texts = results.read_predictions(folder).sort_values("example_id")["prediction"].tolist()
    assert texts == [line["prediction"] for line in sorted(wanted.predictions, key=lambda line: line["example_id"])]


def test_a_race_runs_only_the_seeds_it_needs(cluster: Cluster, tmp_path: Path) -> None:
    """Scores of this training do not depend on the seed, so every difference is final after the first look."""
    from jepa_ray.orchestration.run import run_sweep

    methods = {"base": "none", "jepa": {"k": 1}, "weak": {"k": 4}}
    confirm = {"seeds": [5, 6, 7, 8], "race": [2, 4]}
    sweep = fake.make_sweep(tmp_path, methods=methods, space={}, search={"num_trials": 1}, confirm=confirm)
    folder = tmp_path / "fake"
    folder.mkdir()
    one = one_at_a_time(cluster)
    asked: list[tuple[int, float]] = []

    def decide(differences: list[float], look: int) -> tuple[bool, str]:
        asked.append((look, round(sum(differences), 6)))
        return differences[0] < 0, "it is as good"

    for _ in range(2):  # repeating the command takes the same decisions and runs nothing
        heard = fake.Heard()
        run_sweep(sweep, folder, one, heard, prepare_one=fake.prepare, run_trial=fake.run_trial, decide=decide)  # type: ignore[arg-type]
        rows = results.read_trials(folder)
        seeds = rows[rows["stage"] == "confirm"].groupby("arm")["seed"].apply(sorted).to_dict()
        assert seeds == {"base/llama3": [5, 6, 7, 8], "jepa/llama3": [5, 6], "weak/llama3": [5, 6, 7, 8]}
        assert asked == [(2, 0.0), (2, round(2 * (0.03 / 4 - 0.03) / 2, 6))]
        asked.clear()
        assert sum("ends after 2 of 4 seeds: it is as good" in event[1] for event in heard.events if event[0] == "say") == 1
    assert heard.count("started") == 0


def test_the_more_expensive_arm_runs_again_at_equal_flops_with_the_test_split(cluster: Cluster, tmp_path: Path) -> None:
    """The fake training asserts that it receives the test split exactly when it is to be scored on it."""
    sweep = fake.make_sweep(tmp_path, space={}, search={"num_trials": 1}, confirm={"seeds": [5, 6]})
    (tmp_path / "fake" / "control").mkdir(parents=True)
    (tmp_path / "fake" / "control" / "dear").touch()
    outcome, _ = run(sweep, tmp_path / "fake", one_at_a_time(cluster))
    rows = results.read_trials(tmp_path / "fake")
    again = rows[rows["stage"] == "matched"]
    assert outcome.failed == [] and again["state"].tolist() == ["COMPLETE"] * 2  # type: ignore[attr-defined]
    assert sorted(again["seed"]) == [5, 6] and set(again["arm"]) == {"jepa/llama3"}
    assert set(again["max_train_flops"]) == {300.0} and again["test_accuracy"].notna().all()
    assert run(sweep, tmp_path / "fake", cluster)[1].count("started") == 0, "repeating the command runs something"
