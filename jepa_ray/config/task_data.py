"""Data keys that one of several tasks of a sweep has for itself. Imports pydantic and the record of a trial's data only."""

from __future__ import annotations

from pydantic import Field

from jepa_ray.config.record import Record
from jepa_ray.config.trial import OwnJudge


class TaskData(Record):
    """One of several tasks in a sweep: keys that differ from the sweep's `data`."""

    train: str | None = None
    """Training data of this task, in the same form as `data.train`. If null, `data.train`."""
    test: str | None = None
    """Sealed test data of this task, in the same form as `data.test`. If null, `data.test`."""
    databases: str | None = None
    """Folder of this task's databases (Spider). If null, `data.databases`."""
    judge: OwnJudge | None = None
    """When an answer is correct (`task: text` only). If null, `data.judge`."""
    text: str | None = None
    """Column of the Text view (`task: text` only). If null, `data.text`."""
    code: str | None = None
    """Column of the Code view (`task: text` only). If null, `data.code`."""
    system: str | None = None
    """Column or text of the system message (`task: text` only). If null, `data.system`."""
    cluster: str | None = None
    """Column that groups examples of one source (`task: text` only). If null, `data.cluster`."""
    num_train: int | None = Field(None, ge=1)
    """Number of training examples kept. If null, `data.num_train`."""
    num_val: int | None = Field(None, ge=1)
    """Number of validation examples, split off the training data. If null, `data.num_val`."""
    num_test: int | None = Field(None, ge=1)
    """Number of test examples kept. If null, `data.num_test`."""
    max_length: int | None = Field(None, ge=8)
    """Maximum sequence length in tokens. If null, `data.max_length`."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Maximum length of a generated answer in tokens. If null, `base.evaluation.max_new_tokens` applies."""
