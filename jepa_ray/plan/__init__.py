"""From a YAML file to the trials that it asks for. Neither torch nor Ray: a mistake is refused in a moment."""

from jepa_ray.plan.arms import Estimate, accepts, defaults, grid, most_matched, space, total_trials, trial_config

__all__ = ["Estimate", "accepts", "defaults", "grid", "most_matched", "space", "total_trials", "trial_config"]
