"""How every analysis command starts and ends: its exit status, and a quiet end if the reader of its output has gone (`... | head -1`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

CLOSED_PIPE = 141
"""128 + SIGPIPE: the status that a shell reports for `cat` and other programs in the same place."""


def run(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its status, or with `CLOSED_PIPE` and no traceback if stdout was closed."""
    try:
        try:
            status = main()
        finally:  # also if argparse exits after --help
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit, which would fail again with a message on stderr.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    raise SystemExit(status)
