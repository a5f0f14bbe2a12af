"""Tables of a sweep: what they hold, how one trial is written (atomically, once), how they are read.

    results/<name>/arms.parquet                     one row per arm: what is compared with what, written before the first trial
                   trials/<trial_id>.parquet        one row: configuration, final metrics, cost, provenance
                   metrics/<trial_id>.parquet       long: one row per (step, split, name)
                   predictions/<trial_id>.parquet   one row per evaluated example
                   embeddings/<trial_id>.parquet    one row per view of a pair; only where the sweep asks for them

Every file of a table has the same explicit schema, so `pandas.read_parquet("results/lora/trials")` works whatever is null
in whichever trial. A file appears by renaming a finished temporary file (its name starts with ".", which readers skip), and
the `trials` row comes last: it is the commit. Without it a trial does not exist, whatever else a crash left behind.

Columns and their types are in `tables.py`, what is done about damaged files in `damaged.py`.

May import: atomic, config, damaged, messages, tables, pyarrow, pandas. Not torch, not ray. What to run again is the sweep's
business.
"""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from jepa_ray import __version__
from jepa_ray.system import atomic
from jepa_ray.config import VALIDATION_METRICS as VALIDATION_METRICS
from jepa_ray.config import Arm as Arm
from jepa_ray.config import SweepConfig, TrialConfig, arms, columns, grown
from jepa_ray.results.damaged import damage as damage
from jepa_ray.results.damaged import files as files
from jepa_ray.results.damaged import unreadable as unreadable
from jepa_ray.config.messages import finding
from jepa_ray.results.schema import ARMS as ARMS
from jepa_ray.results.schema import CONFIG as CONFIG
from jepa_ray.results.schema import EMBEDDINGS as EMBEDDINGS
from jepa_ray.results.schema import IDENTITY as IDENTITY
from jepa_ray.results.schema import METRICS as METRICS
from jepa_ray.results.schema import PREDICTIONS as PREDICTIONS
from jepa_ray.results.schema import REAL, TEXT, unsound_arms
from jepa_ray.results.schema import SUMMARY as SUMMARY
from jepa_ray.results.schema import TRIALS as TRIALS

State = Literal["COMPLETE", "PRUNED", "FAILED", "RUNNING"]
Stage = Literal["search", "confirm", "matched"]
"""matched: the dearer of a method and its baseline, trained again with the FLOPs of the cheaper one (`confirm.equal_flops`)."""
FLOPS_ALIKE = 0.02
"""Training costs that differ by less than this share are equal."""
JUDGED = "test_accuracy"
"""What arms are compared by once they are confirmed: in a race, in the verdict and in the tables, whatever `search.metric` selects by."""
Filters = Sequence[tuple[str, str, Any]]


@dataclass(frozen=True)
class TrialResult:
    """What a trial hands back. RUNNING appears in a progress file only, never in a table."""

    state: State
    error: str | None = None
    summary: dict[str, float | int | str | None] = field(default_factory=dict)
    """Final numbers and provenance; the legal keys are `SUMMARY`."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the metrics table without `trial_id`."""
    predictions: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the predictions table without `trial_id`."""
    embeddings: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the embeddings table without `trial_id`; none of them: no file."""

    def __post_init__(self) -> None:
        assert self.state in get_args(State), f"state {self.state!r} is none of {get_args(State)}"

    def to_json(self) -> str:
        """One JSON object. Non-finite numbers are kept (`NaN`, `Infinity`), as Python's json reads them back."""
        return json.dumps(asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))


def save_progress(path: Path, result: TrialResult) -> None:
    """Write the state of an unfinished trial; a reader sees the previous one or this one, never a part of either."""
    atomic.write_text(path, result.to_json())


def load_progress(path: Path) -> TrialResult | None:
    """The progress file at `path`, or None where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return TrialResult.from_json(text)


def write_trial(
    folder: Path, trial_id: str, config: TrialConfig, arm: str, stage: Stage, result: TrialResult, number: int | None = None
) -> None:
    """Write a terminal trial: metrics, predictions, embeddings if any, and last the row of `trials` that makes it exist.

    `trial_id` is the config_id, or `<config_id>-2` and so on for later attempts; `arm` begins with `<method>/`. Metrics and
    predictions without a row in `trials` are what a crash left between two of these writes; they are replaced.
    Raises FileExistsError where the trial is already written: a result is never overwritten.
    """
    assert result.state != "RUNNING", "a running trial belongs in a progress file, not in the tables"
    assert stage in get_args(Stage), f"stage {stage!r} is none of {get_args(Stage)}"
    row = folder / "trials" / f"{trial_id}.parquet"
    if row.exists():
        raise FileExistsError(f"{row}: trial {trial_id} is already written, and a result is never overwritten; use the id of a new attempt")
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
    """One row per terminal trial of the sweep in `folder`, in order of trial_id; no rows where nothing is written yet."""
    return _frame(_read(folder / "trials", TRIALS, columns))


def read_metrics(folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """Long table of curves, of committed trials only; `filters` as in pandas: `[("split", "==", "val")]`."""
    return _frame(_read(folder / "metrics", METRICS, columns, filters, committed=folder / "trials"))


def read_predictions(folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """Every scored answer, of committed trials only; `filters` as in pandas: `[("trial_id", "==", "..."), ("split", "==", "val")]`."""
    return _frame(_read(folder / "predictions", PREDICTIONS, columns, filters, committed=folder / "trials"))


def read_embeddings(folder: Path, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """Text and Code states, of committed trials only; `vector` is a float16 array (width,). `filters` as in pandas."""
    return _frame(_read(folder / "embeddings", EMBEDDINGS, columns, filters, committed=folder / "trials"))


def declare_arms(folder: Path, sweep: SweepConfig) -> list[Arm]:
    """The arms of a sweep, written down in its folder: those that it has declared before stay as they are, new ones follow."""
    before = declared_before(folder)
    declared = grown(before, arms(sweep))
    if declared != before:
        write_arms(folder, declared)
    return declared


def declared_before(folder: Path) -> list[Arm]:
    """The arms table, or the arms of the folder's earlier files (`sweep-N.yaml`) where there is none."""
    if (folder / "arms.parquet").exists():
        return read_arms(folder)
    declared: list[Arm] = []
    for version in sorted(folder.glob("sweep-*.yaml"), key=lambda path: (len(path.name), path.name)):
        with contextlib.suppress(OSError, yaml.YAMLError, ValueError):
            declared = grown(declared, _arms_of(version))
    return declared


def write_arms(folder: Path, declared: Sequence[Arm]) -> None:
    """Replace the arms table of the sweep in `folder`."""
    rows = [{**asdict(arm), "arm": arm.name} for arm in declared]
    with atomic.whole_file(folder / "arms.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=ARMS), temporary)


def read_arms(folder: Path) -> list[Arm]:
    """The arms that the sweep in `folder` has declared, in order, each with the arm that it is compared with.

    Without that table they are those of sweep.yaml, each as the first version of the file that names it (`sweep-N.yaml`) declared it.
    Raises ValueError where neither can be read.
    """
    path, plan = folder / "arms.parquet", folder / "sweep.yaml"
    try:
        rows = pq.read_table(path, schema=ARMS).to_pylist()
        why = unsound_arms(rows)
    except FileNotFoundError:
        rows, why = None, None
    except (pa.ArrowException, OSError) as error:
        rows, why = None, str(error).splitlines()[0]
    if why is not None:
        raise ValueError(
            f"{path} cannot be read ({why}); `python -m jepa_ray.sweep FILE`, with the file of this sweep, sets it aside and makes it "
            "again from sweep.yaml"
        )
    if rows is not None:
        return [Arm(name=row.pop("arm"), **row) for row in rows]
    try:
        return grown(declared_before(folder), _arms_of(plan))
    except ValidationError as error:
        place, law = finding(error.errors()[0])
        said = f"{'.'.join(map(str, place))}: {law}" if place else law
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(
            f"{folder} has no arms.parquet, and its sweep.yaml is refused: {said}{more}. "
            f"So it is not known which arms are compared; correct sweep.yaml there, which changes no trial"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
        raise ValueError(
            f"{folder} has no arms.parquet, and its sweep.yaml {why}: it is not known which arms are compared; put the sweep's file there"
        ) from error


def _arms_of(plan: Path) -> list[Arm]:
    return arms(SweepConfig.model_validate(yaml.safe_load(plan.read_text(encoding="utf-8"))))


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    """config_id -> row of `trials` (None for null), the last attempt where there are several."""
    rows: list[dict[str, Any]] = _read(folder / "trials", TRIALS).to_pylist()
    rows.sort(key=lambda row: attempt_of(str(row["trial_id"])))
    return {str(row["config_id"]): row for row in rows}


def best_trial(trials: pd.DataFrame, metric: str, mode: str) -> pd.Series[Any] | None:
    """The best COMPLETE search trial among these rows of one arm by `metric`; of equals the one suggested first. None: there is none.

    Rows of versions that wrote no `number` come after those that have one, in the order in which they started.
    """
    done = trials[(trials["stage"] == "search") & (trials["state"] == "COMPLETE") & np.isfinite(trials[metric].astype(float))]
    ranked = done.sort_values([metric, "number", "started_at", "trial_id"], ascending=[mode == "min", True, True, True])
    return None if ranked.empty else ranked.iloc[0]


def attempt_id(config_id: str, attempt: int) -> str:
    """Trial id of the attempt-th try (from 1) of a configuration: `<config_id>`, then `<config_id>-2`, `<config_id>-3`, ..."""
    assert attempt >= 1 and "-" not in config_id, (config_id, attempt)
    return config_id if attempt == 1 else f"{config_id}-{attempt}"


def provenance() -> dict[str, str | None]:
    """Where numbers come from: git_sha (None outside a checkout; `-dirty` with uncommitted changes), versions, started_at."""
    return {"git_sha": _git_sha(Path(__file__).resolve().parent), "versions": json.dumps(_versions(), sort_keys=True), "started_at": now()}


def now() -> str:
    """This moment, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version(), "jepa_ray": __version__}
    for name in ("torch", "ray", "transformers", "peft", "optuna"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _git_sha(package: Path) -> str | None:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Inside somebody else's checkout (a virtual environment in a repository) the commit would say nothing about this package.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    sha = git("rev-parse", "HEAD")
    return f"{sha}-dirty" if sha and git("status", "--porcelain", "--untracked-files=no") else sha


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    if not hasattr(value, "item"):
        raise TypeError(f"a trial's result holds {type(value).__name__}, which is no number and no text")
    return value.item()


def _expected(values: Mapping[str, Any], legal: Mapping[str, pa.DataType], what: str) -> dict[str, Any]:
    unknown = sorted(set(values) - set(legal))
    assert not unknown, f"unknown {what} {unknown}: add it to the schema in tables.py, or leave it out"
    return dict(values)


def _of(trial_id: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "trial_id": trial_id} for row in rows]


def _table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    listed = list(rows)
    for row in listed:
        _expected(row, dict.fromkeys(schema.names, TEXT), "column")
    # pyarrow refuses to store an int beyond 2**53 as a float, and FLOPs counted in Python ints get there.
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
        # Listed after the table itself, a trial committed in between has its file missing here, never half of it.
        paths = [path for path in paths if (committed / path.name).exists()]
    unknown = sorted(set(columns or ()) - set(schema.names))
    if unknown:
        raise ValueError(f"no column {unknown} in {folder.name}; there are {', '.join(schema.names)}")
    # The explicit schema also reads files of older versions of the package: columns they lack come back as null.
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
