"""Files of a results folder that cannot be read, and what a sweep does about them before it continues.

    trials/ID.parquet                           set aside; the trial runs again
    metrics/, predictions/, embeddings/         set aside together with the row of the trial, which runs again
    arms.parquet                                set aside and rebuilt from sweep.yaml
    study.db                                    set aside and rebuilt from trials/ (`orchestration/rebuild_study.py`)
    selection*.json                             refused: only the user can restore, or give up, a frozen selection

"Set aside" means renamed, never deleted: in the same folder, to a name that no reader takes for a table. Commands other than the sweep
write nothing; they name the file and the sweep's command.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jepa_ray.config import TrialConfig
from jepa_ray.results.schema import ARMS, EMBEDDINGS, METRICS, PREDICTIONS, TRIALS, unsound_arms
from jepa_ray.system import full_disk

SCHEMAS = {"trials": TRIALS, "metrics": METRICS, "predictions": PREDICTIONS, "embeddings": EMBEDDINGS}
ALWAYS = ("metrics", "predictions")
"""Tables in which every committed trial has a file."""


def mend(folder: Path) -> list[str]:
    """Set aside the files of a sweep's tables, and its study.db, that cannot be read. Returns a sentence for each file.

    Only for the process that has locked the folder. Raises ValueError if permissions prevent reading or renaming a file: it may be sound.
    """
    messages = []
    for table in SCHEMAS:
        for path, why in unreadable(folder, table):
            row = folder / "trials" / path.name
            # The row first: after a kill in between, a row would otherwise promise a file that does not exist.
            more = f", and the row of its trial to {set_aside(row, 'incomplete').name}" if path != row and row.is_file() else ""
            messages.append(f"{path} cannot be read ({why}): renamed to {set_aside(path).name}{more}; its trial runs again.")
    for table in ALWAYS:
        present = {path.name for path in files(folder / table)}
        for row in files(folder / "trials") if present else []:  # a table that is missing as a whole was left out on purpose
            if row.name not in present:
                aside = set_aside(row, "incomplete")
                messages.append(f"{folder / table / row.name} is missing: the row of its trial is renamed to {aside.name}; it runs again.")
    database = folder / "study.db"
    if broken := _broken_database(database):
        aside = set_aside(database)
        for ending in ("-journal", "-wal", "-shm"):  # SQLite would apply them to the new database
            if (other := database.with_name(database.name + ending)).exists():
                set_aside(other)
        messages.append(f"{database} cannot be read ({broken}): renamed to {aside.name}; the studies are rebuilt from trials/.")
    return messages


def check_folders(folder: Path) -> None:
    """Raises ValueError if a table's folder is something else, such as a link to a disk that is not mounted."""
    for name in (*SCHEMAS, "data", "scratch", "models"):
        path = folder / name
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            what = "a link that leads nowhere" if path.is_symlink() else "a file"
            raise ValueError(f"{path} is {what}, but must be a folder: restore the folder, or rename this, and repeat the command")


def mend_arms(folder: Path) -> list[str]:
    """`mend` for arms.parquet."""
    path = folder / "arms.parquet"
    why = damage(path, ARMS) or unsound_arms(pq.read_table(path).to_pylist()) if path.exists() or path.is_symlink() else None
    return [f"{path} cannot be read ({why}): renamed to {set_aside(path).name} and rebuilt from sweep.yaml."] if why else []


def set_aside(path: Path, ending: str = "damaged") -> Path:
    """Rename `path` to the first free name of `NAME.damaged`, `NAME.damaged-2`, ...; in a table's folder `_NAME...`, which readers skip."""
    mark = "_" if path.parent.name in SCHEMAS else ""
    names = (f"{mark}{path.name}.{ending}" + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
    new = next(free for name in names if not ((free := path.with_name(name)).exists() or free.is_symlink()))
    try:
        return path.rename(new)
    except OSError as error:
        if full_disk.is_full(error):
            raise
        raise ValueError(f"{path} is {ending} and cannot be renamed ({error.strerror}): rename it and repeat the command") from error


def unreadable(folder: Path, table: str) -> list[tuple[Path, str]]:
    """Files of a table that cannot be read completely, each with the reason."""
    paths = files(folder / table)
    try:
        rows = _rows(paths, SCHEMAS[table]) if paths else 0
        if table != "trials" or rows == len(paths):
            return []
    except (pa.ArrowException, OSError):
        pass  # at least one file is damaged: find out which
    damages = ((path, damage(path, SCHEMAS[table], rows=1 if table == "trials" else None)) for path in paths)
    return [(path, why) for path, why in damages if why is not None]


def damage(path: Path, schema: pa.Schema, rows: int | None = None) -> str | None:
    """What is wrong with a Parquet file; None if it can be read completely (and has this many rows).

    Raises ValueError if the operating system refuses to read it, which says nothing about the contents.
    """
    if path.is_dir():
        return "it is a folder"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return "it is missing, or a link that leads nowhere"
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): make it readable and repeat the command") from error
    if not raw:
        return "it is empty"
    try:
        number = pq.read_table(pa.BufferReader(raw), schema=schema).num_rows
    except (pa.ArrowException, OSError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return None if rows is None or number == rows else f"it contains {number} rows instead of {rows}"


def files(folder: Path) -> list[Path]:
    """Files of a table, sorted by name."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith((".", "_")))


def selections(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> content of every selection file, in the order of freezing. Raises ValueError if one cannot be read."""
    paths = sorted(folder.glob("selection*.json"), key=lambda path: (len(path.name), path.name))
    return dict(_selection(path) for path in paths)


def _selection(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        why = None if _is_selection(tree) else "it does not contain a selection of this version"
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or f"it is not JSON in UTF-8: {type(error).__name__}"
    if why is not None:
        raise ValueError(
            f"{path} cannot be read ({why}): restore it from a copy; or rename it to {path.name}.damaged and repeat the command, "
            "which selects each arm's best again from its search trials on validation"
        )
    return path.name, tree


def _is_selection(tree: Any) -> bool:
    arms = tree.get("arms") if isinstance(tree, dict) and isinstance(tree.get("sweep"), str) else None
    try:
        return isinstance(arms, dict) and all(TrialConfig.model_validate(best["config"]) is not None for best in arms.values())
    except (ValueError, TypeError, KeyError):
        return False


def _rows(paths: list[Path], schema: pa.Schema) -> int:
    """Number of rows in all files; reads every row and keeps none."""
    return sum(batch.num_rows for batch in ds.dataset([str(path) for path in paths], schema=schema, format="parquet").to_batches())


def _broken_database(path: Path) -> str | None:
    """What is wrong with an SQLite file; None if it is sound or missing. An empty file is a new database, unless trials exist."""
    if not path.exists():
        return "it is a link that leads nowhere" if path.is_symlink() else None
    if path.is_dir():
        return "it is a folder"
    if not path.stat().st_size:
        return "it is empty" if files(path.parent / "trials") else None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            verdict = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if full_disk.is_full(error):
            raise full_disk.DiskFull(str(error)) from error
        raise ValueError(f"{path} cannot be opened ({error}): make it readable and repeat the command") from error
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else verdict.splitlines()[0]
