"""The trackers that show a sweep's trials while they run: the section `track` of a sweep file."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from jepa_ray.config.record import Record, show

_STORE = re.compile(r"https?://[^/\s]\S*|sqlite:///[^:].*|(postgresql|mysql|mssql)(\+\w+)?://\S+|databricks(://\S+)?")
"""Tracking URIs that MLflow writes to. In `sqlite:///` and `sqlite:///:memory:` it would lose everything at the end."""


class WandbConfig(Record):
    """Weights & Biases as a tracker."""

    project: str = Field(min_length=1)
    """Project that the runs belong to."""
    entity: str | None = None
    """User or team that owns the project. If null, the default of the account."""
    mode: Literal["online", "offline"] = "online"
    """online: runs are sent while trials run; without an API key they are kept as `offline` does. offline: runs are written to
    `results/NAME/wandb`, from where `wandb sync` sends them."""


class TrackConfig(Record):
    """Trackers, each with one run per trial: curves, settings, final numbers. The tables contain all of it, with or without trackers."""

    tensorboard: bool = False
    """Write event files of TensorBoard to `results/NAME/tensorboard/<arm>/seed-82`, or `trial-7` of a search."""
    mlflow: str | None = None
    """Tracking URI of MLflow: of a server (`http://localhost:5000`), a database (`sqlite:///mlflow.db`) or `databricks`. The experiment has
    the sweep's name. If null, no MLflow."""
    wandb: WandbConfig | None = None
    """Weights & Biases. If null, none."""

    @field_validator("mlflow")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and re.match(r"[^/]*://[^/@:]*:[^/@]*@", value):
            raise ValueError(
                "contains a password, which sweep.yaml would keep; drop it, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value

    @field_validator("mlflow")
    @classmethod
    def _a_store(cls, value: str | None) -> str | None:
        if value is not None and _STORE.fullmatch(value) is None:
            folder = re.match(r"file:|[^:]+$", value)
            why = " (MLflow refuses folders; such a database is one file)" if folder else ""
            raise ValueError(
                "must be the address of a server (http://localhost:5000), a database (sqlite:///mlflow.db, postgresql://...) or "
                f"databricks, got {show(value)}{why}"
            )
        return value
