"""Tables of a sweep: what they hold, how one trial is written (atomically, once), how they are read.

    results/<name>/arms.parquet                     one row per arm: what is compared with what, written before the first trial
                   trials/<trial_id>.parquet        one row: configuration, final metrics, cost, provenance
                   metrics/<trial_id>.parquet       long: one row per (step, split, name)
                   predictions/<trial_id>.parquet   one row per evaluated example
                   embeddings/<trial_id>.parquet    one row per view of a pair; only where the sweep asks for them

Every file of a table has the same explicit schema, so `pandas.read_parquet("results/lora/trials")` works whatever is null
in whichever trial. A file appears by renaming a finished temporary file (its name starts with ".", which readers skip), and
the `trials` row comes last: it is the commit. Without it a trial does not exist, whatever else a crash left behind.

May import: atomic, config, messages, pyarrow, pandas. Not torch, not ray. Deciding what to run again is the sweep's business, not this
module's.
"""

from __future__ import annotations

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

from jepa_ray import __version__, atomic
from jepa_ray.config import VALIDATION_METRICS as VALIDATION_METRICS
from jepa_ray.config import Arm as Arm
from jepa_ray.config import SweepConfig, TrialConfig, arms, columns, grown
from jepa_ray.messages import finding

State = Literal["COMPLETE", "PRUNED", "FAILED", "RUNNING"]
Stage = Literal["search", "confirm", "matched"]
"""matched: the dearer of a method and its baseline, trained again with the FLOPs of the cheaper one (`confirm.equal_flops`)."""
FLOPS_ALIKE = 0.02
"""Training costs that differ by less than this share are equal."""
JUDGED = "test_accuracy"
"""What arms are compared by once they are confirmed: in a race, in the verdict and in the tables, whatever `search.metric` selects by."""
Filters = Sequence[tuple[str, str, Any]]

TEXT, REAL, INTEGER, FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()


def _fields(kind: pa.DataType, names: str) -> dict[str, pa.DataType]:
    return dict.fromkeys(names.split(), kind)


IDENTITY: dict[str, pa.DataType] = {
    **_fields(TEXT, "trial_id config_id arm method stage state error"),
    **_fields(INTEGER, "number"),
}
"""Which trial this is and how it ended. `error` is null unless the state is FAILED. `number`: of a search trial, its place among the
suggestions of its arm, from 1; null for others."""

CONFIG: dict[str, pa.DataType] = {
    **_fields(TEXT, "family model init precision packing"),
    **_fields(FLAG, "trust_remote_code gradient_checkpointing"),
    **_fields(TEXT, "task train_file test_file databases"),
    **_fields(INTEGER, "num_train num_val num_test split_seed max_length"),
    **_fields(REAL, "base_fraction"),
    **_fields(TEXT, "objective"),
    **_fields(REAL, "lambda lambda_grad_ratio lambda_effective gamma"),
    **_fields(INTEGER, "k"),
    **_fields(REAL, "loss_dropout lambda_warmup lambda_end layer ema_momentum ema_end predictor_lr_factor"),
    **_fields(REAL, "temperature variance covariance sigreg"),
    **_fields(TEXT, "loss_dropout_mode layout readout target predictor control"),
    **_fields(INTEGER, "predictor_width"),
    **_fields(FLAG, "final_norm normalize symmetric gather"),
    **_fields(REAL, "learning_rate"),
    **_fields(INTEGER, "lora_r"),
    **_fields(REAL, "lora_alpha lora_dropout"),
    **_fields(INTEGER, "num_epochs batch_size micro_batch_size"),
    **_fields(TEXT, "schedule loss_on"),
    **_fields(FLAG, "train_end_of_turn"),
    **_fields(REAL, "warmup_ratio weight_decay beta1 beta2 max_grad_norm max_train_flops"),
    **_fields(INTEGER, "eval_batch_size max_new_tokens eval_every diagnostic_pairs embeddings"),
    **_fields(REAL, "diagnostic_share"),
    **_fields(FLAG, "evaluate_test sql_strict"),
    **_fields(TEXT, "judge"),
    **_fields(INTEGER, "seed"),
    **_fields(TEXT, "pretrain_task pretrain_train_file pretrain_test_file pretrain_databases pretrain_objective_in"),
    **_fields(INTEGER, "pretrain_num_train pretrain_num_val pretrain_num_test pretrain_split_seed pretrain_max_length"),
    **_fields(REAL, "pretrain_base_fraction pretrain_learning_rate"),
    **_fields(INTEGER, "pretrain_num_epochs pretrain_batch_size pretrain_micro_batch_size"),
    **_fields(TEXT, "pretrain_schedule pretrain_loss_on"),
    **_fields(FLAG, "pretrain_train_end_of_turn"),
    **_fields(REAL, "pretrain_warmup_ratio pretrain_weight_decay pretrain_beta1 pretrain_beta2 pretrain_max_grad_norm"),
    **_fields(INTEGER, "pretrain_seed"),
    **_fields(REAL, "mask_ratio mean_span"),
    **_fields(TEXT, "corpus keep_checkpoints"),
}
"""Every leaf of a TrialConfig, under the names that `config.columns` gives them."""

SUMMARY: dict[str, pa.DataType] = {
    **_fields(REAL, "val_accuracy val_exact val_prefix val_contains val_stopped val_errors val_paper val_equivalent val_undecided val_ce"),
    **_fields(REAL, "test_accuracy test_accuracy_clean test_exact test_prefix test_contains test_stopped test_errors"),
    **_fields(REAL, "test_paper test_equivalent test_undecided test_ce"),
    **_fields(REAL, "val_retrieval test_retrieval val_accuracy_untrained test_accuracy_untrained"),
    **_fields(REAL, "val_retrieval_untrained test_retrieval_untrained"),
    **_fields(REAL, "val_effective_rank test_effective_rank val_anisotropy test_anisotropy"),
    **_fields(REAL, "chance pretrain_ce pretrain_jepa train_ce train_jepa val_jepa lambda_used diag_seconds"),
    **_fields(REAL, "train_tokens train_flops train_flops_unpacked train_seconds val_seconds test_seconds wall_seconds peak_memory_bytes"),
    **_fields(
        INTEGER, "epochs_done steps num_parameters num_trainable num_workers train_examples val_examples test_examples dropped_examples"
    ),
    **_fields(INTEGER, "overlap_text overlap_target test_clean_examples"),
    **_fields(TEXT, "packing_used pretrained_sha alarms"),
    **_fields(REAL, "attention_error"),
    **_fields(TEXT, "dataset_sha git_sha versions device started_at finished_at"),
}
"""What a trial may put in `TrialResult.summary`; a key that is absent is stored as null.

`*_accuracy` is the share of answers that are correct by the task's own criterion, `chance` what guessing without looking at the question
reaches of it, measured on the labels of the split that was judged last; 0 where answers are no labels. Of a
masked encoder `*_accuracy` is a linear probe's, `*_retrieval` the share of nearest neighbours with the same label, and `*_untrained` the
same before the first step. `pretrained_sha` is the digest of the weights that a first stage handed on; its tokens,
FLOPs and seconds are part of `train_*`. `lambda_used` is lambda before its schedule, `val_ce` and `val_jepa` are the last diagnosed
losses on validation, `alarms` the names of what they and the embeddings raised (`training/alarms.py`). `packing_used` is the packing that
`packing: auto` came to. `attention_error` is the largest difference that the start-up self-check saw between packed and separate passes.
`overlap_text` is the number of test examples whose Text is also one of training's or validation's, `test_accuracy_clean` the accuracy
without them, on `test_clean_examples`. `train_flops` is what was computed; `train_flops_unpacked` what the same training costs with every
sequence and view encoded by itself, whatever the packing, micro-batches and workers: budgets and comparisons at equal FLOPs use it.
`versions` is a JSON object in a string. Times are UTC, ISO 8601.
"""

TRIALS = pa.schema(list({**IDENTITY, **CONFIG, **SUMMARY}.items()))
METRICS = pa.schema(
    [
        ("trial_id", TEXT),
        ("step", INTEGER),
        ("epoch", REAL),
        ("split", TEXT),
        ("name", TEXT),
        ("value", REAL),
        ("train_flops", REAL),
        ("train_flops_unpacked", REAL),
        ("train_seconds", REAL),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("trial_id", TEXT),
        ("split", TEXT),
        ("example_id", TEXT),
        ("prediction", TEXT),
        ("reference", TEXT),
        ("correct", FLAG),
        ("exact", FLAG),
        ("prefix_correct", FLAG),
        ("contains", FLAG),
        ("stopped", FLAG),
        ("error", TEXT),
        ("paper_correct", FLAG),
        ("equivalent", FLAG),
        ("undecided", FLAG),
        ("leaked", FLAG),
        ("question", pa.dictionary(pa.int32(), TEXT)),
    ]
)
"""`leaked`: the example's Text is also one of training's or validation's (of a validation example: one of training's); null in folders
of versions that did not ask. `question`: the Text; pandas reads it as a categorical column.
"""
EMBEDDINGS = pa.schema(
    [("trial_id", TEXT), ("split", TEXT), ("example_id", TEXT), ("view", TEXT), ("vector", pa.list_(pa.float16()))],
)
"""After training, of confirmed trials, where `evaluation.embeddings` asks for them: Enc(Text) without predictor tokens (view `text`) and
Enc(Code) (view `code`) of the same validation pairs in every trial."""
ARMS = pa.schema([(name, TEXT) for name in ("arm", "method", "family", "task", "kind", "baseline")])
"""`kind` is baseline, claim or control; `baseline` the arm that a claim or control is compared with, null where it has none."""
assert len(TRIALS) == len(IDENTITY) + len(CONFIG) + len(SUMMARY), "a column of the trials table is named twice"


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
    before = read_arms(folder) if (folder / "arms.parquet").exists() else []
    declared = grown(before, arms(sweep))
    if declared != before:
        write_arms(folder, declared)
    return declared


def write_arms(folder: Path, declared: Sequence[Arm]) -> None:
    """Replace the arms table of the sweep in `folder`."""
    rows = [{**asdict(arm), "arm": arm.name} for arm in declared]
    with atomic.whole_file(folder / "arms.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=ARMS), temporary)


def read_arms(folder: Path) -> list[Arm]:
    """The arms that the sweep in `folder` has declared, in order, each with the arm that it is compared with.

    Folders of versions that wrote no such table are read from their sweep.yaml. Raises ValueError where neither can be read.
    """
    path, plan = folder / "arms.parquet", folder / "sweep.yaml"
    try:
        rows = pq.read_table(path, schema=ARMS).to_pylist()
    except FileNotFoundError:
        rows = None
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); rename it, and it is made again from sweep.yaml"
        ) from error
    if rows is not None:
        return [Arm(name=row.pop("arm"), **row) for row in rows]
    try:
        return arms(SweepConfig.model_validate(yaml.safe_load(plan.read_text(encoding="utf-8"))))
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


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    """config_id -> row of `trials` (None for null), the last attempt where there are several."""
    rows: list[dict[str, Any]] = _read(folder / "trials", TRIALS).to_pylist()
    rows.sort(key=lambda row: _attempt(str(row["trial_id"])))
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
    assert not unknown, f"unknown {what} {unknown}: add it to the schema in results.py, or leave it out"
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


def _attempt(trial_id: str) -> int:
    return int(trial_id.partition("-")[2] or 1)
