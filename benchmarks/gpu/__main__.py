"""The first eight minutes on a GPU: its properties, whether packed training is correct on it, its speed, and whether trials and sweeps run.

    python -m benchmarks.gpu --out DIR [--data DIR] [--only PART ...] [--small]

Writes DIR/<part>.json, DIR/log.txt and DIR/table.txt. If a part fails, crashes or exceeds its limit, that is recorded, the next one runs,
and the exit code is 1. Without CUDA every part runs in its small form on the CPU: tiny models, a few steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.form import Form
from benchmarks.gpu.parts import PARTS, SMALL_LIMIT_S, Part
from benchmarks.gpu.runner import run_parts
from benchmarks.gpu.table import any_failed, table


def main(argv: Sequence[str] | None = None, parts: dict[str, Part] = PARTS) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with synth_train.jsonl and gsm8k_train.jsonl (or _test)")
    parser.add_argument("--only", nargs="+", choices=parts, metavar="PART", help=f"some of: {', '.join(parts)}")
    parser.add_argument("--small", action="store_true", help="tiny models and a few steps, even on a GPU")
    options = parser.parse_args(argv)
    device = device_of_this_machine()
    small = options.small or device == "cpu"
    if device == "cpu":
        print("No CUDA here: every part runs in its small form on the CPU, and its speeds say nothing about a GPU.", flush=True)
    form = Form(options.out.resolve(), device, small, options.data.resolve() if options.data is not None else None)
    form.folder.mkdir(parents=True, exist_ok=True)
    (form.folder / "log.txt").unlink(missing_ok=True)
    chosen = [part for name, part in parts.items() if options.only is None or name in options.only]
    if small:
        chosen = [replace(part, limit_s=max(part.limit_s, SMALL_LIMIT_S)) for part in chosen]
    records = run_parts(chosen, form, print_state)
    text = table(records)
    (form.folder / "table.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}", flush=True)
    return int(any_failed(records))


def device_of_this_machine() -> str:
    """`cuda` or `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def print_state(record: dict[str, Any]) -> None:
    """Print one line when a part ends."""
    print(f"{record['part']}: {record['state']} after {record['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
