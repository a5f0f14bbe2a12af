"""Tables of a sweep: what they contain, how a trial is written (atomically, once), how they are read.

    results/<name>/arms.parquet                     one row per arm: what is compared with what, written before the first trial
                   trials/<trial_id>.parquet        one row: configuration, final metrics, cost, provenance
                   metrics/<trial_id>.parquet       long: one row per (step, split, name)
                   predictions/<trial_id>.parquet   one row per evaluated example
                   embeddings/<trial_id>.parquet    one row per view of a pair; only if the sweep requests them

Every file of a table has the same explicit schema, so `pandas.read_parquet("results/lora/trials")` works no matter what is null
in which trial. A file appears by renaming a finished temporary file (its name starts with ".", which readers skip). The
`trials` row comes last: it is the commit. Without it a trial does not exist, whatever else a crash left behind.

Columns are defined in `schema.py`; damaged files are handled in `damaged.py`. The sweep decides what to run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jepa_ray.config import TrialConfig, columns
from jepa_ray.results.schema import CONFIG, EMBEDDINGS, METRICS, PREDICTIONS, REAL, SUMMARY, TEXT, TRIALS, Stage, State
from jepa_ray.system import atomic

Filters = Sequence[tuple[str, str, Any]]


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial. RUNNING appears in progress files only, never in a table."""

    state: State
    error: str | None = None
    summary: dict[str, float | int | str | None] = field(default_factory=dict)
    """Final numbers and provenance; the legal keys are `SUMMARY`."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the metrics table without `trial_id`."""
    predictions: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the predictions table without `trial_id`."""
    embeddings: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the embeddings table without `trial_id`; if empty, no file is written."""

    def __post_init__(self) -> None:
        assert self.state in get_args(State), f"state {self.state!r} is not one of {get_args(State)}"

    def to_json(self) -> str:
        """One JSON object. Non-finite numbers are kept (`NaN`, `Infinity`); Python's json reads them back."""
        return json.dumps(asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))


def save_progress(path: Path, result: TrialResult) -> None:
    """Write the state of an unfinished trial atomically: a reader sees the previous state or this one, never a partial file."""
    atomic.write_text(path, result.to_json())


def load_progress(path: Path) -> TrialResult | None:
    """The progress file at `path`, or None if it does not exist."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return TrialResult.from_json(text)


def write_trial(
    folder: Path, trial_id: str, config: TrialConfig, arm: str, stage: Stage, result: TrialResult, number: int | None = None
) -> None:
    """Write a finished trial: metrics, predictions, embeddings if any, and last the row of `trials` that commits it.

    `trial_id` is the config_id, or `<config_id>-2` and so on for later attempts; `arm` begins with `<method>/`. Metrics and
    predictions without a row in `trials` were left by a crash between two of these writes; they are replaced.
    Raises FileExistsError if the trial is already written: a result is never overwritten.
    """
    assert result.state != "RUNNING", "a running trial belongs in a progress file, not in the tables"
    assert stage in get_args(Stage), f"stage {stage!r} is not one of {get_args(Stage)}"
    row = folder / "trials" / f"{trial_id}.parquet"
    if row.exists():
        raise FileExistsError(f"{row}: trial {trial_id} is already written, and results are never overwritten; use the id of a new attempt")
    values = {
        "trial_id": trial_id,
        "config_id": trial_id.partition("-")[0],
        "arm": arm,
        "method": arm.partition("/")[0],
        "stage": stage,
        "state": result.state,
        "error": result.error,
        "number": number,
        **_expected(columns(config), CONFIG, "configuration column"),
        **_expected(result.summary, SUMMARY, "summary key"),
    }
    # All tables are built before the first is written: a row that does not fit its schema leaves nothing behind.
    tables = {
        folder / "metrics" / row.name: _table(METRICS, _of(trial_id, result.metrics)),
        folder / "predictions" / row.name: _table(PREDICTIONS, _of(trial_id, result.predictions)),
        **({folder / "embeddings" / row.name: _table(EMBEDDINGS, _of(trial_id, result.embeddings))} if result.embeddings else {}),
        row: _table(TRIALS, [values]),
    }
    for path, table in tables.items():
        with atomic.whole_file(path) as temporary:
            pq.write_table(table, temporary)


def read_trials(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per finished trial of the sweep in `folder`, sorted by trial_id; empty if nothing is written yet."""
    return _frame(_read(folder / "trials", TRIALS, columns))


def read_metrics(folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """Curves in long form, of committed trials only; `filters` as in pandas: `[("split", "==", "val")]`."""
    return _frame(_read(folder / "metrics", METRICS, columns, filters, committed=folder / "trials"))


def read_predictions(folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """Every scored answer, of committed trials only; `filters` as in pandas: `[("trial_id", "==", "..."), ("split", "==", "val")]`."""
    return _frame(_read(folder / "predictions", PREDICTIONS, columns, filters, committed=folder / "trials"))


def read_embeddings(folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """Text and Code states, of committed trials only; `vector` is a float16 array (width,). `filters` as in pandas."""
    return _frame(_read(folder / "embeddings", EMBEDDINGS, columns, filters, committed=folder / "trials"))


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    """config_id -> row of `trials` (None for null), of the last attempt if there are several."""
    rows: list[dict[str, Any]] = _read(folder / "trials", TRIALS).to_pylist()
    rows.sort(key=lambda row: attempt_of(str(row["trial_id"])))
    return {str(row["config_id"]): row for row in rows}


def best_trial(trials: pd.DataFrame, metric: str, mode: str) -> pd.Series[Any] | None:
    """The best COMPLETE search trial by `metric` among these rows of one arm, or None if there is none. Of ties, the first suggestion.

    Rows of versions that did not write `number` come after those that have one, in the order in which they started.
    """
    done = trials[(trials["stage"] == "search") & (trials["state"] == "COMPLETE") & np.isfinite(trials[metric].astype(float))]
    ranked = done.sort_values([metric, "number", "started_at", "trial_id"], ascending=[mode == "min", True, True, True])
    return None if ranked.empty else ranked.iloc[0]


def attempt_id(config_id: str, attempt: int) -> str:
    """Trial id of the attempt-th try (from 1) of a configuration: `<config_id>`, then `<config_id>-2`, `<config_id>-3`, ..."""
    assert attempt >= 1 and "-" not in config_id, (config_id, attempt)
    return config_id if attempt == 1 else f"{config_id}-{attempt}"


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python scalar."""
    if not hasattr(value, "item"):
        raise TypeError(f"a trial's result contains a {type(value).__name__}, which is neither a number nor text")
    return value.item()


def _expected(values: Mapping[str, Any], legal: Mapping[str, pa.DataType], what: str) -> dict[str, Any]:
    unknown = sorted(set(values) - set(legal))
    assert not unknown, f"unknown {what} {unknown}: add it to results/schema.py, or leave it out"
    return dict(values)


def _of(trial_id: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "trial_id": trial_id} for row in rows]


def _table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    listed = list(rows)
    for row in listed:
        _expected(row, dict.fromkeys(schema.names, TEXT), "column")
    # pyarrow refuses to store ints beyond 2**53 as floats, and FLOPs counted in Python ints exceed that.
    real = [name for name in schema.names if schema.field(name).type == REAL]
    exact = [{**row, **{name: float(row[name]) for name in real if row.get(name) is not None}} for row in listed]
    return pa.Table.from_pylist(exact, schema=schema)


def _read(
    folder: Path,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    filters: Filters | None = None,
    committed: Path | None = None,
) -> pa.Table:
    paths = _files(folder)
    if committed is not None:
        # `trials` is listed after the table itself: of a trial committed in between, this file is missing, never incomplete.
        paths = [path for path in paths if (committed / path.name).exists()]
    unknown = sorted(set(columns or ()) - set(schema.names))
    if unknown:
        raise ValueError(f"unknown columns {unknown} in {folder.name}; available: {', '.join(schema.names)}")
    # With the explicit schema, columns that files of earlier versions lack are read as null.
    dataset = ds.dataset([str(path) for path in paths], schema=schema, format="parquet") if paths else ds.dataset(schema.empty_table())
    return dataset.to_table(columns=list(columns) if columns else None, filter=pq.filters_to_expression(list(filters)) if filters else None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith((".", "_")))


def _frame(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    return frame


def attempt_of(trial_id: str) -> int:
    """Inverse of `attempt_id`: which try of its configuration a trial is, from 1."""
    return int(trial_id.partition("-")[2] or 1)
