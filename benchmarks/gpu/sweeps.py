"""Sweeps of the tiny Llama through the command line, with half a GPU and a whole GPU per trial; without a GPU, one sweep on the CPU."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu.form import Findings, Form, Skipped
from jepa_ray.results import read_trials

TRIALS = 2


def run(form: Form, findings: Findings) -> None:
    """The part. RuntimeError if a sweep did not end as expected."""
    try:
        import ray
    except ImportError as error:
        raise Skipped("Ray is not installed") from error
    findings.note({"ray": ray.__version__, "sweeps": {}})
    shares = (0.5, 1.0) if form.device == "cuda" else (0.0,)
    outcomes: dict[str, dict[str, Any]] = {}
    for number, share in enumerate(shares):
        name = f"gpus_per_worker {share:g}"
        outcomes[name] = sweep(form, share, form.left() / (len(shares) - number))
        headline = "; ".join(f"{title}: {one['complete']} of {one['trials']} in {one['seconds']:.0f} s" for title, one in outcomes.items())
        findings.note({"sweeps": outcomes}, headline)
    wrong = [f"{name}: {one['error']}" for name, one in outcomes.items() if one["error"]]
    if wrong:
        raise RuntimeError("; ".join(wrong))


def sweep(form: Form, share: float, seconds: float) -> dict[str, Any]:
    """Run one sweep and check its trials; `error` says what is wrong."""
    name = f"gpus-{share:g}".replace(".", "-")
    file = form.scratch("ray") / f"{name}.yaml"
    file.write_text(yaml.safe_dump(definition(form, name, share), sort_keys=False), encoding="utf-8")
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "jepa_ray.sweep", str(file), "--fresh"])
    try:
        code: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # the sweep then ends in order and stops Ray
        code = None
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    spent = time.perf_counter() - began
    rows = _trials(file.parent / name)
    devices = sorted({str(row["device"]) for row in rows})
    complete = sum(row["state"] == "COMPLETE" for row in rows)
    wanted = form.device if share else "cpu"
    errors = [str(row["error"]) for row in rows if row["state"] == "FAILED"]
    if code is None:
        error = f"not done after {seconds:.0f} s"
    elif code or complete != 2 * TRIALS:
        error = f"exit code {code}, {complete} of {2 * TRIALS} trials complete{': ' if errors else ''}{'; '.join(errors)}"
    else:
        error = "" if devices == [wanted] else f"trained on {', '.join(devices)} instead of {wanted}"
    return {
        "exit_code": code,
        "seconds": spent,
        "trials": 2 * TRIALS,
        "complete": complete,
        "devices": devices,
        "train_seconds": [row["train_seconds"] for row in rows],
        "val_seconds": [row["val_seconds"] for row in rows],
        "error": error,
    }


def definition(form: Form, name: str, share: float) -> dict[str, Any]:
    """The sweep: two arms, a few trials of one epoch, no pre-training and no confirmation."""
    return {
        "name": name,
        "output": str(form.scratch("ray")),
        "methods": {"baseline": "none", "jepa": {"lambda": 1, "k": 1}},
        "model": "tiny",
        "data": {"num_train": 64, "num_val": 8, "num_test": 8},
        "space": {"optim.learning_rate": {"float": [1e-4, 1e-3], "log": True}},
        "search": {"algorithm": "random", "num_trials": TRIALS},
        "scheduler": {"name": "none"},
        "confirm": {"seeds": []},
        # Without a GPU there is nothing to share, and a second process would load torch for a second of training.
        "resources": {"gpus_per_worker": share, "max_concurrent": 2 if share else 1, "dashboard": False, "address": "local"},
        "base": {
            "model": {"init": "random"},
            "optim": {"num_epochs": 1, "batch_size": 16},
            "evaluation": {"max_new_tokens": 8, "diagnostic_pairs": 0},
        },
    }


def _trials(folder: Path) -> list[dict[str, Any]]:
    if not any(folder.glob("trials/[!.]*.parquet")):
        return []
    return [{str(name): value for name, value in row.items()} for row in read_trials(folder).to_dict("records")]
