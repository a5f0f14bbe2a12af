"""Runs parts one after another, each in its own process group; regardless of how one ends, the next one starts.

<folder>/<part>.json gets the part's figures and final state; <folder>/log.txt its whole output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.form import Form, read, write
from benchmarks.gpu.part import SKIPPED
from benchmarks.gpu.parts import Part

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 2.0
"""Seconds between SIGTERM at the end of a part's time and SIGKILL; both are within its limit."""
MARGIN_S = 4.0
"""The part's own deadline (`Form.until`) is this many seconds before the SIGTERM."""
STDERR_LINES = 20
"""Number of lines kept from a part that failed."""
Record = dict[str, Any]


def run_parts(parts: Iterable[Part], form: Form, report: Callable[[Record], None] = lambda record: None) -> list[Record]:
    """Run all parts; `report` gets each record when its part ends. Together they take no longer than the sum of their limits."""
    form.folder.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    spare = 0.0
    for part in parts:
        if part.takes_spare and not form.small:
            part = replace(part, limit_s=round(part.limit_s + spare, 1))
            spare = 0.0
        record = run_part(part, form)
        spare = max(0.0, spare + part.limit_s - record["seconds"])
        records.append(record)
        report(record)
    return records


def run_part(part: Part, form: Form) -> Record:
    """Run one part and write its record. Its state is ok, skipped, failed, or timed out."""
    path = form.folder / f"{part.name}.json"
    path.unlink(missing_ok=True)
    grace = min(GRACE_S, part.limit_s / 4)
    began = time.time()
    form = replace(form, until=began + part.limit_s - grace - min(MARGIN_S, part.limit_s / 4))
    output = [form.folder / f".{part.name}.{stream}" for stream in ("stdout", "stderr")]
    with output[0].open("wb") as stdout, output[1].open("wb") as stderr:
        process = subprocess.Popen(
            command(part, path, form), stdout=stdout, stderr=stderr, cwd=ROOT, env=environment(form), start_new_session=True
        )
        in_time = _wait(process, began + part.limit_s, grace)
    output_texts = [file.read_text(encoding="utf-8", errors="replace") for file in output]
    _log(form.folder, part, output_texts)
    for file in output:
        file.unlink()
    saved = read(path)
    record: Record = {
        "part": part.name,
        "state": _state(process.returncode, in_time),
        "form": "small" if form.small else "full",
        "device": form.device,
        "seconds": round(time.time() - began, 1),
        "limit_s": part.limit_s,
        "headline": saved.get("headline", ""),
        "error": None,
        "stderr": [],
        "figures": saved.get("figures", {}),
    }
    if record["state"] != "ok":
        lines = [line for line in output_texts[1].splitlines() if line.strip()]
        record["error"] = _error(process.returncode, in_time, part.limit_s, lines)
        record["stderr"] = lines[-STDERR_LINES:]
    write(path, record)
    return record


def command(part: Part, path: Path, form: Form) -> list[str]:
    """The command line that runs one part in its own process."""
    words = [sys.executable, "-m", "benchmarks.gpu.part", part.target, "--record", str(path), "--device", form.device]
    words += ["--until", repr(form.until)]
    words += ["--small"] if form.small else []
    words += ["--data", str(form.data)] if form.data is not None else []
    return words


def environment(form: Form) -> dict[str, str]:
    """No internet, no writing outside the folder, and one thread, the default for a sweep's trials."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "JEPA_RAY_CACHE": str(form.scratch("cache")),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def _wait(process: subprocess.Popen[bytes], limit: float, grace: float) -> bool:
    """Whether the process ended on its own before its limit. Its whole group is killed afterwards."""
    try:
        process.wait(max(0.0, limit - grace - time.time()))
        return True
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.time()))
        return False
    finally:  # also after Ctrl-C, which does not reach the group, and for processes that the part left behind
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _state(code: int, in_time: bool) -> str:
    if not in_time:
        return "timed out"
    return {0: "ok", SKIPPED: "skipped"}.get(code, "failed")


def _error(code: int, in_time: bool, limit_s: float, lines: list[str]) -> str:
    if not in_time:
        return f"ran over its limit of {limit_s:g} s"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return lines[-1].strip() if lines else f"exit code {code}"


def _log(folder: Path, part: Part, texts: list[str]) -> None:
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"===== {part.name}\n")
        for name, text in zip(("stdout", "stderr"), texts, strict=True):
            if text.strip():
                log.write(f"----- {name}\n{text.rstrip()}\n")
