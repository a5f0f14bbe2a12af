"""TensorBoard: event files in `results/NAME/tensorboard/<arm>/seed-82` (`trial-7` of a search), with id and settings as hyperparameters.

A resumed trial continues in a further file of the same folder, as TensorBoard expects. The files are written by tensorboardX, which Ray
Tune requires anyway; TensorBoard itself is needed only to look at them.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping
from pathlib import Path

from jepa_ray.orchestration.trackers.tracker import Points, Tracked
from jepa_ray.results import State

COMPARED = ("val_accuracy", "test_accuracy", "train_ce")
"""Metrics of the page HPARAMS."""


class TensorBoard:
    """See `tracker.Tracker`."""

    key, name = "tensorboard", "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = folder.name  # the results folder may move, with what is in it

    def open(self, trial: Tracked, run_id: str | None) -> EventFiles:
        """The run in this folder below ours, or a new one in a folder with the trial's name, numbered if another trial has it."""
        if run_id is None:
            name = re.sub(r"\W+", "-", trial.short_name)
            numbered = (f"{trial.arm}/{name}" + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
            run_id = next(each for each in numbered if not (self._folder / each).exists())
        return EventFiles(self._folder, run_id, trial)


class EventFiles:
    """See `tracker.Run`."""

    def __init__(self, root: Path, run_id: str, trial: Tracked) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = root / run_id
        self.id, self.new = run_id, not any(folder.glob("events.out.tfevents.*"))
        # A file's name has whole seconds only, and an existing file would be overwritten.
        self._writer = SummaryWriter(str(folder), filename_suffix=f".{time.time_ns()}")
        experiment, session, self._ended = hparams({**trial.tags, **trial.settings}, dict.fromkeys(COMPARED, 0.0))
        if self.new:
            self._writer.file_writer.add_summary(experiment)
            self._writer.file_writer.add_summary(session)

    def log(self, points: Points) -> None:
        """Add points, and write them to the file at once."""
        for step, values in points:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, state: State, numbers: Mapping[str, float], texts: Mapping[str, str], step: int) -> None:
        """Add the final numbers, and the texts as a note."""
        self.log([(step, numbers)])
        rows = "\n".join(f"| {name} | {text} |" for name, text in {"state": state, **texts}.items())
        self._writer.add_text("trial", f"| | |\n|---|---|\n{rows}", step)
        self._writer.file_writer.add_summary(self._ended)
        self._writer.close()

    def leave(self) -> None:
        """Close the file."""
        self._writer.close()
