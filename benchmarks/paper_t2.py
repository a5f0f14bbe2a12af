"""Table 2 of the paper without pretrained weights: Llama-3.2-1B from random weights on NL-RX-SYNTH, baseline against LLM-JEPA.

    python -m benchmarks.paper_t2 prepare FOLDER --data DIR --tokenizer FILE
    python -m benchmarks.paper_t2 run FOLDER --results DIR [--seeds N] [--minutes M] [--small] [--json]

`prepare` writes all that a machine without network needs (20 MB): the examples, the shape of Llama-3.2-1B, and Llama 3's tokenizer. `run`
trains the two arms on seeds 1 to N, one seed of both arms after another, and prints the table with the paper's numbers. Its results folder
is that of a sweep without a search: the paper's settings are used as they are. It runs in this process, without Ray. When the time is up,
or at Ctrl-C, it stops; the same command continues with the checkpoint of the trial that was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.llama3_checkpoint import write_shape, write_tiny_checkpoint, write_tokenizer
from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, arms, config_id
from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.sources import read
from jepa_ray.orchestration.jobs import Job, TrialResources, confirmation, write
from jepa_ray.orchestration.sweep_folder import lock_folder
from jepa_ray.plan.load import load_sweep
from jepa_ray.results import TrialResult

FAMILY, TASK = "llama3", "nl-rx"
TRAIN, TEST = "synth_train.jsonl", "synth_test.jsonl"
SEEDS = 3
RESERVE_S, RESERVE_SHARE = 60.0, 0.15
"""Time before the limit at which the running trial is saved: these seconds, or this share of a short limit."""
SHOWN = (
    *("test_prefix", "test_accuracy", "test_stopped", "train_ce", "steps", "train_seconds", "val_seconds", "test_seconds"),
    *("wall_seconds", "train_flops", "peak_memory_bytes"),
)
"""Columns of the trials table that are printed when a trial ends."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. 0: done; 1: a trial FAILED, or the time was up before the last one; 2: bad input."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper_t2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="prepare|run")
    preparing = commands.add_parser("prepare", help="write a folder with data, shape and tokenizer")
    preparing.add_argument("folder", type=Path, metavar="FOLDER")
    preparing.add_argument("--data", type=Path, required=True, metavar="DIR", help=f"folder with {TRAIN} and {TEST}")
    preparing.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="FILE",
        help="Llama 3's tokenizer.model, in tiktoken's format: llama_models/llama3/tokenizer.model of the PyPI package llama-models",
    )
    running = commands.add_parser("run", help="train both arms, or the rest of them, and print the table")
    running.add_argument("folder", type=Path, metavar="FOLDER", help="what `prepare` wrote")
    running.add_argument("--results", type=Path, required=True, metavar="DIR", help="results folder, as of a sweep")
    running.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"seeds per arm (default {SEEDS})")
    running.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="stop after this time (default: no limit)")
    running.add_argument("--small", action="store_true", help="a tiny network, 100 examples, one epoch")
    running.add_argument("--json", action="store_true", help="print the figures as one JSON line, after the table")
    options = parser.parse_args(argv)
    try:
        if options.command == "prepare":
            print(prepare_folder(options.folder, options.data, options.tokenizer))
            return 0
        if options.seeds < 1 or not options.minutes > 0:
            raise ValueError(f"--seeds {options.seeds} --minutes {options.minutes:g}: both must be positive")
        limit = Limit(began + 60 * options.minutes, min(RESERVE_S, RESERVE_SHARE * 60 * options.minutes))
        return run(options.folder, options.results, options.seeds, limit, small=options.small, as_json=options.json)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def prepare_folder(folder: Path, data: Path, tokenizer: Path) -> str:
    """Write everything that `run` reads; one sentence about it. ValueError if a file is missing or malformed."""
    if missing := [name for name in (TRAIN, TEST) if not (data / name).is_file()]:
        raise ValueError(
            f"--data {data}: contains no {' and no '.join(missing)}; copy datasets/ of the paper's repository (rbalestr-lab/llm-jepa)"
        )
    examples = {name: read(DATASETS[TASK], str(data / name)) for name in (TRAIN, TEST)}
    folder.mkdir(parents=True, exist_ok=True)
    write_shape(folder)
    tokens = write_tokenizer(tokenizer, folder, examples[TRAIN])
    for name in (TRAIN, TEST):
        shutil.copyfile(data / name, folder / name)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    counts = " and ".join(f"{len(sample)} of {name}" for name, sample in examples.items())
    return f"{folder}: {size:.0f} MB; {counts}; a conversation has {tokens:.1f} tokens on average"


def definition(folder: Path, output: Path, seeds: int, *, gpu: bool, small: bool) -> SweepConfig:
    """The sweep. ValueError if it is refused, with the reasons.

    As `search_spaces/paper/t2-scratch.yaml` at the paper's best setting. Nothing is selected on validation, so that it has fewer examples
    and training more.
    """
    model = folder
    if small:
        model = output.with_name(f"{output.name}-model")
        write_tiny_checkpoint(folder, model)
    sizes: dict[str, Any] = {"num_train": 100, "num_val": 16, "num_test": 16} if small else {"num_val": 128}
    optim = (
        {"learning_rate": 1e-3, "num_epochs": 1, "batch_size": 20} if small else {"learning_rate": 8e-5, "num_epochs": 4, "batch_size": 128}
    )
    return load_sweep(
        {
            "name": output.name,
            "output": str(output.parent),
            "families": [FAMILY],
            "model": str(model),
            "task": TASK,
            "data": {"train": str(folder / TRAIN), "test": str(folder / TEST), **sizes},
            "methods": {"baseline": "none", "jepa": {"distance": "cosine", "lambda": 2, "k": 3}},
            "search": {"num_trials": 1, "metric": "val_prefix"},
            "scheduler": {"name": "none"},
            "confirm": {"seeds": list(range(1, seeds + 1)), "equal_flops": False},
            "resources": {"gpus_per_worker": int(gpu), "cpus_per_worker": 1 if small else min(4, len(os.sched_getaffinity(0)))},
            "base": {
                "model": {"init": "random"},
                "optim": optim,
                "evaluation": {"diagnostic_pairs": 0, "max_new_tokens": 16 if small else None},
                "seed": 0,
            },
        }
    )


@dataclass(frozen=True)
class Limit:
    """When to stop, by `time.monotonic`."""

    at: float = math.inf
    reserve: float = RESERVE_S
    """Seconds before the end at which the running trial is saved."""

    def left(self) -> float:
        """Seconds until the running trial is saved; no trial starts later."""
        return self.at - self.reserve - time.monotonic()

    def checkpoint_minutes(self, usual: float) -> float:
        """Minutes to the next checkpoint of a trial that starts now."""
        return min(usual, max(0.0, self.left()) / 60)

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """KeyboardInterrupt at the limit, and at SIGTERM."""

        def stop(number: int, frame: Any) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, stop)
        seconds = min(self.at - time.monotonic(), threading.TIMEOUT_MAX)
        timer = threading.Timer(max(0.0, seconds), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            signal.signal(signal.SIGTERM, before)


def run(folder: Path, output: Path, seeds: int, limit: Limit, *, small: bool, as_json: bool) -> int:
    """Train what is not COMPLETE yet, print the table, and return the exit code."""
    folder, output = folder.resolve(), output.resolve()
    if missing := [name for name in ("config.json", "tokenizer.json", TRAIN, TEST) if not (folder / name).is_file()]:
        raise ValueError(f"{folder} contains no {', '.join(missing)}; write it with `python -m benchmarks.paper_t2 prepare {folder} ...`")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sweep = definition(folder, output, seeds, gpu=device == "cuda", small=small)
    ended = ""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(sweep, extend=True))  # more seeds extend the sweep
        except ValueError as error:
            raise ValueError(f"--results {output}: cannot be continued by this command; name another folder. {error}") from error
        try:
            with limit.enforced():
                ended = train(sweep, output, device, limit)
        except KeyboardInterrupt:
            ended = "Stopped."
        done = complete(sweep, output)
        print(f"\n{ended} {len(done)} of {2 * seeds} trials are complete.", flush=True)
        if len(done) < 2 * seeds:
            print("The same command continues.", flush=True)
        print(f"\n{table(output)}", flush=True)
    if as_json:
        print(json.dumps({"benchmark": "paper T2", "device": device, "small": small, "trials": done}), flush=True)
    return int(len(done) < 2 * seeds)


def train(sweep: SweepConfig, folder: Path, device: str, limit: Limit) -> str:
    """Train the trials that are not COMPLETE, in turn; how it ended, in words."""
    from jepa_ray.preparation.prepare import prepare
    from jepa_ray.training.device import clear, works
    from jepa_ray.training.runtime import Runtime
    from jepa_ray.training.trial import run_trial

    resources = TrialResources(cpus=sweep.resources.cpus_per_worker, gpus=float(device == "cuda"))
    began = time.monotonic()
    prepared = prepare(sweep, FAMILY, TASK)
    print(f"Data and tokenizer: {time.monotonic() - began:.1f} s, {len(prepared.train)} training examples", flush=True)
    for job in jobs(sweep, folder, prepared.identity + resources.place):
        if limit.left() <= 0:
            return "The time is up."
        name = f"{job.arm.partition('/')[0]}, seed {job.config.seed}"
        print(f"{name}: {'continues' if job.scratch.exists() else 'starts'}", flush=True)
        minutes = limit.checkpoint_minutes(sweep.resources.checkpoint_minutes)
        runtime = Runtime(device=device, num_threads=resources.cpus, checkpoint_minutes=minutes)

        def report(metrics: dict[str, float], name: str = name) -> None:
            print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if isinstance(value, float)), flush=True)

        try:
            result = run_trial(job.config, prepared, runtime, report, job.scratch)
        except Exception as error:  # of this trial only, unless the device is lost
            result = TrialResult(state="FAILED", error=f"{type(error).__name__}: {error}", summary={"finished_at": results.now()})
        write(job, result)
        print(f"{name}: {result.state} {result.error or figures(result)}", flush=True)
        if not works(device):
            return f"{device} stopped responding after {name}."
        clear(device)
    return "Done."


def jobs(sweep: SweepConfig, folder: Path, inputs: str) -> Iterator[Job]:
    """Confirmations that are not COMPLETE, both arms on one seed before the next; those that FAILED are tried again.

    `inputs`: the inputs that determine a trial's results but are not in its configuration.
    """
    earlier = results.read_trials(folder, ["trial_id", "config_id", "state"])
    for seed in sweep.confirm.seeds:
        for arm in arms(sweep):
            config = confirmation(plan.trial_config(sweep, arm, {}), seed)
            identity = config_id(config, inputs)
            attempts = earlier[earlier["config_id"] == identity]
            if (attempts["state"] == "COMPLETE").any():
                continue
            attempt = 1 + max(map(results.attempt_of, attempts["trial_id"]), default=0)
            yield Job(results.attempt_id(identity, attempt), identity, arm.name, "confirm", folder, config)


def figures(result: TrialResult) -> str:
    """The final figures of a trial, in one line."""
    shown = {name: result.summary.get(name) for name in SHOWN}
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if isinstance(value, (int, float)))


def complete(sweep: SweepConfig, folder: Path) -> list[dict[str, Any]]:
    """The COMPLETE trials on the sweep's seeds: arm, seed and figures."""
    rows = results.read_trials(folder)
    rows = rows[(rows["state"] == "COMPLETE") & rows["seed"].isin(sweep.confirm.seeds)].sort_values(["seed", "arm"])
    kept = [name for name in ("method", "seed", "device", *SHOWN) if name in rows]
    return [{str(name): None if value != value else value for name, value in row.items()} for row in rows[kept].to_dict("records")]


def table(folder: Path) -> str:
    """Table 2 of a results folder, next to the paper's numbers."""
    from analysis.artefacts import find
    from analysis.inputs.sweep import read as read_results
    from analysis.paper import show

    return show(find("T2"), read_results(folder))


if __name__ == "__main__":
    sys.exit(main())
