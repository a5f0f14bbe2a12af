"""The tables of a results folder. If a file is damaged, it is named, and only its own trial is missing.

This module writes nothing: the sweep's own command sets damaged files aside. Commands whose output is a number to rely on refuse a folder
that has any (`refuse_damaged`); the report is written all the same and says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jepa_ray import results

SCHEMAS = {"trials": results.TRIALS, "metrics": results.METRICS, "predictions": results.PREDICTIONS}


def check(folder: Path) -> None:
    """Raises ValueError with a suggestion if `folder` is missing or not a sweep's. A sweep that has only just started is accepted."""
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        close = difflib.get_close_matches(folder.name, siblings, n=1)
        meant = f"did you mean {folder.parent / close[0]}?" if close else "name the folder of a sweep, such as results/lora"
        raise ValueError(f"{folder}: no such folder; {meant}")
    if not any((folder / name).exists() for name in ("trials", "sweep.yaml", "study.db")):
        raise ValueError(
            f"{folder}: not the folder of a sweep (it has neither trials/ nor sweep.yaml); name the folder of a sweep, such as results/lora"
        )


def read_sound(
    folder: Path, table: str, notes: list[str], columns: Sequence[str] | None = None, where: results.Filters = ()
) -> pd.DataFrame:
    """These columns (None: all) of the rows of one table that satisfy all of `where`; adds what is missing or left out to `notes`."""
    if not (folder / table).is_dir():
        notes.append(f"{table}/ is missing, and so is everything computed from it.")
    try:
        if table == "trials":
            return results.read_trials(folder, columns)
        read = results.read_metrics if table == "metrics" else results.read_predictions
        return read(folder, columns, list(where) or None)
    except (pa.ArrowException, OSError):
        paths = results.files(folder / table)
        damaged = {path for path, _ in results.unreadable(folder, table)}
        shown = ", ".join(path.name for path in sorted(damaged)[:3]) + (" and more" if len(damaged) > 3 else "")
        notes.append(
            f"{len(damaged)} of {len(paths)} files in {table}/ cannot be read and are left out: {shown}. `{_repair_command(folder)}` "
            "sets them aside and runs their trials again."
        )
        good = [path for path in paths if path not in damaged and (folder / "trials" / path.name).exists()]
        return load(good, table, columns, where)


def load(paths: Sequence[Path], table: str, columns: Sequence[str] | None, where: results.Filters = ()) -> pd.DataFrame:
    """The rows of these files; no rows without a file."""
    schema = SCHEMAS[table]
    dataset = ds.dataset([str(path) for path in paths], schema=schema, format="parquet") if paths else ds.dataset(schema.empty_table())
    condition = pq.filters_to_expression(list(where)) if where else None
    frame = dataset.to_table(columns=None if columns is None else list(columns), filter=condition).to_pandas()
    assert isinstance(frame, pd.DataFrame)
    return frame


def refuse_damaged(folder: Path) -> None:
    """Raises ValueError, with the command that sets them aside, if the tables of `folder` have unreadable files."""
    declared = folder / "arms.parquet"
    damaged = [(declared, why)] if declared.exists() and (why := results.damage(declared, results.ARMS)) else []
    for table in SCHEMAS:
        damaged += results.unreadable(folder, table)
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise ValueError(
            f"{damaged[0][0]}{more} cannot be read ({damaged[0][1]}): `{_repair_command(folder)}` sets aside and recreates damaged files"
        )


def _repair_command(folder: Path) -> str:
    return f"python -m jepa_ray.sweep {folder / 'sweep.yaml'}"
