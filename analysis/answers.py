"""Answers of baseline and method side by side: counts of token differences (Tables 1 and 11) and samples (Table 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from analysis import answer_diff
from analysis.inputs.sweep import Sweep, read_predictions, shown_runs
from analysis.text_tables import Table, counted

COLUMNS = ["trial_id", "example_id", "question", "prediction", "reference", "correct", "stopped"]
SHOWN = 20
"""Examples per table: the first ones, by example id, on which baseline and method differ."""
SAMPLES = 6
"""Examples per table of samples, whether right or wrong."""
NEEDS = "predictions/ contains no answers of a baseline and a method to the same examples; any sweep with both arms writes them."


def pairs(sweep: Sweep) -> Iterator[tuple[str, str, str, str, int, pd.DataFrame]]:
    """Baseline, method, group, split, seed, and their answers joined by example: on their first common seed, on test if it was judged."""
    runs, _ = shown_runs(sweep)
    for group, arms in runs.groupby("group", sort=True):
        for baseline, method in sweep.pairs(arms):
            ours = arms[arms["label"] == method].drop_duplicates("seed").set_index("seed")["trial_id"]
            theirs = arms[arms["label"] == baseline].drop_duplicates("seed").set_index("seed")["trial_id"]
            common = sorted(set(ours.index) & set(theirs.index))
            if not common:
                continue
            seed = common[0]
            for split in ("test", "val"):
                both = [read_predictions(sweep.folder, [str(side[seed])], split, COLUMNS) for side in (theirs, ours)]
                joined = both[0].merge(both[1], on="example_id", suffixes=("_baseline", "_method"))
                if len(joined):
                    yield baseline, method, str(group), split, int(seed), joined
                    break


def differences(sweep: Sweep) -> Table:
    """Counts of token differences over all examples of one seed."""
    title = "Token differences against the reference"
    rows = []
    seen: set[tuple[str, int]] = set()
    for baseline, method, _, split, seed, joined in pairs(sweep):
        for label, side in ((baseline, "baseline"), (method, "method")):
            if (label, seed) in seen:
                continue
            seen.add((label, seed))
            tokens = pd.DataFrame(
                [
                    answer_diff.counts(answer_diff.spans(str(reference), str(prediction)))
                    for reference, prediction in zip(joined[f"reference_{side}"], joined[f"prediction_{side}"].fillna(""), strict=True)
                ]
            )
            exact = int((tokens.sum(axis=1) == 0).sum())
            capped = int((~joined[f"stopped_{side}"].fillna(True).astype(bool)).sum())
            rows.append([label, split, str(seed), *map(str, (len(joined), exact, *tokens.sum(), capped))])
    header = ["arm", "split", "seed", "answers", "identical", "wrong tokens", "extra", "missing", "hit the token cap"]
    return Table(title, header, rows, NEEDS)


def side_by_side(sweep: Sweep, shown: int = SHOWN, mark: Callable[[list[answer_diff.Span]], str] | None = None) -> list[Table]:
    """Per pair, the first examples that one of the two has right, differences marked by `mark` (None: `answer_diff.marked`, shortened)."""
    tables = []
    for baseline, method, _, split, seed, joined in pairs(sweep):
        right = [joined[f"correct_{side}"].fillna(False).astype(bool) for side in ("baseline", "method")]
        only_method, only_baseline = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
        differ = joined[right[0] != right[1]].sort_values("example_id")
        has_question = differ["question_baseline"].notna().any()
        rows = [
            [
                str(row["example_id"]),
                *([_one_line(str(row["question_baseline"]))] if has_question else []),
                _one_line(str(row["reference_baseline"])),
                *(mark(_spans(row, side)) if mark else _one_line(answer_diff.marked(_spans(row, side))) for side in ("baseline", "method")),
                "method" if row["correct_method"] else "baseline",
            ]
            for _, row in differ.head(shown).iterrows()
        ]
        alone = f"{only_method} right in the method only, {only_baseline} in the baseline only"
        title = f"{method} against {baseline} ({split}, seed {seed}, {counted(len(joined), 'example')}): {alone}"
        title += f"; the first {shown} of these" if len(differ) > shown else ""
        header = ["example", *(["question"] if has_question else []), "reference", "baseline", "method", "right"]
        tables.append(Table(title, header, rows, "Both are right on exactly the same examples."))
    return tables or [Table("Token differences, side by side", [], [], NEEDS)]


def samples(sweep: Sweep, shown: int = SAMPLES) -> list[Table]:
    """Per pair, the first examples, whether right or wrong."""
    tables = []
    for baseline, method, _, split, seed, joined in pairs(sweep):
        has_question = joined["question_baseline"].notna().any()
        rows = [
            [
                str(row["example_id"]),
                *([_one_line(str(row["question_baseline"]))] if has_question else []),
                _one_line(str(row["reference_baseline"])),
                *(_one_line(f"{row[f'prediction_{side}']}") for side in ("baseline", "method")),
                *("yes" if row[f"correct_{side}"] else "no" for side in ("baseline", "method")),
            ]
            for _, row in joined.sort_values("example_id").head(shown).iterrows()
        ]
        header = ["example", *(["question"] if has_question else []), "reference", "baseline", "method", "baseline right", "method right"]
        tables.append(
            Table(
                f"{method} against {baseline} ({split}, seed {seed}): {len(rows)} of {counted(len(joined), 'example')}",
                header,
                rows,
                NEEDS,
            )
        )
    return tables or [Table("Samples", [], [], NEEDS)]


def _spans(row: pd.Series[Any], side: str) -> list[answer_diff.Span]:
    given = row[f"prediction_{side}"]
    return answer_diff.spans(str(row[f"reference_{side}"]), given if isinstance(given, str) else "")


def _one_line(text: str, limit: int = 160) -> str:
    text = text.replace("\n", "⏎")
    return text if len(text) <= limit else text[: limit - 1] + "…"
