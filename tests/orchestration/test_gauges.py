"""Ray metrics of trials, and the Grafana dashboard that plots them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import TrialConfig
from jepa_ray.orchestration import gauges
from jepa_ray.orchestration.jobs import Job
from jepa_ray.training.step_log import NAMES

Seen = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """(name, value, labels) of every gauge that is set, in place of Ray's."""
    out: Seen = []

    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.tag_keys = name, tag_keys

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == set(self.tag_keys)
            out.append((self.name, value, tags))

    monkeypatch.setattr("ray.util.metrics.Gauge", Gauge)
    gauges._gauges.cache_clear()
    yield out
    gauges._gauges.cache_clear()


def job(folder: Path, objective: dict[str, Any] | None) -> Job:
    config = TrialConfig.model_validate({"model": {"family": "llama3"}, "seed": 82, "objective": objective})
    return Job("a-2", "a", "jepa/llama3", "confirm", folder / "lora", config)


def test_ray_metrics_are_labelled_by_sweep_stage_arm_seed_and_trial(tmp_path: Path, seen: Seen) -> None:
    gauges.show(job(tmp_path, {"lambda": 0.5}), {"val_accuracy": 0.5, "step_ce": float("nan"), "train_ce": None, "device": "cpu"})
    labels = {"sweep": "lora", "stage": "confirm", "arm": "jepa/llama3", "seed": "82", "trial": "a-2"}
    assert seen == [("jepa_ray_lambda", 0.5, labels), ("jepa_ray_val_accuracy", 0.5, labels)]


@pytest.mark.parametrize(
    ("objective", "values", "shown"),
    [
        (None, {}, [0.0]),
        ({"lambda": 2.0}, {}, [2.0]),
        ({"lambda_effective": 0.5, "loss_dropout": 0.5}, {}, [1.0]),
        ({"lambda": 2.0, "control": "shuffled"}, {}, [2.0]),
        ({"lambda": 2.0, "control": "monitor"}, {}, [0.0]),  # measured, but not part of the loss
        ({"lambda": 2.0, "control": "zero"}, {}, [0.0]),
        ({"lambda": {"grad_ratio": 0.1}}, {}, []),  # the first step's gradients set it, in the trial
        ({"lambda": {"grad_ratio": 0.1}}, {"lambda_used": 0.37}, [0.37]),
        ({"lambda": 2.0}, {"lambda_used": None}, [2.0]),  # masked encoders
    ],
)
def test_lambda_is_the_weight_that_the_trial_uses(
    objective: dict[str, Any] | None, values: dict[str, Any], shown: list[float], tmp_path: Path, seen: Seen
) -> None:
    gauges.show(job(tmp_path, objective), values)
    assert [value for name, value, _ in seen if name == "jepa_ray_lambda"] == shown


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
