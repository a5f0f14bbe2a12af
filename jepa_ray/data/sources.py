"""Reads examples from files, in the reference's format or the public source's own, and from hub data sets; own data in any format.

    FILE.jsonl                        one row per line
    FILE.json                         an array of rows (Spider's train_spider.json)
    FILE.csv, FILE.tsv, FILE.parquet  rows, with column names
    FOLDER or FOLDER/src.txt          parallel lines in src.txt and targ.txt (NL-RX): rows {src, targ}
    hub:ORG/NAME[@CONFIG]:SPLIT       through the `datasets` library, if it is installed

A row with `messages` is in the reference's format (`jsonl.py`); any other row is in the public source's format, which the task reads.
For own data (`task: text`) the first row decides how all rows of the source are read (`formats.py`).
Nothing is unpickled, and no code that comes with a data set is run.
"""

from __future__ import annotations

import csv
import importlib
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jepa_ray.data.example import Example
from jepa_ray.data.jsonl import decode, from_messages, json_lines, parse_json, read_bytes
from jepa_ray.data.tasks.task import FromRow, Task
from jepa_ray.system.hub import local_only_if_unreachable

FILES = "a .jsonl, .json, .csv, .tsv or .parquet file, a folder with src.txt and targ.txt, or hub:ORG/NAME[@CONFIG]:SPLIT"


class NotReachable(ValueError):
    """A source that may well exist, but not here: it cannot be downloaded."""


_HUB = re.compile(r"hub:(?P<path>[\w.-]+/(?P<name>[\w.-]+))(?:@(?P<config>[\w.-]+))?:(?P<split>\w+)")

Located = tuple[str, str, Any]
"""(its place in the source, the id of its example, the row)"""


def resolve(task: Task, source: str, split: str) -> str:
    """The source that `source` refers to: itself, or the task's public source if it is `paper`. `split`: "train" or "test"."""
    if source != "paper":
        return source
    if split not in task.hub:
        raise ValueError(
            f"data.{split}=paper: the task {task.name} has no public {split} split on the hub; give {FILES}, "
            "with rows in the public release's or the reference's format (README.md)"
        )
    return task.hub[split]


def read(task: Task, source: str) -> list[Example]:
    """All examples of a source, in order, with ids `<stem>:<line or row>`.

    Raises ValueError, one sentence that names file and line, on any malformed content and on a source without examples.
    """
    return read_as(task, source)[0]


def read_as(task: Task, source: str) -> tuple[list[Example], str | None]:
    """The examples of `read`, and the format of the rows in words; None unless the task recognises formats (`Task.detect`)."""
    examples: list[Example] = []
    from_row: FromRow | None = None
    format_: str | None = None
    for where, name, row in _rows(source):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {type(row).__name__} instead of a row; expected an object with named values")
        if task.detect is not None and from_row is None:
            from_row, format_ = task.detect(row, where)
        examples += _checked(from_row(row, where, name) if from_row is not None else _examples(task, where, name, row), where)
    if not examples:
        raise ValueError(f"{source}: contains no example; give a source with at least one row")
    assert len({example.id for example in examples}) == len(examples), f"{source}: an id occurs twice"
    return examples, format_


def _examples(task: Task, where: str, name: str, row: dict[str, Any]) -> list[Example]:
    if "messages" in row:
        example = from_messages(row, where, name)
        try:
            examples = [task.complete(example)]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    else:
        try:
            examples = task.from_row(row, where, name)
        except ValueError as error:
            raise ValueError(f'{error} (or a row in the reference\'s format, {{"messages": [...]}})') from error
    return examples


def _checked(examples: list[Example], where: str) -> list[Example]:
    """The examples of a row in composed form. ValueError if a text is not made of characters."""
    examples = [_composed(example) for example in examples]
    for example in examples:
        try:
            "".join([example.system, example.question, example.code, *(example.views or ())]).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}: half of a surrogate pair, which is not a character; repair or drop the row") from error
    return examples


def _composed(example: Example) -> Example:
    """The example in Unicode's composed form (NFC), the only form that some tokenizers can produce: one spelling for all families."""

    def composed(value: Any) -> Any:
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value)
        if isinstance(value, list | tuple):
            return type(value)(map(composed, value))
        return {composed(key): composed(part) for key, part in value.items()} if isinstance(value, dict) else value

    return Example(**{name: composed(value) for name, value in vars(example).items()})


def _rows(source: str) -> Iterator[Located]:
    if source.startswith("hub:"):
        return _hub(source)
    path = Path(source)
    if path.is_dir() or path.name == "src.txt":
        return _parallel(path if path.is_dir() else path.parent)
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{source}: files with this ending are not supported; expected {FILES}")
    return readers[path.suffix.lower()](path)


def _jsonl(path: Path) -> Iterator[Located]:
    for number, row in json_lines(path):
        yield f"{path}:{number}", f"{path.stem}:{number}", row


def _numbered(path: Path, rows: Any) -> Iterator[Located]:
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", f"{path.stem}:{number}", row


def _json(path: Path) -> Iterator[Located]:
    expected = "expected one array of rows (for one row per line, name the file .jsonl)"
    text = decode(read_bytes(path), str(path))
    rows = parse_json(text, str(path), expected) if text.strip() else []
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {type(rows).__name__} instead of an array; {expected}")
    return _numbered(path, rows)


def _csv(path: Path) -> Iterator[Located]:
    """Every value is a string. Line numbers are those of a row's last line, as a quoted value may span several. In a .tsv file values are
    separated by tabs."""
    tabs = path.suffix.lower() == ".tsv"
    separator = "tabs" if tabs else "commas"
    text = decode(read_bytes(path), str(path))
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # Python's default of 128 K characters is less than a long document
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", strict=True)
    header: list[str] | None = None
    try:
        for values in reader:
            where = f"{path}:{reader.line_num}"
            if not values:
                continue
            if header is None:
                header = values
                if len(set(header)) < len(header):
                    raise ValueError(f"{where}: a column name occurs twice; expected a first line of distinct column names")
                continue
            if len(values) != len(header):
                raise ValueError(f"{where}: {len(values)} values, but {len(header)} columns; put values with {separator} in double quotes")
            yield where, f"{path.stem}:{reader.line_num}", dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV ({error}); expected {separator}, and doubled quotes inside quotes") from error


def _parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    from pyarrow import parquet

    raw = read_bytes(path)
    try:
        rows = parquet.read_table(pyarrow.BufferReader(raw)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({_first_line(error)}); download or write it again") from error
    return _numbered(path, rows)


def _parallel(folder: Path) -> Iterator[Located]:
    sides = {}
    for key in ("src", "targ"):
        path = folder / f"{key}.txt"
        if not path.is_file():
            raise ValueError(f"{path}: no such file; a folder is read as the parallel lines of src.txt and targ.txt; or give {FILES}")
        sides[key] = [line.removesuffix("\r") for line in decode(read_bytes(path), str(path)).rstrip("\r\n").split("\n")]
    if sides["src"] == sides["targ"] == [""]:
        return
    if len(sides["src"]) != len(sides["targ"]):
        raise ValueError(
            f"{folder}: src.txt has {len(sides['src']):,} lines and targ.txt {len(sides['targ']):,}; they must correspond line by line"
        )
    for number, (text, code) in enumerate(zip(sides["src"], sides["targ"], strict=True), start=1):
        yield f"{folder / 'src.txt'}:{number}", f"{folder.resolve().name}:{number}", {"src": text, "targ": code}


def _hub(source: str) -> Iterator[Located]:
    match = _HUB.fullmatch(source)
    if match is None:
        raise ValueError(f"{source}: not of the form hub:ORG/NAME[@CONFIG]:SPLIT, as in hub:openai/gsm8k@main:train")
    local_only_if_unreachable()
    try:
        datasets = importlib.import_module("datasets")  # by name, so that type checks are the same with and without it
    except ImportError as error:
        raise NotReachable(
            f"{source}: needs the datasets library; pip install datasets, or download the split and give its file"
        ) from error
    # Version 4 removed loading scripts: no code that comes with a data set is run, whatever the environment says.
    if int(datasets.__version__.split(".")[0]) < 4:
        raise ValueError(f"{source}: needs datasets 4 or newer, but {datasets.__version__} is installed; pip install -U datasets")
    try:
        rows = list(datasets.load_dataset(match["path"], name=match["config"], split=match["split"]))
    except Exception as error:  # The hub, the network and the file formats raise errors without a common base.
        raise NotReachable(
            f"{source}: cannot be loaded ({type(error).__name__}: {_first_line(error)}); check the name, the configuration and the split; "
            "on a machine without network, download the split elsewhere and give its file (.parquet, .jsonl, .json or .csv)"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{source} row {number}", f"{match['name']}-{match['split']}:{number}", row


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
