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
    shown = {**values, "lambda": (job.config.objective.fixed_lambda or 0.0) if job.config.objective else 0.0}
    labels = dict(zip(LABELS, (job.folder.name, job.stage, job.arm, str(job.config.seed), job.trial_id), strict=True))
    for name, gauge in _gauges().items():
        value = shown.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            gauge.set(float(value), labels)


@functools.cache
def _gauges() -> dict[str, Any]:
    from ray.util.metrics import Gauge

    return {name: Gauge(f"jepa_ray_{name}", description=text, tag_keys=LABELS) for name, text in GAUGES.items()}
