"""Parts of a GPU benchmark that do what real ones should not; for the tests of what runs them. Imports no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu.form import Findings, Form, Skipped


def fine(form: Form, findings: Findings) -> None:
    findings.note({"one": 1.0, "none": float("nan"), "small": form.small, "data": str(form.data)}, "all is well")


def raises(form: Form, findings: Findings) -> None:
    findings.note({"before": 2}, "found two")
    raise RuntimeError("unlucky number")


def crashes(form: Form, findings: Findings) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def exits(form: Form, findings: Findings) -> None:
    sys.exit("gave up")


def skips(form: Form, findings: Findings) -> None:
    raise Skipped("there is no such thing here")


def hangs(form: Form, findings: Findings) -> None:
    """Deaf to SIGTERM, with a process of its own that would outlive it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
    findings.note({"child": child.pid, "left": form.left()}, "started")
    print("waiting for nothing", file=sys.stderr, flush=True)
    time.sleep(600)
