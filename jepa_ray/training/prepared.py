"""What a trial starts from: tokenised data, the checkpoint, and their digests. Made once per sweep by `preparation.prepare`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from jepa_ray.data.views import TokenTable


@dataclass(frozen=True)
class Pretrained:
    """What a first stage hands on."""

    folder: str
    """An ordinary checkpoint folder."""
    sha: str
    """SHA-256 of its weights."""
    tokens: int
    flops: int
    seconds: float
    """What training it cost, also where another trial had trained it."""
    losses: list[dict[str, float]]
    """By epoch: `pretrain_ce`, and `pretrain_jepa` where it had the term."""
    unpacked_flops: float = math.nan
    """As `flops`, with every sequence and view by itself; nan where an older version trained it."""


@dataclass(frozen=True)
class Prepared:
    """What every trial of a family and task shares; flat arrays inside, so that Ray's object store hands it out without copies."""

    train: TokenTable
    val: TokenTable
    test: TokenTable | None
    """None while searching: the test split is sealed."""
    dataset_sha: str
    """Digest of the splits' contents."""
    checkpoint: str
    """Folder or hub id that weights and tokenizer are read from."""
    revision: str | None = None
    """Of a hub id: the commit that `identity` names, which every trial loads."""
    pretrain: TokenTable | None = None
    """Training split of the first stage, where there is one."""
    pretrain_sha: str = ""
    """Digest of that stage's data."""
    stage: Pretrained | None = None
    """What the first stage handed on: filled in by the trial that has run it."""
    identity: str = ""
    """Digest of all that a trial's numbers depend on and its configuration does not hold: data of both stages, databases, weights."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of the trials table known before training: overlap, and examples dropped from any split."""
    report: dict[str, Any] = field(default_factory=dict)
    """The data report: `data.datasets.Splits.report`, and examples, dropped and token lengths per split and sequence."""
