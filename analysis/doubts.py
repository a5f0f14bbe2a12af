"""The report's tables that answer doubts about a verdict: is it enough seeds, is it stopping, is it leakage.

They arrange numbers of `verdict.py` and of `protocol/`; nothing is computed or decided here.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.protocol.claim_statistics import Verdict
from analysis.protocol.claims import Claim
from analysis.protocol.decision import STOPPING
from analysis.text_tables import Table, counted, points, sized


def seeds(verdicts: Sequence[Verdict], margin: float) -> Table:
    """Per claim: the difference, its interval, what more seeds would detect, and how many the margin needs."""
    rows = []
    plans = sorted({number for verdict in verdicts for number in verdict.detectable})
    for verdict in verdicts:
        if verdict.difference is None:
            continue
        interval = "-" if verdict.interval is None else f"{points(verdict.interval.low)} to {points(verdict.interval.high)}"
        found = [f"{100 * verdict.detectable[n]:.2f}" if verdict.detectable.get(n, 1.0) < 1 else "-" for n in plans]
        needed = "-" if verdict.seeds_needed is None else str(verdict.seeds_needed)
        rows.append([verdict.method, points(verdict.difference), interval, str(len(verdict.seeds)), needed, *found, str(verdict.baseline)])
    header = ["method", "difference", "95 % interval", "seeds", f"seeds needed for {sized(margin)}"]
    header += [*(f"detectable with {number}" for number in plans), "baseline"]
    return Table("What these seeds can detect (points, power 0.8)", header, rows, "No method and its baseline share a seed.")


def stopping(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> Table:
    """Per claim: gains in answers that start with or contain the reference, and in answers that end by themselves."""
    said = {(verdict.method, verdict.baseline): verdict for verdict in verdicts}
    names = [name for name in ("prefix", "contains", "stopped") if any(name in claim.stopping for claim in claims)]
    rows = []
    for claim in claims:
        verdict = said.get((claim.method, claim.baseline))
        if not claim.stopping or verdict is None or verdict.difference is None:
            continue
        holds = next((reason.text for reason in verdict.conditions if reason.name == STOPPING), "-")
        gains = [points(claim.stopping[name]) if name in claim.stopping else "-" for name in names]
        rows.append([claim.method, points(verdict.difference), *gains, holds])
    empty = "The trials have no prefix, contains and stopped scores, so a gain in knowing the answer cannot be told from one in ending it."
    return Table("Gains by how answers are judged (method - baseline, points)", ["method", "accuracy", *names, "condition"], rows, empty)


def leakage(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> Table:
    """Per claim: test questions that are also in training or validation, and the difference without them."""
    said = {(verdict.method, verdict.baseline): verdict for verdict in verdicts}
    rows = []
    for claim in claims:
        verdict = said.get((claim.method, claim.baseline))
        if claim.leaked is None or verdict is None:
            continue
        share = f"{claim.leaked.number} of {claim.leaked.of} ({100 * claim.leaked.share:.3g} %)"
        clean = verdict.clean
        if clean is None or clean.difference is None:
            rows.append([claim.method, _difference(verdict.difference), "-", "-", "-", share])
            continue
        interval = "-" if clean.interval is None else f"{points(clean.interval.low)} to {points(clean.interval.high)}"
        p = "-" if clean.p_holm is None else f"{clean.p_holm:.3g}"
        rows.append([claim.method, _difference(verdict.difference), points(clean.difference), interval, p, share])
    header = ["method", "difference", "without leaked", "95 % interval", "Holm p", "leaked"]
    empty = f"No test question of {counted(len(claims), 'comparison')} is known to be in training or validation, too."
    return Table("With and without leaked test questions (method - baseline, points)", header, rows, empty)


def _difference(value: float | None) -> str:
    return "-" if value is None else points(value)
