"""What trackers are told: each point once, complete runs for all ended trials, and no harm from a tracker that fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jepa_ray import results
from jepa_ray.config import ResourcesConfig
from jepa_ray.orchestration import gauges
from jepa_ray.orchestration import tracking as tracking_module
from jepa_ray.orchestration.cluster import Cluster, connect
from jepa_ray.orchestration.jobs import write
from jepa_ray.orchestration.trackers import Points, Tracked
from jepa_ray.orchestration.tracking import Lane, points_of, tracked
from jepa_ray.orchestration.tune_adapters import job_of
from jepa_ray.results import State
from tests import fake_training as fake
from tests.orchestration.trackers import scenario


class Recording:
    """A tracker that records its calls; `fails` names calls that raise."""

    key, name, where = "recording", "Recorder", "memory"

    def __init__(self, fails: tuple[str, ...] = ()) -> None:
        self.fails, self.calls, self.known = fails, list[tuple[Any, ...]](), dict[str, Tracked]()

    def open(self, trial: Tracked, run_id: str | None) -> Recording.Run:
        self.call("open", trial.trial_id, run_id)
        new = run_id not in self.known
        run_id = f"run of {trial.trial_id}" if new else str(run_id)
        self.known[run_id] = trial
        return self.Run(self, run_id, new)

    def call(self, name: str, *details: Any) -> None:
        self.calls.append((name, *details))
        if name in self.fails:
            raise ConnectionError(f"no answer to {name}\nand more")

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    class Run:
        def __init__(self, tracker: Recording, run_id: str, new: bool) -> None:
            self.tracker, self.id, self.new = tracker, run_id, new

        def log(self, points: Points) -> None:
            self.tracker.call("log", points)

        def end(self, state: State, numbers: Mapping[str, float], texts: Mapping[str, str], step: int) -> None:
            self.tracker.call("end", self.id, state, dict(numbers), dict(texts), step)

        def leave(self) -> None:
            self.tracker.call("leave", self.id)


def lane_of(tracker: Any, folder: Path, said: list[str]) -> Lane:
    lane = Lane(tracker, "shown", folder / "shown", said.append)
    lane.start()
    return lane


def test_a_resumed_trial_sends_each_point_once_and_ends_with_its_tables(tmp_path: Path) -> None:
    tracker = Recording()
    assert scenario.interrupted_and_resumed(tmp_path, lambda: tracker) == []
    assert tracker.named("open") == [("a1b2", None), ("a1b2", "run of a1b2")]
    assert tracker.named("leave") == [("run of a1b2",)]
    points = [(name, step, value) for (batch,) in tracker.named("log") for step, values in batch for name, value in values.items()]
    assert sorted(points) == sorted((name, step, value) for name, curve in scenario.CURVE.items() for step, value in curve.items())
    ((run, state, numbers, texts, step),) = tracker.named("end")
    assert (run, state, step) == ("run of a1b2", "COMPLETE", 6)
    assert numbers == {"wall_seconds": 12.5, "steps": 6.0} == scenario.ONLY_FINAL, "curves end with the other two"
    assert texts == {"device": "cpu"}


def test_trials_that_ended_without_a_tracker_are_added_once(tmp_path: Path) -> None:
    for name in ("a1", "b2", "c3"):
        write(scenario.job_of(tmp_path, name), scenario.result("PRUNED" if name == "b2" else "COMPLETE"))
    tracker, said = Recording(), list[str]()
    for _ in range(2):
        lane_of(tracker, tmp_path, said).stop(60)
    assert said == [] and [call[0] for call in tracker.named("open")] == ["a1", "b2", "c3"]
    assert [call[1] for call in tracker.named("end")] == ["COMPLETE", "PRUNED", "COMPLETE"]
    trial = tracker.known["run of a1"]
    assert trial == tracked("shown", scenario.job_of(tmp_path, "a1")), "settings from the table differ from those of the job"
    assert trial.tags == {
        **{"sweep": "shown", "arm": "jepa/llama3", "method": "jepa", "trial": "a1", "stage": "confirm", "seed": "82"},
        **{"family": "llama3", "task": "nl-rx"},
    }


def test_runs_are_called_by_arm_and_seed_or_number(tmp_path: Path) -> None:
    named = {
        "jepa/llama3 seed 82": scenario.job_of(tmp_path),
        "jepa/llama3 seed 82, equal FLOPs": scenario.job_of(tmp_path, "b2", "matched"),
        "jepa/llama3 trial 7": scenario.job_of(tmp_path, "c3", "search", 7),
        "jepa/llama3 trial d4": scenario.job_of(tmp_path, "d4", "search"),  # of an earlier version
    }
    for name, job in named.items():
        assert tracked("shown", job).name == name
        write(job, scenario.result())
    tracker = Recording()
    lane_of(tracker, tmp_path, []).stop(60)
    assert {trial.name: trial.trial_id for trial in tracker.known.values()} == {name: job.trial_id for name, job in named.items()}


def test_every_metric_has_the_name_of_the_table_and_final_ones_that_of_their_column() -> None:
    """So they are the names in Ray's metrics (`jepa_ray_<name>`), too."""
    rows = scenario.result().metrics
    sent = {name for _, values in points_of(rows, {}) for name in values}
    assert sent == {row["name"] for row in rows} - {"pretrain_ce", "diag_sv_1", "diag_ridge_r2"} and sent & gauges.GAUGES.keys()
    assert set(scenario.ONLY_FINAL) <= results.SUMMARY.keys()


def test_another_store_gets_everything_again(tmp_path: Path) -> None:
    write(scenario.job_of(tmp_path, "a1"), scenario.result())
    tracker, said = Recording(), list[str]()
    lane_of(tracker, tmp_path, said).stop(60)
    tracker.where = "another server"
    lane_of(tracker, tmp_path, said).stop(60)
    assert tracker.named("open") == [("a1", None), ("a1", None)] and len(tracker.named("end")) == 2


@pytest.mark.parametrize("fails", ["open", "log", "end"])
def test_a_tracker_that_fails_loses_trials_and_says_so_once(fails: str, tmp_path: Path) -> None:
    tracker, said = Recording((fails,)), list[str]()
    lane = lane_of(tracker, tmp_path, said)
    for name in ("a1", "b2"):
        job = scenario.job_of(tmp_path, name)
        lane.started(tracked("shown", job))
        for step in (1, 2, 3):
            lane.rows(name, scenario.rows(step))
        write(job, scenario.result())
        lane.ended(name)
    lane.stop(60)
    assert said == [
        f"Recorder does not take jepa/llama3 seed 82 (no answer to {fails}), and perhaps others; training goes on, the tables have "
        "all curves, and the same command, repeated, completes the tracker."
    ]
    assert len(tracker.named(fails)) == 2, "a dropped trial was tried again"
    tracker.fails = ()
    lane_of(tracker, tmp_path, said).stop(60)  # repeating the sweep's command completes them
    assert [call[0] for call in tracker.named("end")[-2:]] == ["run of a1", "run of b2"] and len(said) == 1


def test_a_tracker_that_hangs_holds_up_nothing(tmp_path: Path) -> None:
    hangs, said = threading.Event(), list[str]()
    tracker = Recording()
    tracker.open = lambda *_: hangs.wait(100)  # type: ignore[assignment,method-assign]
    lane = lane_of(tracker, tmp_path, said)
    lane.started(tracked("shown", scenario.job_of(tmp_path)))
    lane.rows("a1b2", scenario.rows(1))
    lane.stop(0.1)
    hangs.set()
    assert said == ["Recorder has not taken everything in time; the same command, repeated, completes it."]


def test_rows_become_points_by_step_without_what_is_not_finite_or_no_curve() -> None:
    rows = scenario.result().metrics
    assert points_of(rows, {}) == sorted(
        (step, {name: curve[step] for name, curve in scenario.CURVE.items() if step in curve}) for step in range(1, 7)
    )
    assert points_of(rows, {"step_ce": 6, "val_accuracy": 3}) == [(6, {"val_accuracy": 0.5, "test_accuracy": 0.375})]


def test_a_damaged_note_of_what_was_sent_means_a_new_run(tmp_path: Path) -> None:
    tracker, said = Recording(), list[str]()
    write(scenario.job_of(tmp_path, "a1"), scenario.result())
    lane_of(tracker, tmp_path, said).stop(60)
    note = tmp_path / "shown" / "tracked" / "recording" / "a1.json"
    assert json.loads(note.read_text())["ended"] is True
    note.write_text("{")
    lane_of(tracker, tmp_path, said).stop(60)
    assert tracker.named("open") == [("a1", None), ("a1", None)]


# --- in a sweep on Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connect(ResourcesConfig(dashboard=False), num_cpus=2) as connected:
        yield connected


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_sweep_shows_its_trials_while_they_run_and_all_of_them_in_the_end(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials wait in epoch 2 until their first row has arrived; one fails."""
    from jepa_ray.orchestration import run as run_module

    tracker, said = Recording(), list[str]()
    monkeypatch.setattr(run_module, "trackers", lambda *_: [tracker])
    monkeypatch.setattr(tracking_module, "EVERY_S", 0.05)
    folder = tmp_path / "fake"
    space = {"objective.k": {"choice": [1, 7]}}
    sweep = fake.make_sweep(tmp_path, methods={"jepa": {}}, space=space, search={"num_trials": 2, "algorithm": "grid"})

    def run_trial(config: Any, prepared: Any, runtime: Any, report: Any, scratch: Path) -> Any:
        if config.objective.k == 1:
            runtime.observe([{"step": 1, "epoch": 0.1, "split": "step", "name": "step_ce", "value": 2.5}])
        return fake.run_trial(config, prepared, runtime, report, scratch)

    heard, names = fake.Heard(), list[str]()
    monkeypatch.setattr(tracking_module, "job_of", lambda trial: names.append(str(trial)) or job_of(trial))  # type: ignore[func-returns-value]
    with fake.hold(folder) as release:
        thread = threading.Thread(target=lambda: (fake.wait_for(lambda: tracker.named("log"), "a live row"), release()))
        thread.start()
        run_module.run_sweep(sweep, folder, cluster, heard, prepare_one=fake.prepare, run_trial=run_trial)  # type: ignore[arg-type]
        thread.join()
    assert tracker.named("log")[0] == ([(1, {"step_ce": 2.5})],)
    trials = results.read_trials(folder).set_index("trial_id")
    ended = {call[0].removeprefix("run of "): call[1] for call in tracker.named("end")}
    assert ended == trials["state"].to_dict() and sorted(ended.values()) == ["COMPLETE", "FAILED"]
    shown = {(name, step) for (batch,) in tracker.named("log") for step, values in batch for name in values}
    assert shown == {("step_ce", 1), ("val_accuracy", 1), ("val_accuracy", 2), ("val_accuracy", 3)}
    assert heard.count("restarted") == 0 and said == []
    assert set(names) == {f"jepa/llama3 {trial_id}" for trial_id in trials.index}, "what Ray calls the trials"


def test_without_trackers_nothing_is_started(tmp_path: Path) -> None:
    before = threading.active_count()
    with tracking_module.tracking([], fake.make_sweep(tmp_path), tmp_path, SimpleNamespace(), print) as callbacks:
        assert callbacks == [] and threading.active_count() == before
