"""One part in this process: `python -m benchmarks.gpu.part TARGET --record FILE ...`. The command starts it once per part.

Exit code 0: the part ran; 3: it does not apply here, and the last line on stderr says why; anything else: it failed.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.form import Findings, Form, Skipped

SKIPPED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the part and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.part", description=__doc__)
    parser.add_argument("target", help="module:function")
    parser.add_argument("--record", type=Path, required=True, help="file for its figures, in the folder of all results")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--until", type=float, default=math.inf, help="seconds since the epoch")
    options = parser.parse_args(argv)
    form = Form(options.record.parent, options.device, options.small, options.data, options.until)
    module, _, function = options.target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(form, Findings(options.record))
    except Skipped as reason:
        print(reason, file=sys.stderr)
        return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
