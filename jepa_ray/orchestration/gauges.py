"""The Ray metrics of a running trial: gauges on the dashboard's page of metrics, in Prometheus and in Grafana (`docs/grafana.json`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from jepa_ray.orchestration.jobs import Job

LABELS = ("sweep", "stage", "arm", "seed", "trial")
"""By which a dashboard groups and filters trials."""
GAUGES = {
    "lambda": "Weight of the JEPA term",
    "train_ce": "Cross-entropy of the last epoch",
    "train_jepa": "JEPA loss of the last epoch",
    "val_accuracy": "Share of correct answers on validation",
    "step_ce": "Cross-entropy of the last seconds' steps",
    "step_jepa": "JEPA loss of the last seconds' steps",
    "step_learning_rate": "Learning rate of the last step",
    "step_grad_norm": "Norm of the gradients before clipping, mean over the last seconds' steps",
    "step_tokens_per_second": "Tokens trained per second, over all workers",
    "step_memory_bytes": "Peak memory so far",
}
"""Name of a value -> what its gauge `jepa_ray_<name>` shows. Prometheus adds `ray_` in front."""


def show(job: Job, values: Mapping[str, Any]) -> None:
    """Set the trial's gauges, as far as there are values for them."""
    shown = {**values, "lambda": _weight(job, values)}
    labels = dict(zip(LABELS, (job.folder.name, job.stage, job.arm, str(job.config.seed), job.trial_id), strict=True))
    for name, gauge in _gauges().items():
        value = shown.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            gauge.set(float(value), labels)


def _weight(job: Job, values: Mapping[str, Any]) -> float | None:
    """lambda before its schedule, as in the column `lambda_used`; None while only the trial knows it (`lambda: {grad_ratio: ...}`)."""
    objective, used = job.config.objective, values.get("lambda_used")
    if used is not None:
        return float(used)
    return 0.0 if objective is None or objective.control in ("monitor", "zero") else objective.fixed_lambda


@functools.cache
def _gauges() -> dict[str, Any]:
    from ray.util.metrics import Gauge

    return {name: Gauge(f"jepa_ray_{name}", description=text, tag_keys=LABELS) for name, text in GAUGES.items()}
