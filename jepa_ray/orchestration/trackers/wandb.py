"""Weights & Biases: a run per trial, grouped by arm; its stage is the job type, and its id, stage and seed are tags.

All runs are written by this process, so only the machine that the sweep was started on needs an API key. Without one, runs are kept
offline: nothing asks for a key or waits for it. If this process is killed (not stopped), the run lacks the points of the last seconds,
which the package had not written: its steps can only go forward. The tables have them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jepa_ray.config import WandbConfig
from jepa_ray.orchestration.trackers.tracker import Points, Tracked
from jepa_ray.results import State

LONGEST = 128
"""Characters of a run's name or group that the server accepts."""
PATIENCE_S = 30
"""Seconds to wait for the server to accept a run, and at its end for the rest of it to arrive."""


class WeightsAndBiases:
    """See `tracker.Tracker`."""

    key, name = "wandb", "Weights & Biases"

    def __init__(self, config: WandbConfig, folder: Path, say: Callable[[str], None]) -> None:
        self._config, self._folder, self._say = config, folder, say
        self._mode: Literal["online", "offline"] | None = None
        self.where = "/".join(filter(None, (config.entity, config.project)))

    def open(self, trial: Tracked, run_id: str | None) -> WandbRun:
        """The run with this id, or a new one."""
        import wandb

        if self._mode is None:
            self._mode = self._possible()
        settings = wandb.Settings(
            console="off",  # the driver's output is not the trial's
            x_disable_stats=True,  # nor is its machine
            disable_git=True,
            disable_code=True,
            silent=True,
            init_timeout=PATIENCE_S,
            finish_timeout=PATIENCE_S,
            finish_timeout_raises=True,
        )
        new, run_id = run_id is None, run_id or uuid.uuid4().hex[:16]
        run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            mode=self._mode,
            dir=self._folder,
            id=run_id,
            resume="allow",
            reinit="create_new",
            name=trial.name[:LONGEST],
            group=trial.arm[:LONGEST],
            job_type=trial.stage,
            tags=[trial.trial_id, trial.stage, f"seed {trial.seed}"],
            config={**trial.tags, **trial.settings},
            settings=settings,
        )
        return WandbRun(run, run_id, new=new)

    def _possible(self) -> Literal["online", "offline"]:
        """The mode that the file asks for; offline, with a sentence, without an API key (in WANDB_API_KEY, or from `wandb login`)."""
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))  # the console is the sweep's
        if self._config.mode == "offline" or wandb.login(prompt=False, verify=False):
            return self._config.mode
        kept = f"Its runs are kept in {self._folder / 'wandb'}; `wandb sync` sends them."
        self._say(f"{self.name} has no API key (WANDB_API_KEY, or `wandb login`). {kept}")
        return "offline"


class WandbRun:
    """See `tracker.Run`."""

    def __init__(self, run: Any, run_id: str, *, new: bool) -> None:
        self._run, self.id, self.new = run, run_id, new

    def log(self, points: Points) -> None:
        """Add points to its history."""
        for step, values in points:
            self._run.log(dict(values), step=step)

    def end(self, state: State, numbers: Mapping[str, float], texts: Mapping[str, str], step: int) -> None:
        """Add the final numbers and texts to its summary."""
        self._run.summary.update({"state": state, **numbers, **texts})
        self._run.finish(exit_code=int(state == "FAILED"))

    def leave(self) -> None:
        """End it as interrupted; the next `open` continues it."""
        self._run.finish(exit_code=130)
