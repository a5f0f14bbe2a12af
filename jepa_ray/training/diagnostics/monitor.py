"""When a trial is diagnosed, what that costs, and what it yields: metrics, a few columns, alarms.

A trial is always diagnosed at the start and at the end; after the other epochs only while all its diagnostics (failed ones included)
have cost fewer FLOPs than `evaluation.diagnostic_share` of training. If training is so short that start and end alone would cost more,
fewer pairs are used, but at least FEWEST. The cost is counted in FLOPs, not seconds, and the number of pairs follows from next-token
training alone, so the schedule is the same on any machine, and the pairs are the same in all arms.
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
from jepa_ray.models.network import Network
from jepa_ray.training.device import clear, works
from jepa_ray.training.diagnostics.alarms import UNDIAGNOSED, add_alarm, alarms, names
from jepa_ray.training.diagnostics.measure import diagnose, diagnostic_rows, due, embeddings, gradient_metrics
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.runtime import NonFinite, Runtime
from jepa_ray.training.state import TrainState

FEWEST = 32
"""The smallest number of pairs that says anything about embeddings."""
GRADIENT_SHARE = 1 / 8
"""Training examples for comparing gradients, per pair."""

Measured = TypeVar("Measured")


@dataclass
class Watch:
    """The diagnostics of one trial."""

    config: TrialConfig
    train: TokenTable
    val: TokenTable
    runtime: Runtime
    flops_per_token: int
    """FLOPs of training, forward and backward."""
    pairs: int = 0
    """Validation pairs that are diagnosed."""
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    flops: float = 0.0
    complete: bool = False
    """Whether the latest diagnosis ran without an error."""
    failure: str | None = None
    """Why a diagnosis failed."""

    def __post_init__(self) -> None:
        if wanted := self.config.evaluation.diagnostic_pairs:
            planned = self.config.optim.num_epochs * float(self.train.lm.lengths.sum())
            affordable = self.config.evaluation.diagnostic_share * planned / (2 * self._tokens(1.0))
            self.pairs = int(min(wanted, max(FEWEST, affordable), len(self.val)))

    def _tokens(self, pairs: float) -> float:
        """Cost of diagnosing this many pairs, in tokens of training: a forward pass costs a third of a training token, and the
        gradients of two terms, over an eighth as many examples, take a forward and two backward passes."""
        val, train = (float((table.lm.lengths + table.text.lengths + table.code.lengths).mean()) for table in (self.val, self.train))
        return pairs * (val / 3 + GRADIENT_SHARE * train * 5 / 3)

    def look(self, epoch: int, state: TrainState, step: int, total_steps: int, train_flops: float) -> dict[str, float]:
        """Metrics `diag_*` after `epoch` epochs (0: before training); none if no diagnosis is due. NonFinite if a loss is not finite."""
        evaluation = self.config.evaluation
        wanted = due(epoch, self.config.optim.num_epochs, train_flops, self.flops, evaluation.diagnostic_share)
        if not self.pairs or not wanted:
            return {}
        # The step's gradients are as large as the weights and no longer needed: this makes room for those compared here.
        state.optimizer.zero_grad(set_to_none=True)
        started = time.perf_counter()
        with state.gathered() as network:
            metrics = self._guarded(lambda: self._measured(network, state.term))
        self.seconds += time.perf_counter() - started
        self.flops += self.flops_per_token * self._tokens(self.pairs)
        self.complete = bool(metrics)
        if not metrics:
            self.history += [{}] if epoch == 0 else []  # so that alarms do not compare with a later diagnosis as the start
            return {}
        self.history.append(metrics)
        ce, jepa = metrics["diag_val_ce"], metrics["diag_val_jepa"]
        if not (math.isfinite(ce) and math.isfinite(jepa)):
            raise NonFinite(f"diagnostics after epoch {epoch}: cross-entropy {ce:g}, JEPA {jepa:g}")
        return metrics

    def _measured(self, network: Network, term: Term | None) -> dict[str, float]:
        rows = diagnostic_rows(len(self.val), self.pairs, self.config.data.split_seed)
        few = diagnostic_rows(len(self.train), max(1, round(self.pairs * GRADIENT_SHARE)), self.config.data.split_seed)
        weight = term.weight if term is not None else None  # before its schedule: a small lambda during warm-up is intended
        metrics = diagnose(network, self.val, self.config, self.runtime, rows, term)
        return metrics | gradient_metrics(network, self.train, self.config, few, term, weight)

    def _guarded(self, look: Callable[[], Measured]) -> Measured | None:
        """The result of `look`; None, and the alarm `undiagnosed`, if it fails: a diagnosis needs memory that training does not, and
        must not fail the trial. Errors of a device that no longer computes are raised."""
        try:
            return look()
        except (RuntimeError, MemoryError, LinAlgError) as error:
            if not works(self.runtime.device):
                raise
            self.failure = f"{type(error).__name__}: {error}"
        clear(self.runtime.device)  # here, where the exception no longer keeps tensors alive
        logging.getLogger(__name__).warning("a diagnosis failed; training continues: %s", self.failure)
        return None

    def keep(self, state: TrainState) -> list[dict[str, Any]]:
        """Rows of the embeddings table: for confirmed trials, after training, if `evaluation.embeddings` is set."""
        evaluation = self.config.evaluation
        if not (evaluation.test and evaluation.embeddings):
            return []
        rows = diagnostic_rows(len(self.val), evaluation.embeddings, self.config.data.split_seed)
        with state.gathered() as network:
            return self._guarded(lambda: embeddings(network, self.val, self.config, self.runtime, rows)) or []

    def columns(self) -> dict[str, float | str | None]:
        """Columns of the trials table: validation losses, time, alarms."""
        if not self.pairs:
            return {"alarms": UNDIAGNOSED} if self.failure is not None else {}
        raised = names(alarms(self.history)) or None
        if self.failure is not None:
            raised = add_alarm(raised, UNDIAGNOSED)
        # Losses of an earlier diagnosis are not those of the trained model.
        last = self.history[-1] if self.complete else {}
        return {
            "val_ce": last.get("diag_val_ce"),
            "val_jepa": last.get("diag_val_jepa"),
            "diag_seconds": self.seconds,
            "alarms": raised,
        }

    def state(self) -> dict[str, object]:
        """State for the working checkpoint."""
        return {name: getattr(self, name) for name in ("history", "seconds", "flops", "complete", "failure")}

    def resume(self, state: dict[str, object]) -> None:
        """Resume from `state()`, or from that of an earlier version, whose diagnoses were all complete."""
        self.complete = bool(state.get("history"))
        for name, value in state.items():
            setattr(self, name, value)
