"""An MLflow store in SQLite, read back with MlflowClient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepa_ray.orchestration.tracking import Lane, tracked
from tests.orchestration.trackers import scenario

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'jepa-ray[mlflow]'")
pytestmark = pytest.mark.timeout(120)


def runs(uri: str) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return client, client.search_runs([client.get_experiment_by_name("shown").experiment_id])


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("FAILED", "FAILED")])
def test_a_resumed_trial_continues_its_run_without_a_step_twice(state: Any, status: str, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/store.db"
    assert scenario.interrupted_and_resumed(tmp_path, scenario.opened(tmp_path, mlflow=uri), state) == []
    client, (run,) = runs(uri)
    curves = {name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}
    final = {name: curves.pop(name) for name in scenario.ONLY_FINAL}
    assert {name: sorted(points) for name, points in curves.items()} == {name: list(of.items()) for name, of in scenario.CURVE.items()}
    assert final == {name: [(6, value)] for name, value in scenario.ONLY_FINAL.items()}
    assert {name: run.data.metrics[name] for name in scenario.FINAL.keys() & scenario.CURVE.keys()} == {
        name: scenario.FINAL[name] for name in scenario.FINAL.keys() & scenario.CURVE.keys()
    }, "the table's final values are those that MLflow shows"
    assert (run.info.run_name, run.info.status, run.data.tags["trial"]) == ("jepa/llama3 seed 82", status, "a1b2")
    tags = {name: run.data.tags[name] for name in ("sweep", "arm", "method", "stage", "seed", "state", "device")}
    assert list(tags.values()) == ["shown", "jepa/llama3", "jepa", "confirm", "82", state, "cpu"]
    assert run.data.tags.get("error") == (None if state == "COMPLETE" else "ValueError: no luck")
    wanted = scenario.settings_of(tmp_path)
    assert {name: run.data.params[name] for name in wanted} == {name: str(value) for name, value in wanted.items()}


def test_a_store_that_was_deleted_gets_a_new_run_with_the_whole_curve(tmp_path: Path) -> None:
    uri, job = f"sqlite:///{tmp_path}/store.db", scenario.job_of(tmp_path)
    said: list[str] = []
    for steps in ((1, 2), (1, 2, 3)):
        lane = Lane(scenario.opened(tmp_path, mlflow=uri)(), "shown", job.folder, said.append)
        lane.start()
        lane.started(tracked("shown", job))
        lane.rows(job.trial_id, scenario.rows(*steps, names=["step_ce"]))
        lane.stop(100)
        client, (run,) = runs(uri)
        assert [point.step for point in client.get_metric_history(run.info.run_id, "step_ce")] == list(steps)
        assert run.info.status == "KILLED", "it was left before it ended"
        if len(steps) == 2:
            client.delete_run(run.info.run_id)
    assert said == []


def test_a_server_that_is_down_costs_one_sentence_and_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = list[str]()
    job, other = scenario.job_of(tmp_path), scenario.job_of(tmp_path, "c3d4")
    lane = Lane(scenario.opened(tmp_path, mlflow=uri)(), "shown", job.folder, said.append)
    lane.start()
    for each in (job, other):
        lane.started(tracked("shown", each))
        for step in (1, 2, 3):
            lane.rows(each.trial_id, scenario.rows(step))
    lane.stop(100)
    assert len(said) == 1 and said[0].startswith("MLflow does not take jepa/llama3 seed 82 (") and "training goes on" in said[0]
