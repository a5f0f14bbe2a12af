"""The first eight minutes on a GPU: what it is, whether packed training is right on it, how fast it is, and whether trials and sweeps run.

    python -m benchmarks.gpu --out DIR [--data DIR] [--only PART ...] [--small]

Writes DIR/<part>.json, DIR/log.txt and DIR/table.txt. A part that fails, crashes or runs over its limit is recorded, and the next one runs;
exit code 1 if there was any. Without CUDA every part runs in its small form on the CPU: tiny models, a few steps.
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


def main(argv: Sequence[str] | None = None, known: dict[str, Part] = PARTS) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with synth_train.jsonl and gsm8k_train.jsonl (or _test)")
    parser.add_argument("--only", nargs="+", choices=known, metavar="PART", help=f"some of: {', '.join(known)}")
    parser.add_argument("--small", action="store_true", help="tiny models and a few steps on a GPU, too")
    options = parser.parse_args(argv)
    device = device_of_this_machine()
    small = options.small or device == "cpu"
    if device == "cpu":
        print("No CUDA here: every part runs in its small form on the CPU, and its speeds say nothing of a GPU.", flush=True)
    form = Form(options.out.resolve(), device, small, options.data.resolve() if options.data is not None else None)
    form.folder.mkdir(parents=True, exist_ok=True)
    (form.folder / "log.txt").unlink(missing_ok=True)
    chosen = [part for name, part in known.items() if options.only is None or name in options.only]
    if small:
        chosen = [replace(part, limit_s=max(part.limit_s, SMALL_LIMIT_S)) for part in chosen]
    records = run_parts(chosen, form, told)
    text = table(records)
    (form.folder / "table.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}", flush=True)
    return int(any_failed(records))


def device_of_this_machine() -> str:
    """`cuda` or `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def told(record: dict[str, Any]) -> None:
    """A line as each part ends."""
    print(f"{record['part']}: {record['state']} after {record['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
