"""Trackers: TensorBoard, MLflow and Weights & Biases, each with one run per trial. `orchestration/tracking.py` feeds them.

Their packages are optional, and imported when the first run is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jepa_ray.config import SweepConfig
from jepa_ray.orchestration.trackers.mlflow import MLflow
from jepa_ray.orchestration.trackers.tensorboard import TensorBoard
from jepa_ray.orchestration.trackers.tracker import Points, Run, Tracked, Tracker
from jepa_ray.orchestration.trackers.wandb import WeightsAndBiases

__all__ = ["Points", "Run", "Tracked", "Tracker", "trackers"]


def trackers(sweep: SweepConfig, folder: Path, say: Callable[[str], None]) -> list[Tracker]:
    """Those that the sweep file asks for. `folder`: that of the sweep's results; `say` takes sentences for the user."""
    track = sweep.track
    out: list[Tracker] = [TensorBoard(folder / "tensorboard")] if track.tensorboard else []
    out += [MLflow(track.mlflow, sweep.name)] if track.mlflow is not None else []
    out += [WeightsAndBiases(track.wandb, folder, say)] if track.wandb is not None else []
    return out
