"""Studies, stages and schedulers without a cluster: proposals, reported outcomes, cuts and selections."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from jepa_ray import plan, results
from jepa_ray.config import SchedulerConfig, SweepConfig, TrialConfig, arms
from jepa_ray.orchestration.cluster import Interrupt, Stored
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.orchestration.selection import select
from jepa_ray.orchestration.studies import ArmStudy, open_storage
from jepa_ray.results import TrialResult, damaged
from tests import fake_training as fake

ALGORITHMS = ["tpe", "random", "grid", "gp", "qmc", "cmaes"]
MIXED = {
    "optim.learning_rate": {"float": [0.001, 0.1], "log": True},
    "objective.k": {"int": [0, 3]},
    "objective.distance": {"choice": ["cosine", "l2"]},
    "objective.loss_dropout": {"choice": [0.0, 0.5], "when": {"objective.k": [1, 2]}},
}
FINITE = {**MIXED, "optim.learning_rate": {"choice": [0.01, 0.02]}}


def study_of(sweep: SweepConfig, folder: Path, arm: int = 1) -> ArmStudy:
    folder.mkdir(parents=True, exist_ok=True)
    return ArmStudy(sweep, arms(sweep)[arm], open_storage(folder))


def raw(folder: Path, name: str = "jepa/llama3") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(folder))


def search_of(sweep: SweepConfig, folder: Path) -> Any:
    from jepa_ray.orchestration.stages import Search

    folder.mkdir(parents=True, exist_ok=True)
    heard = fake.Heard()
    return Search(sweep, folder, arms(sweep), identities(folder), heard, Interrupt()), heard  # type: ignore[arg-type]


def identities(folder: Path) -> Any:
    from jepa_ray.orchestration.stages import Identities

    return Identities(folder, {("llama3", "nl-rx"): Stored(fake.SHA, {}, [])})  # type: ignore[arg-type]


def finish(search: Any, job: Any, state: str = "COMPLETE", value: float | None = None) -> None:
    """Do what the worker does at the end of a trial, and what Tune reports then."""
    score = value if value is not None else job.config.optim.learning_rate
    summary = {"val_accuracy": score, **dict.fromkeys(("started_at", "finished_at"), results.now())}
    result = TrialResult(state, "broken" if state == "FAILED" else None, summary)  # type: ignore[arg-type]
    results.write_trial(job.folder, job.trial_id, job.config, job.arm, job.stage, result, job.number)
    search.finished(job, {"state": state, "error": result.error, "val_accuracy": score})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_proposes_lawful_configurations(algorithm: str, tmp_path: Path) -> None:
    space = FINITE if algorithm == "grid" else MIXED
    sweep = fake.make_sweep(tmp_path, space=space, search={"num_trials": 14, "algorithm": algorithm})
    study = study_of(sweep, tmp_path / "s")
    arm, seen = arms(sweep)[1], []
    while (asked := study.ask()) is not None:
        config = plan.trial_config(sweep, arm, asked.params)
        assert config.objective is not None
        assert ("objective.loss_dropout" in asked.params) == (config.objective.k in (1, 2)), (
            "a conditional parameter does not match its condition"
        )
        seen.append(asked.params)
        study.tell(asked.number, "COMPLETE", config.optim.learning_rate)
    assert len(seen) == 14 and study.exhausted
    assert seen[0] == plan.defaults(sweep, arm), "the defaults do not come first"


@pytest.mark.parametrize("algorithm", ["tpe", "random", "qmc", "cmaes"])
def test_an_interrupted_study_proposes_what_it_would_have(algorithm: str, tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, space=MIXED, search={"num_trials": 12, "algorithm": algorithm})

    def proposals(folder: Path, reopen_after: int) -> list[dict[str, Any]]:
        study, out = study_of(sweep, folder), []
        while (asked := study.ask()) is not None:
            out.append(asked.params)
            study.tell(asked.number, "COMPLETE", float(asked.params["optim.learning_rate"]))
            if len(out) == reopen_after:
                study = study_of(sweep, folder)
        return out

    straight = proposals(tmp_path / "straight", reopen_after=-1)
    assert proposals(tmp_path / "interrupted", reopen_after=6) == straight
    assert len({json.dumps(params) for params in straight}) > 9, "hardly anything new is proposed"


def test_grid_ends_with_its_last_point(tmp_path: Path) -> None:
    space = {"objective.k": {"int": [0, 2]}, "objective.lambda": {"choice": [1.0, 2.0], "when": {"objective.k": [2]}}}
    sweep = fake.make_sweep(tmp_path, space=space, search={"num_trials": 50, "algorithm": "grid"})
    study, points = study_of(sweep, tmp_path / "s"), []
    while (asked := study.ask()) is not None:
        points.append(tuple(sorted(asked.params.items())))
        study.tell(asked.number, "COMPLETE", 1.0)
    # k = 0 and 1 once each, k = 2 with both values of lambda; the defaults (k = 1) are one of them.
    assert len(points) == len(set(points)) == 4


def test_states_and_intermediate_values_reach_the_study(tmp_path: Path) -> None:
    study = study_of(fake.make_sweep(tmp_path), tmp_path / "s")
    for state, value in (("COMPLETE", 0.5), ("PRUNED", 0.1), ("FAILED", None), ("COMPLETE", float("nan"))):
        asked = study.ask()
        assert asked is not None
        study.report(asked.number, 0.1, 1)
        study.report(asked.number, 0.9, 1)  # a restarted trial reports its epoch again
        study.report(asked.number, float("nan"), 2)
        study.tell(asked.number, state, value)
    trials = raw(tmp_path / "s").get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    assert trials[0].value == 0.5
    assert all(trial.intermediate_values == {1: 0.1} for trial in trials)


def test_the_study_names_its_metric_and_its_curves_reach_the_last_epoch(tmp_path: Path) -> None:
    search, _ = search_of(fake.make_sweep(tmp_path), tmp_path / "s")
    job = search.next()
    search.progress(job, {"epoch": 1, "val_accuracy": 0.1})
    search.progress(job, {"epoch": 2, "val_accuracy": 0.2})  # the last of three epochs is not reported: the row has it
    search.finished(job, {"state": "COMPLETE", "error": None, "val_accuracy": 0.4, "epochs_done": 3.0})
    study = raw(tmp_path / "s", job.arm)
    assert study.metric_names == ["val_accuracy"]
    assert study.get_trials()[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.4}
    cut = search.next()
    search.progress(cut, {"epoch": 1, "val_accuracy": 0.1})
    search.finished(cut, {"state": "PRUNED", "error": None, "val_accuracy": 0.1, "epochs_done": 1.0})
    assert raw(tmp_path / "s", cut.arm).get_trials()[0].intermediate_values == {1: 0.1}


def test_a_study_of_an_earlier_version_gets_its_metrics_name(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path)
    (tmp_path / "s").mkdir()
    old = optuna.create_study(study_name="jepa/llama3", storage=open_storage(tmp_path / "s"), direction="maximize")
    assert old.metric_names is None
    study_of(sweep, tmp_path / "s")
    assert raw(tmp_path / "s").metric_names == ["val_accuracy"]


def test_a_changed_space_continues_in_a_new_study_with_earlier_trials(tmp_path: Path) -> None:
    before = fake.make_sweep(tmp_path, space={"objective.k": {"choice": [0, 1, 2]}}, search={"num_trials": 3, "algorithm": "grid"})
    study = study_of(before, tmp_path / "s")
    for _ in range(3):
        asked = study.ask()
        assert asked is not None
        if asked.params["objective.k"] != 2:
            study.tell(asked.number, "COMPLETE", float(asked.params["objective.k"]))
    after = fake.make_sweep(tmp_path, space={"objective.k": {"choice": [1, 2, 3]}}, search={"num_trials": 5, "algorithm": "random"})
    study = study_of(after, tmp_path / "s")
    assert study.taken == 2, "the interrupted trial is served again"
    first = study.ask()
    assert first is not None and first.params == {"objective.k": 2}
    copied = [trial.params["objective.k"] for trial in raw(tmp_path / "s", "jepa/llama3 #2").get_trials() if "copied" in trial.user_attrs]
    assert copied == [1], "k = 0 is outside the new space"


def test_arms_take_turns_and_end_together(tmp_path: Path) -> None:
    search, _ = search_of(fake.make_sweep(tmp_path, search={"num_trials": 3}), tmp_path / "s")
    arms = []
    while (job := search.next()) is not None:
        arms.append(job.arm)
        finish(search, job)
    assert arms == ["base/llama3", "jepa/llama3"] * 3


def test_known_configurations_are_told_not_run(tmp_path: Path) -> None:
    space = {"optim.learning_rate": {"choice": [0.01, 0.02]}}
    sweep = fake.make_sweep(tmp_path, space=space, search={"num_trials": 8, "algorithm": "random"})
    search, heard = search_of(sweep, tmp_path / "s")
    waiting = [search.next()]
    jobs = []
    while waiting:
        job = waiting.pop()
        jobs.append(job.config_id)
        finish(search, job)
        if (following := search.next()) is not None:
            waiting.append(following)
    assert len(jobs) == len(set(jobs)) == 4, "two configurations in each of two arms"
    assert heard.count("repeated") == 12
    for arm in ("base/llama3", "jepa/llama3"):
        trials = raw(tmp_path / "s", arm).get_trials()
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
        assert all(trial.value == trial.params["optim.learning_rate"] for trial in trials)


def test_a_repeat_of_a_running_trial_waits_for_it(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, methods={"base": "none"}, space={}, search={"num_trials": 3})
    search, _ = search_of(sweep, tmp_path / "s")
    job = search.next()
    assert search.next() is None, "the same configuration ran twice at the same time"
    assert [trial.state for trial in raw(tmp_path / "s", "base/llama3").get_trials()] == [TrialState.RUNNING] * 3
    finish(search, job, value=0.25)
    assert [trial.value for trial in raw(tmp_path / "s", "base/llama3").get_trials()] == [0.25] * 3


def test_arms_whose_spaces_meet_each_have_trials_of_their_own(tmp_path: Path) -> None:
    """Two methods that lead to the same configuration: each has its search trial, its selection and its confirmations."""
    from jepa_ray.orchestration.selection import confirmations, select
    from jepa_ray.orchestration.stages import FixedJobs

    folder = tmp_path / "s"
    space, methods = {"objective.k": {"choice": [3]}}, {"one": {"k": 1}, "two": {"k": 2}}
    sweep = fake.make_sweep(tmp_path, methods=methods, space=space, search={"num_trials": 1}, confirm={"seeds": [5]})
    search, heard = search_of(sweep, folder)
    jobs = list(iter(search.next, None))
    assert [job.arm for job in jobs] == ["one/llama3", "two/llama3"] and jobs[0].config == jobs[1].config
    assert jobs[0].config_id != jobs[1].config_id
    for job in jobs:
        finish(search, job, value=0.5)
    chosen = select(sweep, folder, search, heard)
    confirm = FixedJobs(
        sweep, folder, identities(folder), "confirm", confirmations(chosen, chosen, (5,)), listener=heard, interrupt=Interrupt()
    )  # type: ignore[arg-type]
    again = list(iter(confirm.next, None))
    assert [job.arm for job in again] == ["one/llama3", "two/llama3"] and again[0].config_id != again[1].config_id
    # After a restart, each arm finds its own rows and runs nothing twice.
    resumed, _ = search_of(sweep, folder)
    assert resumed.next() is None and set(resumed.best()) == {"one/llama3", "two/llama3"}


def test_a_folder_in_which_arms_share_a_configuration_can_be_continued(tmp_path: Path) -> None:
    """Earlier versions ran it once, under the name of the first arm, and told both studies."""
    folder = tmp_path / "s"
    space, methods = {"objective.k": {"choice": [3]}}, {"one": {"k": 1}, "two": {"k": 2}}
    sweep = fake.make_sweep(tmp_path, methods=methods, space=space, search={"num_trials": 1}, confirm={"seeds": [5]})
    search, _ = search_of(sweep, folder)
    (first, second) = iter(search.next, None)
    finish(search, first, value=0.5)
    study = search.studies[second.arm]
    study.note(0, config_id=first.config_id, trial_id=first.trial_id)
    study.tell(0, "COMPLETE", 0.5)
    again, _ = search_of(sweep, folder)
    best = again.best()
    assert {arm: row["config_id"] for arm, (row, _) in best.items()} == dict.fromkeys((first.arm, second.arm), first.config_id)
    assert best[second.arm][1] == first.config


def test_going_back_to_an_earlier_sweep_makes_its_selection_the_last(tmp_path: Path) -> None:
    """The file written last counts, for the verdict and for every table."""
    from jepa_ray.orchestration.selection import select

    folder, heard = tmp_path / "s", fake.Heard()
    for number, rates in enumerate(([0.01], [0.02], [0.01]), 1):
        space = {"optim.learning_rate": {"choice": rates}}
        sweep = fake.make_sweep(tmp_path, space=space, search={"num_trials": 2 - number % 2}, confirm={"seeds": [5]})
        search, _ = search_of(sweep, folder)
        for job in iter(search.next, None):
            finish(search, job, value=0.5)
        chosen = select(sweep, folder, search, heard)  # type: ignore[arg-type]
        assert set(chosen) == {"base/llama3", "jepa/llama3"}
        last = json.loads((folder / ("selection.json" if number == 1 else f"selection-{number}.json")).read_text())["arms"]
        assert {arm: best["config"]["optim"]["learning_rate"] for arm, best in last.items()} == dict.fromkeys(chosen, rates[0])
    sentences = [event[1] for event in heard.events if event[0] == "say"]
    assert sum("opened before" in sentence for sentence in sentences) == 1 and any("This is again" in sentence for sentence in sentences)


def test_resume_serves_interrupted_trials_first_and_under_their_number(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, search={"num_trials": 4})
    search, _ = search_of(sweep, tmp_path / "s")
    jobs = [search.next() for _ in range(4)]
    finish(search, jobs[0])
    search.progress(jobs[1], {"epoch": 1, "val_accuracy": 0.1})
    # Written by a worker of the killed sweep, but never told to the study:
    results.write_trial(
        tmp_path / "s", jobs[2].trial_id, jobs[2].config, jobs[2].arm, "search", TrialResult("PRUNED", None, {"val_accuracy": 0.2})
    )

    resumed, heard = search_of(sweep, tmp_path / "s")
    assert resumed.done == 1
    again = [resumed.next(), resumed.next()]
    assert {job.config_id for job in again} == {jobs[1].config_id, jobs[3].config_id}
    assert heard.count("repeated") == 1
    resumed.progress(next(job for job in again if job.config_id == jobs[1].config_id), {"epoch": 2, "val_accuracy": 0.2})
    for job in again:
        finish(resumed, job)
    while (job := resumed.next()) is not None:
        finish(resumed, job)
    for arm in ("base/llama3", "jepa/llama3"):
        trials = raw(tmp_path / "s", arm).get_trials()
        assert len(trials) == 4 and all(trial.state.is_finished() for trial in trials)
    by_id = {trial.user_attrs["config_id"]: trial for trial in raw(tmp_path / "s").get_trials()}
    assert by_id[jobs[1].config_id].intermediate_values == {1: 0.1, 2: 0.2}
    assert raw(tmp_path / "s", "base/llama3").get_trials()[1].state == TrialState.PRUNED
    assert sorted(results.read_trials(tmp_path / "s")["config_id"].value_counts()) == [1] * 8


def run_all(search: Any, **values: float) -> list[Any]:
    """Every job that is due, finished; `values` by config_id."""
    jobs = []
    while (job := search.next()) is not None:
        jobs.append(job)
        finish(search, job, value=values.get(job.config_id))
    return jobs


def test_a_trial_whose_row_is_lost_is_run_again_as_it_was(tmp_path: Path) -> None:
    sweep, folder = fake.make_sweep(tmp_path, search={"num_trials": 3}), tmp_path / "s"
    jobs = run_all(search_of(sweep, folder)[0])
    before = raw(folder).get_trials()
    lost = jobs[3]
    (folder / "trials" / f"{lost.trial_id}.parquet").write_bytes(b"PAR1")
    assert len(damaged.mend(folder)) == 1
    resumed, _ = search_of(sweep, folder)
    assert resumed.done == 5 and resumed.total == 6
    again = run_all(resumed)
    assert again == [lost], "the same trial, under its own name and number, and nothing else"
    assert [(t.number, t.value, t.state) for t in raw(folder).get_trials()] == [(t.number, t.value, t.state) for t in before]
    assert {job.trial_id for job in jobs} == set(results.read_trials(folder)["trial_id"])
    assert search_of(sweep, folder)[0].next() is None


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_lost_study_is_made_again_from_the_tables(algorithm: str, how: str, tmp_path: Path) -> None:
    """Trials that have ended are not run again, those that were running are, and the search ends as it would have."""
    search = {"num_trials": 5, "algorithm": algorithm}
    sweep = fake.make_sweep(tmp_path, space=FINITE if algorithm == "grid" else MIXED, search=search, confirm={"seeds": [5]})
    whole, _ = search_of(sweep, tmp_path / "whole")
    wanted = run_all(whole)

    folder = tmp_path / "s"
    begun, _ = search_of(sweep, folder)
    jobs = [begun.next() for _ in range(6)]
    for job in (*jobs[:3], *jobs[4:]):  # the fourth is running when the machine goes down
        finish(begun, job, "PRUNED" if job is jobs[2] else "COMPLETE")
    rows = results.read_trials(folder)
    path = folder / "study.db"
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:5000])
        (sentence,) = damaged.mend(folder)
        assert "study.db.damaged" in sentence
    resumed, heard = search_of(sweep, folder)
    assert resumed.done == 5
    again = run_all(resumed)
    assert not {job.config_id for job in again} & set(rows["config_id"]), "something ran twice"
    assert heard.count("repeated") == 0
    if algorithm != "tpe":  # TPE had seen less of the trials that were still running
        assert {job.config_id for job in again} == {job.config_id for job in wanted} - set(rows["config_id"])
    table = results.read_trials(folder).set_index("config_id")
    for arm in ("base/llama3", "jepa/llama3"):
        trials = [trial for trial in raw(folder, arm).get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
        assert sorted(trial.user_attrs["place"] for trial in trials) == [1, 2, 3, 4, 5][: len(trials)]
        for trial in trials:
            row = table.loc[trial.user_attrs["config_id"]]
            assert (trial.state.name, trial.user_attrs["place"]) == (row["state"], row["number"])
            assert trial.state != TrialState.COMPLETE or trial.value == row["val_accuracy"]
            assert trial.params["optim.learning_rate"] == pytest.approx(row["learning_rate"], rel=1e-12)
    assert set(resumed.best()) == {"base/llama3", "jepa/llama3"}
    assert search_of(sweep, folder)[0].next() is None


def test_a_study_made_again_has_its_curves_and_goes_on_after_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, folder = fake.make_sweep(tmp_path, search={"num_trials": 3}), tmp_path / "s"
    search, _ = search_of(sweep, folder)
    for number, job in enumerate(iter(search.next, None)):
        curve = [{"step": e, "epoch": e, "split": "val", "name": "val_accuracy", "value": 0.1 * e + number} for e in (1, 2)]
        result = TrialResult("PRUNED", None, {"val_accuracy": 0.2 + number, "epochs_done": 2}, curve)
        results.write_trial(folder, job.trial_id, job.config, job.arm, job.stage, result, job.number)
        search.finished(job, {"state": "PRUNED", "error": None, "val_accuracy": 0.2 + number})
    (folder / "study.db").unlink()

    added, real = [0], optuna.Study.add_trial

    def killed(study: optuna.Study, trial: Any) -> None:
        if added[0] == 1:
            raise KeyboardInterrupt
        added[0] += 1
        real(study, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            search_of(sweep, folder)
    resumed, _ = search_of(sweep, folder)
    assert resumed.done == resumed.total == 6 and resumed.next() is None
    trials = raw(folder, "base/llama3").get_trials()
    assert [trial.state for trial in trials] == [TrialState.PRUNED] * 3
    assert [trial.intermediate_values for trial in trials] == [{1: pytest.approx(0.1 + n), 2: pytest.approx(0.2 + n)} for n in (0, 2, 4)]


def test_a_study_that_is_lost_after_the_selection_begins_no_search_again(tmp_path: Path) -> None:
    """Suggestions that were repeats have no row: before the selection they are drawn anew, after it they are not."""
    sweep = fake.make_sweep(tmp_path, space={"optim.learning_rate": {"choice": [0.1, 0.2]}}, search={"num_trials": 6})
    folder = tmp_path / "s"
    search, heard = search_of(sweep, folder)
    run_all(search)
    assert heard.count("repeated"), "every suggestion was new, so nothing is tested"
    frozen = select(sweep, folder, search, heard)
    (folder / "study.db").unlink()
    resumed, _ = search_of(sweep, folder)
    assert resumed.next() is None and resumed.done == resumed.total and select(sweep, folder, resumed, heard) == frozen


def test_a_selection_that_was_set_aside_keeps_its_number(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first, second = (fake.make_sweep(tmp_path, search={"num_trials": number}) for number in (2, 3))
    for sweep in (first, second):
        search, heard = search_of(sweep, folder)
        run_all(search)
        select(sweep, folder, search, heard)
    kept = (folder / "selection-2.json").read_bytes()
    (folder / "selection.json").rename(folder / "selection.json.damaged")
    select(first, folder, search_of(first, folder)[0], heard)
    assert (folder / "selection-2.json").read_bytes() == kept and (folder / "selection-3.json").exists()


def test_a_selection_after_every_file_is_lost_says_that_the_test_split_was_open(tmp_path: Path) -> None:
    sweep, folder = fake.make_sweep(tmp_path, search={"num_trials": 2}), tmp_path / "s"
    search, heard = search_of(sweep, folder)
    run_all(search)
    frozen = select(sweep, folder, search, heard)
    (folder / "selection.json").unlink()
    again = fake.Heard()
    select(sweep, folder, search_of(sweep, folder)[0], again)
    assert not again.count("say"), "nothing was scored on it yet"
    (folder / "selection.json").unlink()
    config = confirmation(frozen["jepa/llama3"], 5)
    results.write_trial(folder, "f" * 16, config, "jepa/llama3", "confirm", TrialResult("COMPLETE", None, {"test_accuracy": 0.5}, []))
    select(sweep, folder, search_of(sweep, folder)[0], again)
    ((_, sentence),) = again.events
    assert "has been opened before: jepa/llama3 has test scores" in sentence


def test_a_complete_trial_that_is_run_again_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa_ray.orchestration import stages

    stopped: list[str] = []
    monkeypatch.setattr(stages.ray, "get", stopped.append)
    mailbox: Any = SimpleNamespace(stop=SimpleNamespace(remote=lambda trial_id: trial_id))
    sweep, folder = fake.make_sweep(tmp_path, search={"num_trials": 2}), tmp_path / "s"
    jobs = run_all(search_of(sweep, folder)[0])
    (folder / "trials" / f"{jobs[0].trial_id}.parquet").unlink()
    resumed, _ = search_of(sweep, folder)
    stop = resumed.scheduler(mailbox)._stop
    stop(jobs[0])
    stop(jobs[1])
    assert stopped == [jobs[1].trial_id]


def test_selection_is_the_first_of_the_best_and_stays_frozen(tmp_path: Path) -> None:
    from jepa_ray.orchestration.selection import confirmations, select
    from jepa_ray.orchestration.stages import FixedJobs

    folder = tmp_path / "s"
    sweep = fake.make_sweep(tmp_path, search={"num_trials": 3}, confirm={"seeds": [5, 6]})
    search, heard = search_of(sweep, folder)
    jobs = []
    while (job := search.next()) is not None:
        jobs.append(job)
        # The best of the arm is its second trial (the third is only as good); a higher value of a trial that was cut does not count.
        number = sum(other.arm == job.arm for other in jobs)
        finish(search, job, *{1: ("PRUNED", 0.9), 2: ("COMPLETE", 0.5), 3: ("COMPLETE", 0.5)}[number])
    chosen = select(sweep, folder, search, heard)  # type: ignore[arg-type]
    assert {arm: config for arm, config in chosen.items()} == {job.arm: job.config for job in jobs[2:4]}
    frozen = (folder / "selection.json").read_bytes()
    assert select(sweep, folder, search, heard) == chosen  # type: ignore[arg-type]
    assert (folder / "selection.json").read_bytes() == frozen

    wanted = confirmations(chosen, chosen, sweep.confirm.seeds)
    confirm = FixedJobs(sweep, folder, identities(folder), "confirm", wanted, listener=heard, interrupt=Interrupt())  # type: ignore[arg-type]
    queue = list(iter(confirm.next, None))
    assert [(job.arm, job.config.seed) for job in queue] == [(arm, seed) for seed in (5, 6) for arm in ("base/llama3", "jepa/llama3")]
    assert all(job.config.evaluation.test for job in queue)
    for job, state in zip(queue, ("COMPLETE", "FAILED", "COMPLETE"), strict=False):
        results.write_trial(folder, job.trial_id, job.config, job.arm, "confirm", TrialResult(state, None, {}))  # type: ignore[arg-type]
    again = FixedJobs(sweep, folder, identities(folder), "confirm", wanted, listener=heard, interrupt=Interrupt())  # type: ignore[arg-type]
    assert again.done == 2
    assert [job.trial_id for job in iter(again.next, None)] == [f"{queue[1].config_id}-2", queue[3].config_id]

    extended = fake.make_sweep(tmp_path, search={"num_trials": 3}, confirm={"seeds": [5, 6, 7]})
    select(extended, folder, search, heard)  # type: ignore[arg-type]
    assert (folder / "selection-2.json").exists()
    # Only the seeds have changed, so nothing was selected after test scores could be seen.
    assert not any("opened before" in event[1] for event in heard.events if event[0] == "say")


def test_a_confirmation_whose_first_attempt_is_lost_is_tried_under_a_new_id(tmp_path: Path) -> None:
    from jepa_ray.orchestration.selection import confirmations
    from jepa_ray.orchestration.stages import FixedJobs

    folder, sweep = tmp_path / "s", fake.make_sweep(tmp_path)
    folder.mkdir()
    wanted = confirmations({"base/llama3": plan.trial_config(sweep, arms(sweep)[0], {})}, ["base/llama3"], [5])

    def due() -> Any:
        return FixedJobs(sweep, folder, identities(folder), "confirm", wanted, listener=fake.Heard(), interrupt=Interrupt()).next()  # type: ignore[arg-type]

    for _ in range(2):
        job = due()
        results.write_trial(folder, job.trial_id, job.config, job.arm, "confirm", TrialResult("FAILED", "broken", {}))
    (folder / "trials" / f"{job.config_id}.parquet").write_bytes(b"")
    damaged.mend(folder)
    assert due().trial_id == f"{job.config_id}-3"


def test_arm_without_a_complete_trial_is_named(tmp_path: Path) -> None:
    from jepa_ray.orchestration.selection import select

    search, heard = search_of(fake.make_sweep(tmp_path, search={"num_trials": 1}, confirm={"seeds": [5]}), tmp_path / "s")
    finish(search, search.next(), state="FAILED")
    finish(search, search.next())
    chosen = select(fake.make_sweep(tmp_path, confirm={"seeds": [5]}), tmp_path / "s", search, heard)  # type: ignore[arg-type]
    assert list(chosen) == ["jepa/llama3"]
    assert any("base/llama3 has no COMPLETE trial" in event[1] for event in heard.events if event[0] == "say")


class Scheduled:
    """Drives an ArmScheduler as Tune does."""

    def __init__(self, tmp_path: Path, **config: Any) -> None:
        from jepa_ray.orchestration.early_stopping import ArmScheduler

        self.cut: list[str] = []
        self.folder = tmp_path
        self.scheduler = ArmScheduler(
            SchedulerConfig(**{"grace_period": 1, **config}), "val_accuracy", "max", lambda job: self.cut.append(job.trial_id)
        )

    def trial(self, name: str, arm: str) -> Any:
        from jepa_ray.orchestration.jobs import Job

        config = TrialConfig.model_validate({"model": {"family": "llama3"}, "optim": {"num_epochs": 3}})
        trial = SimpleNamespace(trial_id=name, config={"job": Job(name, name, arm, "search", self.folder, config).to_json()})
        self.scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        return trial

    def report(self, trial: Any, epoch: int, value: float, **more: Any) -> None:
        result = {"epoch": epoch, "train_flops": 1e9 * epoch, "val_accuracy": value, **more}
        assert self.scheduler.on_trial_result(None, trial, result) == "CONTINUE", "Tune would kill the process"  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [{}, {"time_attr": "train_flops", "grace_period": 1e9}])
def test_arms_never_cut_each_other(config: dict[str, Any], tmp_path: Path) -> None:
    tune = Scheduled(tmp_path, **config)
    for name, arm, value in (("a1", "a", 0.9), ("b1", "b", 0.1), ("a2", "a", 0.5), ("b2", "b", 0.2)):
        tune.report(tune.trial(name, arm), 1, value)
    assert tune.cut == ["a2"]


def test_last_epoch_is_finished_not_cut_and_no_one_is_cut_twice(tmp_path: Path) -> None:
    tune = Scheduled(tmp_path)
    good, bad = tune.trial("good", "a"), tune.trial("bad", "a")
    for epoch in (1, 2, 3):
        tune.report(good, epoch, 0.9)
    tune.report(bad, 3, 0.1)
    assert tune.cut == []
    late = tune.trial("late", "a")
    tune.report(late, 1, float("nan"))
    tune.report(late, 1, 0.1)
    tune.report(late, 2, 0.1)
    tune.report(late, 2, 0.1, final=True)
    assert tune.cut == ["late"]


def test_scheduler_none_cuts_nobody_and_rungs_survive_a_restart(tmp_path: Path) -> None:
    for name, cut in (("none", []), ("asha", ["new"])):
        tune = Scheduled(tmp_path, name=name)
        tune.scheduler.remember("a", "old", [(1, 0.9)])
        tune.report(tune.trial("new", "a"), 1, 0.1)
        assert tune.cut == cut


def test_rungs_are_rebuilt_from_the_tables(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, scheduler={"name": "asha", "grace_period": 1}, search={"num_trials": 4})
    search, _ = search_of(sweep, tmp_path / "s")
    job = search.next()
    line = {"step": 1, "epoch": 1, "split": "val", "name": "val_accuracy", "value": 0.9, "train_flops": 1e9, "train_seconds": 1.0}
    results.write_trial(
        tmp_path / "s", job.trial_id, job.config, job.arm, "search", TrialResult("COMPLETE", None, {"val_accuracy": 0.9}, [line])
    )
    scheduler = search_of(sweep, tmp_path / "s")[0].scheduler(mailbox=None)
    (_, recorded), *_ = [rung for rung in scheduler._halving(job.arm)._brackets[0]._rungs if rung[1]]
    assert recorded == {job.trial_id: 0.9}


def test_rungs_in_steps_are_reported_recorded_and_rebuilt(tmp_path: Path) -> None:
    """Only search trials are validated at them, their identity does not depend on them, and the curves of the study count steps."""
    schedule = {"name": "asha", "time_attr": "step", "grace_period": 2, "reduction_factor": 2}
    sweep = fake.make_sweep(tmp_path, scheduler=schedule, search={"num_trials": 3}, methods={"jepa": {}})
    search, _ = search_of(sweep, tmp_path / "s")
    job, twin = (
        search.next(),
        search_of(fake.make_sweep(tmp_path, search={"num_trials": 3}, methods={"jepa": {}}), tmp_path / "t")[0].next(),
    )
    assert job.config.evaluation.at_steps[:4] == (2, 4, 8, 16) and twin.config.evaluation.at_steps == ()
    assert job.config_id == twin.config_id and type(job).from_json(job.to_json()) == job
    curve = [(2, 2 / 3, 0.1), (3, 1.0, 0.2), (4, 4 / 3, 0.3), (6, 2.0, 0.4)]
    for step, epoch, value in curve:
        search.progress(job, {"step": step, "epoch": epoch, "val_accuracy": value})
    cost = {"split": "val", "name": "val_accuracy", "train_flops": 1e9, "train_seconds": 1.0}
    lines = [{"step": step, "epoch": epoch, "value": value, **cost} for step, epoch, value in [*curve, (9, 3.0, 0.5)]]
    summary: dict[str, Any] = {"val_accuracy": 0.5, "steps": 9, "epochs_done": 3, "finished_at": results.now()}
    results.write_trial(job.folder, job.trial_id, job.config, job.arm, job.stage, TrialResult("COMPLETE", None, summary, lines), job.number)
    search.finished(job, {"state": "COMPLETE", "error": None, "val_accuracy": 0.5, "steps": 9.0, "epochs_done": 3.0})
    whole = {2: 0.1, 3: 0.2, 4: 0.3, 6: 0.4, 9: 0.5}
    assert raw(tmp_path / "s", job.arm).get_trials()[0].intermediate_values == whole
    assert results.read_trials(tmp_path / "s")["eval_at_steps"].item().startswith("2;4;8;16;")

    (tmp_path / "s" / "study.db").unlink()
    search, heard = search_of(sweep, tmp_path / "s")
    assert raw(tmp_path / "s", job.arm).get_trials()[0].intermediate_values == whole
    (bracket,) = search.scheduler(mailbox=None)._halving(job.arm)._brackets
    assert {milestone: recorded[job.trial_id] for milestone, recorded in bracket._rungs if recorded} == {2: 0.1, 4: 0.3, 8: 0.5}
    chosen = select(sweep, tmp_path / "s", search, heard)
    assert confirmation(chosen[job.arm], 5).evaluation.at_steps == ()


def test_a_trial_is_cut_at_a_rung_within_an_epoch(tmp_path: Path) -> None:
    tune = Scheduled(tmp_path, time_attr="step", grace_period=2, reduction_factor=2)
    good, bad = tune.trial("good", "a"), tune.trial("bad", "a")
    for step in (2, 3, 4):
        tune.report(good, 0, 0.9, step=step)
        tune.report(good, 0, 0.9, step=step)  # once more, after a restart
    tune.report(bad, 0, 0.1, step=1)
    assert tune.cut == []
    tune.report(bad, 0, 0.1, step=2)
    assert tune.cut == ["bad"]


def test_an_arm_that_has_spent_its_flops_starts_no_further_trial(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, search={"num_trials": 10, "train_flops": 2.5e9})
    search, _ = search_of(sweep, tmp_path / "s")

    def work(limit: int) -> list[str]:
        arms = []
        while len(arms) < limit and (job := search.next()) is not None:
            arms.append(job.arm)
            flops = 1e9 if job.arm.startswith("base") else 2e9
            result = TrialResult("COMPLETE", None, {"val_accuracy": 0.5, "train_flops": flops})
            results.write_trial(job.folder, job.trial_id, job.config, job.arm, job.stage, result, job.number)
            search.finished(job, {"state": "COMPLETE", "error": None, "val_accuracy": 0.5, "train_flops": flops})
        return arms

    done = work(3)
    search, _ = search_of(sweep, tmp_path / "s")  # run again: earlier spending counts
    done += work(99)
    # Three trials of 1e9 reach 2.5e9, two of 2e9 do: the last one that starts may overrun, because its cost is not known in advance.
    assert {arm: done.count(arm) for arm in set(done)} == {"base/llama3": 3, "jepa/llama3": 2}
