"""One trial, from configuration to result: the paper's procedure (its training is in `fine_tuning.py`).

    network  <- checkpoint (+ LoRA) (+ k predictor tokens)
    for each epoch (within the FLOPs budget):
        for each batch of the epoch's order:
            one step on  gamma * CE(answer) + lambda * d(Pred(Enc(Text)), Enc(Code))        (`step.py`)
            save if it is time                                                              (`saving.py`)
        generate and judge on validation (after steps within the epoch too, if `evaluation.at_steps` says so); report
    at the end, in the confirmation stage only: generate and judge once on the sealed test split

Independent of Ray: `runtime` identifies the worker, `report` receives metrics. Writes only the working checkpoint and `progress.json`
under `scratch`; the caller writes the tables.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from jepa_ray.config import TrialConfig
from jepa_ray.results import TrialResult, load_progress, now, provenance
from jepa_ray.system import heap
from jepa_ray.training.chance import chance
from jepa_ray.training.device import make_ready
from jepa_ray.training.diagnostics.alarms import add_alarm
from jepa_ray.training.fine_tuning import Report, Run, fine_tune
from jepa_ray.training.first_stage import stages, train_first_stage
from jepa_ray.training.packing_check import PackingError
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import NonFinite, Runtime


def run_trial(config: TrialConfig, prepared: Prepared, runtime: Runtime, report: Report, scratch: Path) -> TrialResult:
    """Train and evaluate one configuration.

    Every worker of a trial calls this; all return the same metrics, and rank 0's result counts. Resumes from the checkpoint in
    `scratch`, if any. Every rank calls `report` after each validation except the last, once `progress.json` is on disk; an interrupted
    trial may report a validation again, with the same numbers.

    Returns:
        state COMPLETE, or FAILED with the reason if training itself failed (non-finite loss, packing self-check, out of memory).
    """
    began = time.perf_counter()
    make_ready(runtime.device)
    progress = _start(config, prepared, runtime, scratch)
    try:
        first, config = stages(prepared.resolve(config))
        if first is not None:
            prepared, progress = _first_stage(first, prepared, runtime, scratch, progress)
        return fine_tune(Run(config, prepared, runtime, report, scratch), progress, began)
    except (NonFinite, PackingError, torch.OutOfMemoryError, ValueError) as error:
        return failed(error, load_progress(scratch / "progress.json") or progress)
    finally:
        heap.give_back()


def failed(error: Exception, latest: TrialResult) -> TrialResult:
    """The result of a trial that failed in training: what it had reached, the reason, and the alarm of a loss that is not finite."""
    last = {name: value for name, value in latest.summary.items() if name in ("train_ce", "train_jepa", "val_accuracy")}
    text = f"{type(error).__name__}: {error}" + (f" (last finite values: {last})" if last else "")
    alarms = {"alarms": add_alarm(latest.summary.get("alarms"), "non-finite")} if isinstance(error, NonFinite) else {}
    return replace(latest, state="FAILED", error=text, summary=latest.summary | alarms | {"finished_at": now()})


def _first_stage(
    first: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path, progress: TrialResult
) -> tuple[Prepared, TrialResult]:
    """Train the first stage; return the inputs of the fine-tuning, which starts from its checkpoint, and the progress with its losses."""
    torch.set_num_threads(runtime.num_threads)
    first_stage = train_first_stage(first, prepared, runtime, scratch)
    summary = {**progress.summary, "pretrained_sha": first_stage.sha, **first_stage.losses[-1]}
    progress = replace(progress, summary=summary)
    return replace(prepared, checkpoint=first_stage.folder, revision=None, first_stage=first_stage), progress


def _start(config: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path) -> TrialResult:
    """The progress so far, or a new record with the facts known before training."""
    progress = load_progress(scratch / "progress.json")
    if progress is not None:
        return progress
    facts = {
        "dataset_sha": prepared.dataset_sha,
        "device": runtime.device,
        "num_workers": runtime.world_size,
        "train_examples": len(prepared.train),
        "chance": chance(config, prepared, prepared.val),
        **prepared.facts,
    }
    return TrialResult(state="RUNNING", error=None, summary={**provenance(), **facts}, metrics=[], predictions=[])
