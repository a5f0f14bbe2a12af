"""Ray metrics of trials, and the Grafana dashboard that plots them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import TrialConfig
from jepa_ray.orchestration import gauges
from jepa_ray.orchestration.jobs import Job
from jepa_ray.training.step_log import NAMES


def test_ray_metrics_are_labelled_by_sweep_stage_arm_seed_and_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.tag_keys = name, tag_keys

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == set(self.tag_keys)
            seen.append((self.name, value, tags))

    seen: list[tuple[str, float, dict[str, str]]] = []
    monkeypatch.setattr("ray.util.metrics.Gauge", Gauge)
    gauges._gauges.cache_clear()
    config = TrialConfig.model_validate({"model": {"family": "llama3"}, "seed": 82, "objective": {"lambda": 0.5}})
    job = Job("a-2", "a", "jepa/llama3", "confirm", tmp_path / "lora", config)
    gauges.show(job, {"val_accuracy": 0.5, "step_ce": float("nan"), "train_ce": None, "device": "cpu"})
    gauges._gauges.cache_clear()
    labels = {"sweep": "lora", "stage": "confirm", "arm": "jepa/llama3", "seed": "82", "trial": "a-2"}
    assert seen == [("jepa_ray_lambda", 0.5, labels), ("jepa_ray_val_accuracy", 0.5, labels)]


def test_every_value_of_a_step_has_a_gauge() -> None:
    assert set(NAMES) <= set(gauges.GAUGES)


def test_the_dashboard_queries_gauges_that_exist_by_labels_that_exist(repository: Path) -> None:
    dashboard: dict[str, Any] = json.loads((repository / "docs" / "grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    queries += [variable["query"]["query"] for variable in variables]
    wanted = {f"ray_jepa_ray_{name}" for name in gauges.GAUGES}
    queried = {name for query in queries for name in re.findall(r"ray_jepa_ray_\w+", query)}
    assert len(queries) > 8 and queried <= wanted
    assert {f"ray_jepa_ray_{name}" for name in NAMES} <= queried, "a value of a step has no panel"
    labels = {label for query in queries for label in re.findall(r"(\w+)=~", query)} | {variable["name"] for variable in variables}
    legends = {
        label for panel in dashboard["panels"] for target in panel["targets"] for label in re.findall(r"{{(\w+)}}", target["legendFormat"])
    }
    assert labels and legends and labels | legends <= set(gauges.LABELS)
    assert {name for query in queries for name in re.findall(r"\$(\w+)", query)} == {variable["name"] for variable in variables}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
