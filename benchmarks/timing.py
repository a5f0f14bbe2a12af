"""Side-by-side timing: contenders take turns, so that other load on the machine affects all of them equally; medians are compared."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
"""Folder with real data next to the checkout, if it exists."""


TURN_S = 0.5
"""A fast contender repeats its call for about this long in a turn, so that its relative noise is no larger than a slow one's."""


def medians(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, summary: Callable[[list[float]], float] = statistics.median
) -> dict[str, float]:
    """Median seconds (or another `summary`) per call of each contender, over `rounds` rounds of one turn each."""
    repeats = {}
    for name, call in contenders.items():
        call()  # the first call warms up
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(TURN_S / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return {name: summary(values) for name, values in seconds.items()}


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
