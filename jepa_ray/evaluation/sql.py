"""The SQL judge: an answer is correct if both queries, run on the same database, return the same rows.

The reference implementation compares the output of the sqlite3 command line and ignores its exit code, so a query that crashes
equals one without rows. Here a crash is an error and never correct; the reference's rule is reported as `paper_correct`, computed
from the same runs.

A model may write anything, so predictions run where they can do no harm: the file is opened read-only and immutable, an authorizer
allows only reading, and time, rows and the size of values are bounded.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.data.example import Example
from jepa_ray.data.tasks.spider import DATABASES
from jepa_ray.evaluation.metrics import Score, compare_text

Row = tuple[Any, ...]

SECONDS = 5.0
"""Wall-clock limit of one query. Queries on Spider's databases take milliseconds."""
MAX_ROWS = 10_000
"""Rows that a prediction may return, or as many as the reference returns if that is more."""
MAX_GOLD_ROWS = 200_000
"""Rows that a reference may return: some of Spider's references list a whole table."""
MAX_CHARACTERS = 10_000_000
"""Total characters and bytes in all values of a result."""
MAX_VALUE = 1_000_000
"""Bytes of one value, so that no single step builds gigabytes."""
STEPS = 1000
"""Virtual-machine steps of sqlite between two checks of the clock: microseconds."""

_ALLOWED = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))
_SQLITE_HEADER = b"SQLite format 3\0"
_NAME = re.compile(r"[\w.-]*\w")
_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<quoted>'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|`(?:[^`]|``)*(?:`|\Z)|\[[^\]]*(?:\]|\Z))
      | (?P<word>[\w$]+)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
"""SQL tokens of sqlite, as far as needed here; matches any text. An unterminated comment or quotation extends to the end."""


def make_judge(
    data: DataConfig, evaluation: EvaluationConfig, *, seconds: float = SECONDS, max_rows: int = MAX_ROWS
) -> Callable[[str, str, Mapping[str, Any]], Score]:
    """The judge for the databases that `data` names. Raises ValueError if it names none, or not a folder.

    Thread-safe. It holds connections, so create it in the process that judges.
    """
    _check(data)
    return SQLJudge(
        folder=None if data.databases is None else Path(data.databases),
        strict=evaluation.sql_strict,
        seconds=seconds,
        max_rows=max_rows,
    )


def missing_databases(examples: Iterable[Example], data: DataConfig) -> list[str]:
    """One sentence with the remedy if examples need databases that do not exist, else empty. ValueError as in `make_judge`."""
    _check(data)
    needed = sorted({str(example.extra.get("db_id", "")) for example in examples})
    folder = None if data.databases is None else Path(data.databases)
    missing = [db_id for db_id in needed if not (db_id in DATABASES if folder is None else _is_database(_path(folder, db_id)))]
    if not missing:
        return []
    shown = ", ".join(db_id or "(no name)" for db_id in missing[:5]) + (", ..." if len(missing) > 5 else "")
    where = "the built-in databases" if folder is None else f"data.databases={folder}"
    return [f"{len(missing)} of the {len(needed)} databases that the examples need are missing from {where}: {shown}; {_REMEDY}"]


_REMEDY = (
    "set data.databases=FOLDER to the folder `database` of the public Spider release (FOLDER/<db_id>/<db_id>.sqlite), "
    "or base.evaluation.judge=text to compare the queries as text"
)


def _check(data: DataConfig) -> None:
    if data.databases is None and data.train is not None:
        raise ValueError(f"data.train={data.train}: its queries are judged by running them, but data.databases is not given: {_REMEDY}")
    if data.databases is not None and not Path(data.databases).is_dir():
        raise ValueError(f"data.databases={data.databases} is not a folder: {_REMEDY}")


def _path(folder: Path, db_id: str) -> Path | None:
    return folder / db_id / f"{db_id}.sqlite" if _NAME.fullmatch(db_id) else None


def _is_database(path: Path | None) -> bool:
    """Whether the file exists and begins like a database (a Git LFS pointer does not)."""
    try:
        with open(path or "", "rb") as file:
            return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
    except OSError:
        return False


@dataclass(frozen=True)
class Outcome:
    """The result of running one text."""

    rows: list[Row]
    """Rows of a query that ran to its end; else empty."""
    columns: int
    """Number of the query's columns, even if it returns no row."""
    error: str | None
    """Why the query did not run to its end; None if it did."""
    printed: str | None
    """The output of the sqlite3 command line; None if one of our limits cut it off."""


@dataclass
class SQLJudge:
    """(prediction, reference, extra) -> Score, where `extra["db_id"]` names the database."""

    folder: Path | None
    strict: bool
    seconds: float
    max_rows: int
    _connections: dict[str, sqlite3.Connection] = field(default_factory=dict)
    _references: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """One thread at a time uses the connections and `_deadline`."""
    _deadline: float = 0.0

    def __call__(self, prediction: str, reference: str, extra: Mapping[str, Any]) -> Score:
        """Correct if both queries run and return the same rows (`same_rows`).

        `error` says why there are not two results to compare. It begins with "gold: " if the reference or the database is the cause.
        """
        exact, prefix, contains = compare_text(prediction, reference)
        db_id = str(extra.get("db_id", ""))
        with self._lock:
            try:
                connection = self._connect(db_id)
            except (OSError, sqlite3.Error) as problem:
                return Score(False, exact, prefix, contains, error=f"gold: {problem}", paper_correct=False)
            if (db_id, reference) not in self._references:
                self._references[db_id, reference] = self._run(connection, reference, MAX_GOLD_ROWS)
            gold = self._references[db_id, reference]
            predicted = gold if exact else self._run(connection, prediction, max(self.max_rows, len(gold.rows)))
        error = predicted.error if gold.error is None else f"gold: {gold.error}"
        return Score(
            correct=error is None
            and predicted.columns == gold.columns
            and same_rows(predicted.rows, gold.rows, in_order=self.strict or has_order(reference)),
            exact=exact,
            prefix_correct=prefix,
            contains=contains,
            error=error,
            paper_correct=predicted.printed is not None and predicted.printed == gold.printed,
        )

    def _connect(self, db_id: str) -> sqlite3.Connection:
        """OSError if there is no such database."""
        if db_id in self._connections:
            return self._connections[db_id]
        if self.folder is None:
            if db_id not in DATABASES:
                raise FileNotFoundError(f"no built-in database {db_id!r}; known: {', '.join(DATABASES)}")
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            connection.executescript(DATABASES[db_id])
        else:
            path = _path(self.folder, db_id)
            if path is None or not _is_database(path):
                raise FileNotFoundError(f"no SQLite database {db_id!r} in data.databases={self.folder}")
            # immutable: no lock files next to it, so a read-only folder is enough.
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        connection.text_factory = _text
        connection.execute("PRAGMA query_only = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        if sys.version_info >= (3, 12):
            # Spider writes strings in double quotes, which some builds of sqlite refuse.
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, True)
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS)
        connection.set_authorizer(_authorize)
        self._connections[db_id] = connection
        return connection

    def _run(self, connection: sqlite3.Connection, sql: str, max_rows: int) -> Outcome:
        """Run the text as the command line would: statement after statement until one fails. Only a single query has a result."""
        self._deadline = time.monotonic() + self.seconds
        queries = statements(sql)
        error = None if len(queries) == 1 else f"expected one query, found {len(queries)} statements"
        if error is None and (word := _first_word(queries[0])) not in ("SELECT", "WITH"):
            error = f"expected a query that begins with SELECT or WITH, not {word[:20]!r}"
        rows: list[Row] = []
        characters = columns = 0
        try:
            for statement in queries:
                cursor = connection.execute(statement)
                columns = len(cursor.description or ())
                for row in cursor:
                    rows.append(row)
                    characters += sum(len(value) for value in row if isinstance(value, str | bytes))
                    if len(rows) > max_rows:
                        return Outcome([], 0, error or f"more than {max_rows:,} rows", None)
                    if characters > MAX_CHARACTERS:
                        return Outcome([], 0, error or f"more than {MAX_CHARACTERS:,} characters of text", None)
        # ValueError: a NUL, or half of a surrogate pair.
        except (sqlite3.Error, sqlite3.Warning, ValueError) as problem:
            if time.monotonic() > self._deadline:
                return Outcome([], 0, error or f"took more than {self.seconds:g} s", None)
            # By then the command line has printed the rows before the failure.
            return Outcome([], 0, error or str(problem), printed(rows))
        return Outcome([] if error else rows, columns, error, printed(rows))


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """Allow only reading: no writing, PRAGMA, ATTACH, transaction or extension."""
    if action in _ALLOWED and (second or "").lower() != "load_extension":
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _text(value: bytes) -> str:
    """Decode leniently: some of Spider's databases contain text that is not UTF-8."""
    return value.decode(errors="replace")


def same_rows(one: list[Row], other: list[Row], in_order: bool) -> bool:
    """Whether the rows are equal, as lists or as multisets. The order of columns matters, their names do not.

    Numbers are compared by value (1 equals 1.0), NULL equals NULL, and a number never equals a text. Fractions are compared to 12
    significant digits, because the last digits of a sum depend on the order in which a query reads its rows.
    """
    if len(one) != len(other):
        return False
    one, other = [tuple(map(_rounded, row)) for row in one], [tuple(map(_rounded, row)) for row in other]
    return one == other if in_order else Counter(one) == Counter(other)


def _rounded(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) and not value.is_integer() else value


def printed(rows: list[Row]) -> str | None:
    """The rows as the sqlite3 command line prints them in list mode. None if that is not UTF-8: the reference counts that as wrong."""
    text = "".join("|".join(map(_shown, row)) + "\n" for row in rows)
    return None if "\ufffd" in text else text


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        digits = f"{value:.15g}"
        if digits.lstrip("-") == "inf":
            return digits.replace("inf", "Inf")
        mantissa, exponent, power = digits.partition("e")
        return mantissa + ("" if "." in mantissa else ".0") + exponent + power
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.partition("\0")[0]


def statements(sql: str) -> list[str]:
    """The statements of a text, without those that are empty or only comments."""
    parts, current, has_content = [], "", False
    for match in _TOKEN.finditer(sql):
        if match.group() == ";":
            parts += [current] if has_content else []
            current, has_content = "", False
        else:
            current += match.group()
            has_content |= match.lastgroup != "space"
    return parts + ([current] if has_content else [])


def _first_word(sql: str) -> str:
    return next(match.group().upper() for match in _TOKEN.finditer(sql) if match.lastgroup != "space")


def has_order(sql: str) -> bool:
    """Whether the query itself, not only a part of it in parentheses, has an ORDER BY."""
    depth, before = 0, ""
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "space":
            continue
        token = match.group().upper()
        if token == "BY" and before == "ORDER" and depth == 0:
            return True
        depth += {"(": 1, ")": -1}.get(token, 0)
        before = token
    return False
