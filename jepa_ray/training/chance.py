"""What guessing reaches: the accuracy of an answer that does not depend on the question."""

from __future__ import annotations

from collections import Counter

from jepa_ray.config import TrialConfig
from jepa_ray.data.datasets import task_of
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.judges import judge_of
from jepa_ray.evaluation.metrics import guessing
from jepa_ray.training.prepared import Prepared

FEW = 0.2
"""Own answers are few if at most this share of the training references is distinct: yes and no, or the classes of a text."""


def chance(config: TrialConfig, prepared: Prepared, judged: TokenTable) -> float:
    """Accuracy of guessing on a split, by the task's own judge; 0 unless answers are labels or, in own data, FEW. Measured, because the
    task's number is for its public data only."""
    task, train = task_of(config.data), prepared.train.references
    if task.has_labels:
        return guessing(train, judged.references)
    counts = Counter(answer.strip() for answer in train)
    if task.built_in or len(counts) > FEW * len(train):
        return 0.0
    judge, (most, _) = judge_of(task.judge, config.data, config.evaluation), counts.most_common(1)[0]
    right = [judge(most, reference, extra).correct for reference, extra in zip(judged.references, judged.extras, strict=True)]
    return max(guessing(train, judged.references), sum(right) / len(right))
