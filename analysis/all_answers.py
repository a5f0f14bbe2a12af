"""Answers of baseline and method to the same questions at every common seed, one row per question, bounded in size.

`answers.py` shows one seed. Here a row says at how many seeds each arm is right, and lists its distinct answers with their seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import pandas as pd

from analysis.answer_diff import Span, spans
from analysis.inputs.sweep import Sweep, read_predictions, shown_runs
from analysis.text_tables import Table, counted, named

COLUMNS = ["trial_id", "example_id", "question", "prediction", "reference", "correct"]
SHARES = {"method gains": 0.3, "method loses": 0.2, "differ, same count": 0.1, "always wrong": 0.2, "always right": 0.1, "mixed": 0.1}
"""What a question may be, over the seeds, and its share of the room on the page. `mixed`: right at some seeds, the same in both arms."""
ROOM = 700_000
"""Characters of all tables together."""
LONGEST = 400
"""Characters of one answer; a longer one ends in an ellipsis."""
MOST = 200
"""Rows of a table."""


@dataclass(frozen=True)
class Compared:
    """One pair of arms: the table, a word of `SHARES` for each row, and what is left out."""

    table: Table
    kinds: tuple[str, ...]
    notes: tuple[str, ...]


def tables(sweep: Sweep, mark: Callable[[list[Span]], str], room: int = ROOM) -> list[Compared]:
    """One table per pair of arms that answered the same questions at a common seed."""
    found = list(_pairs(sweep))
    return [_compared(*pair, mark=mark, room=room // len(found)) for pair in found]


def _pairs(sweep: Sweep) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Baseline, method, split, and a row per question and seed: answers of both arms, on test if it was judged."""
    runs, _ = shown_runs(sweep)

    @lru_cache(maxsize=64)
    def answers(trial_id: str, split: str) -> pd.DataFrame:
        return read_predictions(sweep.folder, [trial_id], split, COLUMNS).drop(columns="trial_id", errors="ignore")

    for _, arms in runs.groupby("group", sort=True):
        for baseline, method in sweep.pairs(arms):
            sides = [arms[arms["label"] == label].drop_duplicates("seed").set_index("seed")["trial_id"] for label in (baseline, method)]
            common = sorted(set(sides[0].index) & set(sides[1].index))
            for split in ("test", "val"):
                joined = []
                for seed in common:
                    both = [answers(str(side[seed]), split) for side in sides]
                    if all(len(side) for side in both):
                        merged = both[0].merge(both[1], on="example_id", suffixes=("_baseline", "_method"))
                        joined.append(merged.assign(seed=int(seed)))
                if joined:
                    yield baseline, method, split, pd.concat(joined, ignore_index=True)
                    break


def _compared(baseline: str, method: str, split: str, rows: pd.DataFrame, *, mark: Callable[[list[Span]], str], room: int) -> Compared:
    for side in ("baseline", "method"):
        rows[f"right_{side}"] = rows[f"correct_{side}"].fillna(False).astype(bool)
        rows[f"prediction_{side}"] = rows[f"prediction_{side}"].astype(object).where(rows[f"prediction_{side}"].notna(), "")
    rows["differs"] = rows["right_baseline"] != rows["right_method"]
    each = rows.groupby("example_id", sort=True).agg(
        baseline=("right_baseline", "sum"), method=("right_method", "sum"), differs=("differs", "any"), seeds=("seed", "size")
    )
    each["kind"] = [_kind(*line) for line in each[["baseline", "method", "differs", "seeds"]].itertuples(index=False)]
    each["gap"] = (each["method"] - each["baseline"]).abs()
    chosen = each.sort_values("gap", ascending=False, kind="stable")
    of_question = {str(name): group for name, group in rows[rows["example_id"].isin(_shortlist(chosen))].groupby("example_id")}
    has_question = bool(rows["question_baseline"].notna().any())
    lines: list[list[str]] = []
    kinds: list[str] = []
    for kind, share in SHARES.items():
        left, number = share * room, 0
        for example, line in chosen[chosen["kind"] == kind].iterrows():
            if left <= 0 or number >= share * MOST:
                break
            cells = _row(str(example), line, of_question[str(example)], has_question, mark)
            left, number = left - sum(map(len, cells)), number + 1
            lines.append(cells)
            kinds.append(kind)
    counts = each["kind"].value_counts()
    said = ", ".join(f"{kind} {counts[kind]}" for kind in SHARES if kind in counts)
    seeds = sorted(rows["seed"].unique())
    notes = [f"Questions by what happens over {counted(len(seeds), 'seed')}: {said}."]
    if len(lines) < len(each):
        notes.append(f"Shown are {len(lines)} of {len(each)}, the largest changes of each kind first; predictions/ contains all of them.")
    header = ["example", "right", *(["question"] if has_question else []), "reference", "baseline", "method"]
    title = f"{method} against {baseline} ({split}, {named('seed', seeds)})"
    return Compared(Table(title, header, lines, "No common question."), tuple(kinds), tuple(notes))


def _shortlist(chosen: pd.DataFrame) -> pd.Index[str]:
    return chosen.groupby("kind", sort=False).head(MOST).index


def _kind(baseline: int, method: int, differs: bool, seeds: int) -> str:
    if not differs:
        return {0: "always wrong", seeds: "always right"}.get(baseline, "mixed")
    return "method gains" if method > baseline else "method loses" if method < baseline else "differ, same count"


def _row(example: str, line: pd.Series[int], rows: pd.DataFrame, has_question: bool, mark: Callable[[list[Span]], str]) -> list[str]:
    first = rows.iloc[0]
    cells = [example, f"{line['baseline']} → {line['method']} of {line['seeds']}"]
    cells += [_short(str(first["question_baseline"]))] if has_question else []
    cells.append(_short(str(first["reference_baseline"])))
    for side in ("baseline", "method"):
        given: dict[str, list[int]] = {}
        for seed, prediction in rows[["seed", f"prediction_{side}"]].itertuples(index=False):
            given.setdefault(prediction, []).append(int(seed))
        cells.append(_answers(str(first[f"reference_{side}"]), given, mark))
    return cells


def _answers(reference: str, given: Mapping[str, list[int]], mark: Callable[[list[Span]], str]) -> str:
    """Every distinct answer, marked; with its seeds if there are several."""
    shown = {prediction: mark(_trimmed(spans(reference, prediction))) or "(empty)" for prediction in given}
    if len(given) == 1:
        return next(iter(shown.values()))
    return "\n".join(f"{', '.join(map(str, given[prediction]))}: {text}" for prediction, text in shown.items())


def _trimmed(parts: list[Span]) -> list[Span]:
    left = LONGEST
    out: list[Span] = []
    for part in parts:
        if left <= 0:
            return [*out, Span("same", "…", "…")]
        expected, given = part.expected[:left], part.given[:left]
        cut = len(expected) < len(part.expected) or len(given) < len(part.given)
        out.append(replace(part, expected=expected, given=given + "…" if cut else given))
        left -= max(len(expected), len(given))
    return out


def _short(text: str) -> str:
    text = text.replace("\n", "⏎")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
