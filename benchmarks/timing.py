"""Side-by-side timing: contenders take turns, so that whatever else the machine does hits them alike; medians are compared."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
"""Where real data lies beside the checkout, if it does."""


def medians(contenders: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of one call of each contender, over `rounds` rounds in which each is called once."""
    for call in contenders.values():
        for _ in range(warm_up):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def finish(
    title: str, figures: Mapping[str, float], limits: Mapping[str, tuple[str, float]], as_json: bool, facts: Mapping[str, Any]
) -> None:
    """Print the figures, one line each with its limit (or all as one JSON line), and exit 1 if a limit is missed."""
    missed = [name for name, (sign, limit) in limits.items() if not (figures[name] >= limit if sign == ">=" else figures[name] <= limit)]
    if as_json:
        print(json.dumps({"benchmark": title, **facts, **figures, "missed": missed}))
    else:
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
        for name, value in figures.items():
            limit = f"   wanted {limits[name][0]} {limits[name][1]:g}{'   MISSED' if name in missed else ''}" if name in limits else ""
            print(f"  {name:<42} {value:10.4g}{limit}")
    sys.exit(1 if missed else 0)
