"""When a trial is diagnosed, what that costs, and what it amounts to: metrics, a few columns, alarms.

At the start and at the end always; at the end of the epochs between while all diagnostics together (failed ones count) have cost no
more FLOPs than `evaluation.diagnostic_share` of training. Where training is so short that start and end alone would cost more, fewer
pairs are looked at, but FEWEST at least. FLOPs and not seconds, and the number of pairs by next-token training's: the same on any
machine, and the same pairs in all arms.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from numpy.linalg import LinAlgError

from jepa_ray.config import TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.training.device import clear, works
from jepa_ray.training.diagnostics.alarms import UNDIAGNOSED, add_alarm, alarms, names
from jepa_ray.training.diagnostics.measure import diagnose, diagnostic_rows, due, embeddings, gradient_metrics
from jepa_ray.training.runtime import NonFinite, Runtime
from jepa_ray.training.state import TrainState

FEWEST = 32
"""Pairs that embeddings can be judged by at all."""
GRADIENT_SHARE = 1 / 8
"""Training examples whose gradients are compared, per pair."""

Measured = TypeVar("Measured")


@dataclass
class Watch:
    """The diagnostics of one trial."""

    config: TrialConfig
    train: TokenTable
    val: TokenTable
    runtime: Runtime
    flops_per_token: int
    """Of training: forward and backward."""
    pairs: int = 0
    """Validation pairs that are looked at."""
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    flops: float = 0.0
    complete: bool = False
    """The latest look was not cut short by an error."""
    failure: str | None = None
    """Why a look failed."""

    def __post_init__(self) -> None:
        if wanted := self.config.evaluation.diagnostic_pairs:
            planned = self.config.optim.num_epochs * float(self.train.lm.lengths.sum())
            affordable = self.config.evaluation.diagnostic_share * planned / (2 * self._tokens(1.0))
            self.pairs = int(min(wanted, max(FEWEST, affordable), len(self.val)))

    def _tokens(self, pairs: float) -> float:
        """What a look at so many pairs costs, in tokens of training: a forward pass is a third of one's cost, and the gradients of two
        terms over an eighth as many examples are a forward and two backward passes."""
        val, train = (float((table.lm.lengths + table.text.lengths + table.code.lengths).mean()) for table in (self.val, self.train))
        return pairs * (val / 3 + GRADIENT_SHARE * train * 5 / 3)

    def look(self, epoch: int, state: TrainState, step: int, total_steps: int, train_flops: float) -> dict[str, float]:
        """Metrics `diag_*` after `epoch` epochs (0: before training); none where it is not their turn. NonFinite where a loss is not."""
        evaluation = self.config.evaluation
        wanted = due(epoch, self.config.optim.num_epochs, train_flops, self.flops, evaluation.diagnostic_share)
        if not self.pairs or not wanted:
            return {}
        # The step's gradients are as large as the weights, and gone by the next step: room for those that are compared here.
        state.optimizer.zero_grad(set_to_none=True)
        started = time.perf_counter()
        found = self._guarded(lambda: self._measured(state))
        self.seconds += time.perf_counter() - started
        self.flops += self.flops_per_token * self._tokens(self.pairs)
        self.complete = bool(found)
        if not found:
            self.history += [{}] if epoch == 0 else []  # alarms that compare with the start then have none
            return {}
        self.history.append(found)
        if not (math.isfinite(found["diag_val_ce"]) and math.isfinite(found["diag_val_jepa"])):
            raise NonFinite(f"diagnostics after epoch {epoch}: cross-entropy {found['diag_val_ce']:g}, JEPA {found['diag_val_jepa']:g}")
        return found

    def _measured(self, state: TrainState) -> dict[str, float]:
        rows = diagnostic_rows(len(self.val), self.pairs, self.config.data.split_seed)
        few = diagnostic_rows(len(self.train), max(1, round(self.pairs * GRADIENT_SHARE)), self.config.data.split_seed)
        term = state.term
        weight = term.weight if term is not None else None  # before its schedule: a warm-up is meant
        found = diagnose(state.network, self.val, self.config, self.runtime, rows, term)
        return found | gradient_metrics(state.network, self.train, self.config, few, term, weight)

    def _guarded(self, look: Callable[[], Measured]) -> Measured | None:
        """What `look` measures; None, and the alarm `undiagnosed`, where it fails: a look needs memory that training did not, and no trial
        is lost over it. A device that computes no more is the caller's to find out."""
        try:
            return look()
        except (RuntimeError, MemoryError, LinAlgError) as error:
            if not works(self.runtime.device):
                raise
            self.failure = f"{type(error).__name__}: {error}"
        clear(self.runtime.device)  # here, where the exception no longer holds what was computed
        logging.getLogger(__name__).warning("a diagnosis failed, and training goes on: %s", self.failure)
        return None

    def keep(self, state: TrainState) -> list[dict[str, Any]]:
        """Lines of the embeddings table: of confirmed trials, after training, where `evaluation.embeddings` asks for them."""
        evaluation = self.config.evaluation
        if not (evaluation.test and evaluation.embeddings):
            return []
        rows = diagnostic_rows(len(self.val), evaluation.embeddings, self.config.data.split_seed)
        return self._guarded(lambda: embeddings(state.network, self.val, self.config, self.runtime, rows)) or []

    def columns(self) -> dict[str, float | str | None]:
        """What the trials table holds of them: losses on validation, time, alarms."""
        if not self.pairs:
            return {"alarms": UNDIAGNOSED} if self.failure is not None else {}
        raised = names(alarms(self.history)) or None
        if self.failure is not None:
            raised = add_alarm(raised, UNDIAGNOSED)
        # Losses of an earlier look are not those of the trained model.
        last = self.history[-1] if self.complete else {}
        return {
            "val_ce": last.get("diag_val_ce"),
            "val_jepa": last.get("diag_val_jepa"),
            "diag_seconds": self.seconds,
            "alarms": raised,
        }

    def state(self) -> dict[str, object]:
        """For the working checkpoint."""
        return {name: getattr(self, name) for name in ("history", "seconds", "flops", "complete", "failure")}

    def resume(self, state: dict[str, object]) -> None:
        """Go on from `state()`, or from that of an earlier version, whose looks were all complete."""
        self.complete = bool(state.get("history"))
        for name, value in state.items():
            setattr(self, name, value)
