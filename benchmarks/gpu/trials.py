"""A whole trial in this process; at the same time, a small one that is killed after its first checkpoint and resumed, against an
uninterrupted one.

On a CPU the resumed trial must end in the same numbers to the last digit. On a GPU the order of sums varies: differences are reported.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu import models
from benchmarks.gpu.form import Findings, Form, read
from benchmarks.gpu.one_trial import config_for, prepared_for
from jepa_ray.config import LoraConfig
from jepa_ray.training.trial import run_trial

SHOWN = (
    *("train_seconds", "val_seconds", "wall_seconds", "diag_seconds", "peak_memory_bytes", "attention_error", "num_parameters"),
    *("num_trainable", "steps", "train_tokens", "train_ce", "train_jepa", "val_accuracy", "packing_used", "device"),
)
"""Columns of the trials table that are kept."""
POLL_S = 0.01


def run(form: Form, findings: Findings) -> None:
    """The part. RuntimeError if a trial did not complete, or did not resume where it stopped."""
    shutil.rmtree(form.scratch("trial"))
    with ThreadPoolExecutor(1) as pool:
        small = pool.submit(killed_and_resumed, form)
        whole = end_to_end(form)
        findings.note({"end_to_end": whole}, headline_of(whole))
        resume = small.result()
    findings.note({"resume": resume}, f"{headline_of(whole)}; killed and resumed: {resume['verdict']}")
    shutil.rmtree(form.scratch("trial"))
    if whole["state"] != "COMPLETE":
        raise RuntimeError(f"the trial ended as {whole['state']}: {whole['error']}")
    if not (resume["went_on"] and (resume["identical"] or form.device == "cuda")):
        raise RuntimeError(f"the trial that was killed and resumed: {resume['verdict']}")


def end_to_end(form: Form) -> dict[str, Any]:
    """One trial through `run_trial`: Llama-3.2-1B's shapes with LoRA, two epochs; or the tiny one."""
    began = time.perf_counter()
    folder = form.scratch("trial")
    checkpoint = "tiny" if form.small else str(models.write_checkpoint(form, folder / "checkpoint"))
    train, val, size = (32, 8, 8) if form.small else (512, 64, 128)
    prepared = prepared_for(form, checkpoint, train=train, val=val)
    config = config_for(prepared, lora=LoraConfig(), epochs=2, batch_size=size, max_new_tokens=8 if form.small else 32, learning_rate=1e-5)
    ready = time.perf_counter()
    result = run_trial(config, prepared, models.runtime(form), lambda metrics: None, folder / "whole")
    return {
        "state": result.state,
        "error": result.error,
        "model": "tiny" if form.small else "Llama-3.2-1B's shapes, random weights",
        "beside": "another process trains the small trial on the same card",
        "prepare_s": ready - began,
        "run_trial_s": time.perf_counter() - ready,
        **{name: result.summary.get(name) for name in SHOWN},
    }


def killed_and_resumed(form: Form) -> dict[str, Any]:
    """The small trial three times: uninterrupted; killed at its first checkpoint; and resumed from there."""
    folder = form.scratch("trial")
    alone, again = folder / "alone", folder / "again"
    others = [_start(form, alone), _start(form, again)]
    try:
        killed_after = _kill_at_checkpoint(others[1], again, form)
        others.append(_start(form, again))
        codes = [process.wait(max(1.0, form.left())) for process in (others[0], others[2])]
    finally:
        for process in others:
            process.kill()
            process.wait()
    if any(codes):
        errors = [read(_result(scratch)).get("error") or "see the log" for scratch, code in zip((alone, again), codes, strict=True) if code]
        raise RuntimeError(f"a small trial failed: {'; '.join(errors)}")
    return compared(read(_result(alone)), read(_result(again))) | {"killed_after_s": killed_after}


def _result(scratch: Path) -> Path:
    return scratch.with_suffix(".json")


def _start(form: Form, scratch: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.gpu.one_trial", "--scratch", str(scratch), "--result", str(_result(scratch))]
    command += ["--device", form.device, *(["--data", str(form.data)] if form.data is not None else [])]
    return subprocess.Popen(command)


def _kill_at_checkpoint(process: subprocess.Popen[bytes], scratch: Path, form: Form) -> float:
    """Kill the trial once its first checkpoint is on disk; seconds from its start."""
    began = time.perf_counter()
    while not any(scratch.glob("checkpoint*")):
        if process.poll() is not None:
            raise RuntimeError(f"the trial to be killed ended before its first checkpoint, with exit code {process.returncode}")
        if form.left() < 0:
            raise RuntimeError("the trial to be killed wrote no checkpoint in time")
        time.sleep(POLL_S)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("the trial ended before it could be killed")
    return time.perf_counter() - began


def compared(alone: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """The final numbers of both trials, and their differences."""
    names = alone["numbers"].keys() | again["numbers"].keys()
    pairs = {name: (alone["numbers"].get(name), again["numbers"].get(name)) for name in sorted(names)}
    apart = {name: abs(a - b) for name, (a, b) in pairs.items() if isinstance(a, (int, float)) and isinstance(b, (int, float))}
    identical = all(alone[part] == again[part] for part in ("numbers", "lines", "predictions"))
    went_on = 0 in alone["trained"] and 0 not in again["trained"]
    same = [a == b for a, b in zip(alone["predictions"], again["predictions"], strict=True)]
    verdict = "began anew" if not went_on else "identical" if identical else f"differs by up to {max(apart.values(), default=0.0):.2g}"
    return {
        "verdict": verdict,
        "went_on": went_on,
        "identical": identical,
        "uninterrupted": alone["numbers"],
        "resumed": again["numbers"],
        "differences": apart,
        "same_predictions": sum(same) / len(same),
        "first_step": {"uninterrupted": min(alone["trained"]), "resumed": min(again["trained"], default=None)},
    }


def headline_of(whole: dict[str, Any]) -> str:
    """The whole trial in one line."""
    return f"{whole['state']} in {whole['run_trial_s']:.1f} s, data and checkpoint {whole['prepare_s']:.1f} s"
