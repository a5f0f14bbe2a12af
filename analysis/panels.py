"""Method minus baseline at equal steps, equal FLOPs and equal training seconds: one table, with intervals and counts.

    python -m analysis.panels results/NAME [results/other ...] [--metric test_accuracy] [--json]

For every claim (`protocol/claims.py`): the mean difference over seeds, its 95 % interval by the paired t, the number of seeds, the
budget that both arms spent, and how the arms were made equal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.command_line import run
from analysis.inputs.tables import refuse_damaged
from analysis.protocol.claims import Claim, Evidence, gather
from analysis.protocol.equal_cost import Panel
from analysis.text_tables import Table, points, text
from jepa_ray.results import JUDGED

TITLE = "At equal steps, equal FLOPs and equal seconds (method - baseline, points)"
UNITS = {"equal steps": "steps", "equal seconds": "s"}
NOTHING = "No method and its baseline were confirmed on a common seed."


def tables(evidence: Evidence) -> list[Table]:
    """One table of all claims. If no claim has a pair of seeds, it has no rows and a sentence instead."""
    header = ["method", "at", "difference", "95 % interval over seeds", "seeds", "budget", "metric", "baseline", "how"]
    several = len({(claim.method, claim.task, claim.model) for claim in evidence.claims}) > len({claim.method for claim in evidence.claims})
    rows = []
    for claim in sorted(evidence.claims, key=lambda claim: claim.kind != "claim"):
        method, baseline = _names(claim, several)
        for panel in claim.panels:
            *numbers, how = cells(panel)
            rows.append([method, panel.at, *numbers, panel.metric.replace("_", " "), baseline, how])
    return [Table(TITLE, header, rows, NOTHING)]


def cells(panel: Panel) -> list[str]:
    """Difference, interval, seeds, budget, and how the arms were made equal."""
    if panel.difference is None:
        return ["-", "-", "0", "-", f"cannot be determined: {panel.how}"]
    interval = "-" if panel.interval is None else f"{points(panel.interval[0])} to {points(panel.interval[1])}"
    why = f"; no interval: {panel.no_interval}" if panel.no_interval else ""
    return [points(panel.difference), interval, str(panel.seeds), _spent(panel), panel.how + why]


def _spent(panel: Panel) -> str:
    if panel.spent is None:
        return "-"
    return f"{panel.spent:.4g} {panel.unit or UNITS[panel.at]}"


def _names(claim: Claim, several: bool) -> list[str]:
    """Method and baseline, with model and task if an arm name is used for several."""
    return [f"{arm} ({claim.model}, {claim.task})" if several else str(arm) for arm in (claim.method, claim.baseline)]


def as_json(evidence: Evidence) -> dict[str, Any]:
    """Plain numbers: shares in [0, 1]; `by_seed` maps seeds to differences."""
    claims = [
        {
            **{name: getattr(claim, name) for name in ("method", "baseline", "kind", "task", "family", "model", "notes")},
            "panels": [
                {name: getattr(panel, name) for name in ("at", "metric", "difference", "interval", "by_seed", "spent", "unit", "how")}
                | {"n": panel.seeds}
                for panel in claim.panels
            ],
        }
        for claim in evidence.claims
    ]
    return {"claims": claims, "counts": evidence.counts, "notes": evidence.notes}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Status 2: a folder is not a sweep's, or the metric is not a mean over answers."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.panels", description="Method minus baseline at equal steps, equal FLOPs and equal training seconds."
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="results/NAME")
    parser.add_argument("--metric", default=JUDGED, help=f"the metric to compare (default {JUDGED})")
    parser.add_argument("--json", action="store_true", help="print one JSON object, keyed by folder")
    options = parser.parse_args(arguments)
    evidence_of: dict[str, Evidence] = {}
    for folder in options.sweeps:
        try:
            refuse_damaged(folder)
            evidence_of[str(folder)] = gather(folder, options.metric)
        except ValueError as error:
            parser.error(str(error))
    if options.json:
        print(json.dumps({name: as_json(evidence) for name, evidence in evidence_of.items()}, allow_nan=False))
        return 0
    for name, evidence in evidence_of.items():
        notes = [note if note.startswith(claim.method) else f"{claim.method}: {note}" for claim in evidence.claims for note in claim.notes]
        notes += evidence.notes
        sentences = ["\n".join(f"- {note}" for note in notes)] if notes else []
        print(f"{name}\n{'=' * len(name)}", *map(text, tables(evidence)), *sentences, sep="\n\n", end="\n\n")
    return 0


if __name__ == "__main__":
    run(main)
