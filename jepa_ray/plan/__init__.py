"""From a YAML file to its trials. Imports neither torch nor Ray, so that a mistake is reported at once."""

from jepa_ray.plan.arms import (
    Demand,
    Estimate,
    EvaluationDemand,
    Pass,
    StageDemand,
    accepts,
    defaults,
    grid,
    most_matched,
    space,
    total_trials,
    trial_config,
)

__all__ = [
    "Demand",
    "Estimate",
    "EvaluationDemand",
    "Pass",
    "StageDemand",
    "accepts",
    "defaults",
    "grid",
    "most_matched",
    "space",
    "total_trials",
    "trial_config",
]
