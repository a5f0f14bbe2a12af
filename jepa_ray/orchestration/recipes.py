"""The two recipes, causal models and masked encoders: which functions prepare, estimate and run the trials of a sweep.

The only place that distinguishes the two. Each function is imported when it is requested, so a bad YAML file is refused
before torch is loaded, and a worker loads only its own recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jepa_ray.config import SweepConfig, TrialConfig

if TYPE_CHECKING:
    from jepa_ray.plan import Estimate
    from jepa_ray.results import TrialResult
    from jepa_ray.training.prepared import Prepared
    from jepa_ray.training.runtime import Runtime

Prepare = Callable[[SweepConfig, str, str], "Prepared"]
"""(sweep, family, task) -> the inputs that all trials of that family and task share."""
RunTrial = Callable[[TrialConfig, "Prepared", "Runtime", Callable[[dict[str, float]], None], Path], "TrialResult"]
"""(configuration, prepared data, this worker, report of an epoch's metrics, scratch folder) -> the trial's result."""


def preparation(sweep: SweepConfig) -> Prepare:
    """The function that prepares one family and task of this sweep."""
    if sweep.base.masked is not None:
        from jepa_ray.masked.prepare import prepare_masked

        return cast(Prepare, prepare_masked)  # returns a MaskedPrepared, which only run_masked_trial reads
    from jepa_ray.preparation.prepare import prepare

    return prepare


def trial_runner(config: TrialConfig) -> RunTrial:
    """The function that trains and evaluates this configuration."""
    if config.masked is not None:
        from jepa_ray.masked.trial import run_masked_trial

        return cast(RunTrial, run_masked_trial)
    from jepa_ray.training.trial import run_trial

    return run_trial


def model_size(sweep: SweepConfig, family: str, prepared: Prepared) -> float:
    """Bytes of a model that the confirmation of this family writes, at most; 0 if it writes none, as for masked encoders."""
    if sweep.base.masked is not None or sweep.confirm.keep == "none" or not sweep.confirm.seeds:
        return 0.0
    from jepa_ray.preparation.model_bytes import model_bytes

    return model_bytes(sweep, family, prepared)


def estimate(sweep: SweepConfig) -> tuple[dict[str, Estimate], list[str]]:
    """Estimates by arm name, and sentences about the data; see `preparation.estimate`."""
    if sweep.base.masked is not None:
        from jepa_ray.masked.prepare import estimate_masked

        return estimate_masked(sweep)
    from jepa_ray.preparation.estimate import estimate as estimate_causal

    return estimate_causal(sweep)
