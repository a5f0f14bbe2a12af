"""What one trial is (TrialConfig) and what a sweep is (SweepConfig): types, bounds and identity. No file is read here.

`plan/load.py` reads YAML, `plan/checks/` checks rules between keys, `space.py` defines distributions. Imports pydantic only.
"""

from jepa_ray.config.comparison import Arm, Comparison, Kind, arms, comparisons, grown, possible
from jepa_ray.config.confirm import ConfirmConfig
from jepa_ray.config.laws import auto_without_checkpoint, default_families, two_tasks, used_seed
from jepa_ray.config.objective import (
    IN_SEQUENCE,
    MASKED_KNOBS,
    GradRatio,
    ObjectiveConfig,
    masked_misfit,
)
from jepa_ray.config.resources import Hardware, ResourcesConfig, Sharding
from jepa_ray.config.sweep import (
    MASKED_METRICS,
    VALIDATION_METRICS,
    BaseConfig,
    CrossEntropyConfig,
    SchedulerConfig,
    SearchConfig,
    SweepConfig,
)
from jepa_ray.config.track import TrackConfig, WandbConfig
from jepa_ray.config.trial import (
    OWN_DATA,
    DataConfig,
    EvaluationConfig,
    LoraConfig,
    MaskedConfig,
    MaskingConfig,
    ModelConfig,
    OptimConfig,
    OwnJudge,
    PretrainConfig,
    StageConfig,
    TrialConfig,
    canonical,
    columns,
    config_id,
)

__all__ = [
    "IN_SEQUENCE",
    "MASKED_KNOBS",
    "MASKED_METRICS",
    "OWN_DATA",
    "VALIDATION_METRICS",
    "Arm",
    "BaseConfig",
    "Comparison",
    "ConfirmConfig",
    "CrossEntropyConfig",
    "DataConfig",
    "EvaluationConfig",
    "GradRatio",
    "Hardware",
    "Kind",
    "LoraConfig",
    "MaskedConfig",
    "MaskingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "OwnJudge",
    "PretrainConfig",
    "ResourcesConfig",
    "SchedulerConfig",
    "SearchConfig",
    "Sharding",
    "StageConfig",
    "SweepConfig",
    "TrackConfig",
    "TrialConfig",
    "WandbConfig",
    "arms",
    "auto_without_checkpoint",
    "canonical",
    "columns",
    "comparisons",
    "config_id",
    "default_families",
    "grown",
    "masked_misfit",
    "possible",
    "two_tasks",
    "used_seed",
]
