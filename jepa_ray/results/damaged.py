"""Files of a results folder that cannot be read, and what a sweep does about them before it goes on.

    trials/ID.parquet                           set aside; the trial is run again
    metrics/, predictions/, embeddings/         set aside, and with the file the row of its trial, which is run again
    arms.parquet                                set aside, and made again from sweep.yaml
    study.db                                    set aside, and made again from trials/ (`orchestration/recovery.py`)
    selection*.json                             refused: what was frozen is for the user to bring back, or to give up

Set aside is renamed, never deleted: to a name beside its own that no reader takes for a table. Other commands than the sweep write
nothing; they name the file and the sweep's command.
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
"""Tables of which every committed trial has a file."""


def mend(folder: Path) -> list[str]:
    """Set aside what cannot be read of a sweep's tables and of its study.db; a sentence for each file.

    Only for the process that holds the folder. Raises ValueError where a file is sound for all we know, but may not be read or renamed.
    """
    said = []
    for table in SCHEMAS:
        for path, why in unreadable(folder, table):
            row = folder / "trials" / path.name
            # The row first: were we killed in between, the trial would be without a file that its row promises.
            more = f", and the row of its trial to {set_aside(row, 'incomplete').name}" if path != row and row.is_file() else ""
            said.append(f"{path} cannot be read ({why}): renamed to {set_aside(path).name}{more}; its trial is run again.")
    for table in ALWAYS:
        there = {path.name for path in files(folder / table)}
        for row in files(folder / "trials") if there else []:  # a table that is missing as a whole was left out on purpose
            if row.name not in there:
                aside = set_aside(row, "incomplete")
                said.append(f"{folder / table / row.name} is missing: the row of its trial is renamed to {aside.name}; it is run again.")
    database = folder / "study.db"
    if broken := _broken_database(database):
        aside = set_aside(database)
        for ending in ("-journal", "-wal", "-shm"):  # SQLite would play them into the new one
            if (other := database.with_name(database.name + ending)).exists():
                set_aside(other)
        said.append(f"{database} cannot be read ({broken}): renamed to {aside.name}; the studies are made again from trials/.")
    return said


def check_folders(folder: Path) -> None:
    """Raises ValueError where a table's folder is something else: a link to a disk that is not mounted, say."""
    for name in (*SCHEMAS, "data", "scratch"):
        path = folder / name
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            what = "a link that leads nowhere" if path.is_symlink() else "a file"
            raise ValueError(f"{path} is {what}, where a folder is needed: bring the folder back, or rename this, and repeat the command")


def mend_arms(folder: Path) -> list[str]:
    """The same for arms.parquet."""
    path = folder / "arms.parquet"
    why = damage(path, ARMS) or unsound_arms(pq.read_table(path).to_pylist()) if path.exists() or path.is_symlink() else None
    return [f"{path} cannot be read ({why}): renamed to {set_aside(path).name}, and made again from sweep.yaml."] if why else []


def set_aside(path: Path, ending: str = "damaged") -> Path:
    """Rename `path` to the first free one of `NAME.damaged`, `NAME.damaged-2` and so on; in a table's folder, readers skip `_NAME`."""
    mark = "_" if path.parent.name in SCHEMAS else ""
    names = (f"{mark}{path.name}.{ending}" + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
    new = next(found for name in names if not ((found := path.with_name(name)).exists() or found.is_symlink()))
    try:
        return path.rename(new)
    except OSError as error:
        if full_disk.is_full(error):
            raise
        raise ValueError(f"{path} is {ending} and cannot be renamed ({error.strerror}): rename it, and repeat the command") from error


def unreadable(folder: Path, table: str) -> list[tuple[Path, str]]:
    """Files of a table that cannot be read to their end, each with the reason."""
    paths = files(folder / table)
    try:
        rows = _rows(paths, SCHEMAS[table]) if paths else 0
        if table != "trials" or rows == len(paths):
            return []
    except (pa.ArrowException, OSError):
        pass  # one of them is damaged: which?
    found = ((path, damage(path, SCHEMAS[table], rows=1 if table == "trials" else None)) for path in paths)
    return [(path, why) for path, why in found if why is not None]


def damage(path: Path, schema: pa.Schema, rows: int | None = None) -> str | None:
    """What is wrong with a Parquet file; None where it can be read to its end (and has so many rows).

    Raises ValueError where the machine does not let us read it: that says nothing of what it holds.
    """
    if path.is_dir():
        return "it is a folder"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return "it leads nowhere"
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): see to it that it can, and repeat the command") from error
    if not raw:
        return "it is empty"
    try:
        number = pq.read_table(pa.BufferReader(raw), schema=schema).num_rows
    except (pa.ArrowException, OSError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return None if rows is None or number == rows else f"it holds {number} rows instead of {rows}"


def files(folder: Path) -> list[Path]:
    """Files of a table, by name."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith((".", "_")))


def selections(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> content of every selection file, in the order in which they were frozen. Raises ValueError where one cannot be read."""
    paths = sorted(folder.glob("selection*.json"), key=lambda path: (len(path.name), path.name))
    return dict(_selection(path) for path in paths)


def _selection(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        why = None if _is_selection(tree) else "it holds no selection of this version"
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or f"no JSON in UTF-8: {type(error).__name__}"
    if why is not None:
        raise ValueError(
            f"{path} cannot be read ({why}): bring it back from a copy, or rename it to {path.name}.damaged and repeat the command, "
            "and each arm's best is selected again, from its search trials on validation"
        )
    return path.name, tree


def _is_selection(tree: Any) -> bool:
    arms = tree.get("arms") if isinstance(tree, dict) and isinstance(tree.get("sweep"), str) else None
    try:
        return isinstance(arms, dict) and all(TrialConfig.model_validate(best["config"]) is not None for best in arms.values())
    except (ValueError, TypeError, KeyError):
        return False


def _rows(paths: list[Path], schema: pa.Schema) -> int:
    """Rows of all files together: all are read, and none is kept."""
    return sum(batch.num_rows for batch in ds.dataset([str(path) for path in paths], schema=schema, format="parquet").to_batches())


def _broken_database(path: Path) -> str | None:
    """What is wrong with an SQLite file; None where nothing is, or there is none. An empty one is a new one, unless there are trials."""
    if not path.exists():
        return "it leads nowhere" if path.is_symlink() else None
    if path.is_dir():
        return "it is a folder"
    if not path.stat().st_size:
        return "it is empty" if files(path.parent / "trials") else None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            found = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if full_disk.is_full(error):
            raise full_disk.DiskFull(str(error)) from error
        raise ValueError(f"{path} cannot be opened ({error}): see to it that it can, and repeat the command") from error
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else found.splitlines()[0]
