"""Inputs of a trial: tokenised data, the checkpoint, and their digests. Created once per sweep by `preparation.prepare`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from jepa_ray.config import TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.models.auto import resolved
from jepa_ray.system.digests import Weights


@dataclass(frozen=True)
class Pretrained:
    """Result of a first stage."""

    folder: str
    """An ordinary checkpoint folder."""
    sha: str
    """SHA-256 of its weights."""
    tokens: int
    flops: int
    seconds: float
    """Training time, even if another trial trained it."""
    losses: list[dict[str, float]]
    """Per epoch: `pretrain_ce`, and `pretrain_jepa` if the stage had the JEPA term."""
    unpacked_flops: float = math.nan
    """Like `flops`, with every sequence and view counted separately; nan if an older version trained it."""


@dataclass(frozen=True)
class Prepared:
    """Inputs that all trials of a family and task share; flat arrays, which Ray's object store shares without copying."""

    train: TokenTable
    val: TokenTable
    test: TokenTable | None
    """None during the search: the test split is sealed."""
    dataset_sha: str
    """Digest of the splits' contents."""
    checkpoint: str
    """Folder or hub id that weights and tokenizer are read from."""
    revision: str | None = None
    """For a hub id: the commit that `identity` includes, loaded by every trial."""
    first_stage_table: TokenTable | None = None
    """Training split of the first stage, if there is one."""
    first_stage_sha: str = ""
    """Digest of that stage's data."""
    first_stage: Pretrained | None = None
    """Result of the first stage: set by the trial that has run it."""
    identity: str = ""
    """Digest of the inputs that determine a trial's results but are not in its config: data of both stages, databases, weights."""
    labels: tuple[str, ...] = ()
    """The label set that answers are judged by (`evaluation.judges.labels_of`), also in the data report; empty if they are not labels."""
    former_identity: str = ""
    """The same as earlier versions made it, from samples of large files."""
    weights: Weights = field(default_factory=Weights)
    """Digests of the starting checkpoint."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of the trials table known before training: overlap, and examples dropped from any split."""
    report: dict[str, Any] = field(default_factory=dict)
    """The data report: `data.datasets.Splits.report`, and plus examples, dropped examples and token lengths per split and sequence."""
    plain_because: str | None = None
    """Why sequences of this model cannot share rows, in words; None: they can."""

    def resolve(self, config: TrialConfig) -> TrialConfig:
        """The configuration with `packing: auto` resolved for this model. ValueError if it requires what the model cannot do."""
        return config.model_copy(update={"model": resolved(config.model, self.plain_because)})
