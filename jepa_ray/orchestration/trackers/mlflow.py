"""MLflow: an experiment per sweep, a run per trial, with its id, arm, stage and seed as tags and the settings as parameters."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from jepa_ray.orchestration.trackers.tracker import Points, Tracked
from jepa_ray.results import State

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; the client's own patience with a server that is down is many minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Settings of the client that the user has not set."""
MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 500
"""Limits of one request, and characters of a parameter's value."""


class MLflow:
    """See `tracker.Tracker`."""

    key, name = "mlflow", "MLflow"

    def __init__(self, uri: str, sweep: str) -> None:
        self.where, self._sweep, self._client = uri, sweep, None

    def open(self, trial: Tracked, run_id: str | None) -> MLflowRun:
        """The run with this id if the store has it, else a new one."""
        client = self._connected()
        from mlflow.entities import Param

        if run_id is not None and _has(client, run_id):
            client.update_run(run_id, status="RUNNING")
            return MLflowRun(client, run_id, new=False)
        found = client.get_experiment_by_name(self._sweep)
        experiment = found.experiment_id if found is not None else client.create_experiment(self._sweep)
        run_id = str(client.create_run(experiment, run_name=trial.name, tags=trial.tags).info.run_id)
        params = [Param(name, str(value)[:LONGEST]) for name, value in trial.settings.items()]
        for start in range(0, len(params), MOST_PARAMS):
            client.log_batch(run_id, params=params[start : start + MOST_PARAMS])
        return MLflowRun(client, run_id, new=True)

    def _connected(self) -> Any:
        if self._client is None:
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient

            for name in ("alembic", "mlflow"):  # the console is the sweep's
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client = MlflowClient(tracking_uri=self.where)
        return self._client


def _has(client: Any, run_id: str) -> bool:
    """Whether the store has this run, and not among the deleted ones."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


class MLflowRun:
    """See `tracker.Run`."""

    def __init__(self, client: Any, run_id: str, *, new: bool) -> None:
        self._client, self.id, self.new = client, run_id, new

    def log(self, points: Points) -> None:
        """Add points to its metrics."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, step) for step, values in points for name, value in values.items()]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self.id, metrics=metrics[start : start + MOST_METRICS])

    def end(self, state: State, numbers: Mapping[str, float], texts: Mapping[str, str], step: int) -> None:
        """Add the final numbers as metrics and the texts as tags."""
        from mlflow.entities import RunTag

        self.log([(step, numbers)])
        self._client.log_batch(self.id, tags=[RunTag(name, text) for name, text in {"state": state, **texts}.items()])
        self._client.set_terminated(self.id, STATUS[state])

    def leave(self) -> None:
        """Mark it as killed, until it is opened again."""
        self._client.set_terminated(self.id, "KILLED")
