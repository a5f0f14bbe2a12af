"""The formats of own data: which columns of a row are the Text view, the Code view and the system message.

    messages            {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    ShareGPT            {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    Alpaca              {"instruction": ..., "input": ..., "output": ...}
    prompt/completion   {"prompt": ..., "completion": ...}, both text or both lists of messages
    question/answer     {"question": ..., "answer": ...}
    parallel lines      src.txt and targ.txt
    columns             any two, named by `data.text` and `data.code`

The first row of a source decides on the format of all its rows. A row that fits two formats, or none, is refused with the columns that
it has. Values that are numbers count as the text that JSON writes for them, and booleans as True and False, which is what pandas writes
into a .csv file. A `system` column, where a format does not have its own system message, is the system message; `data.system` names another
column, or is the text itself, of at least two words (a single word would be the name of a column that a file lacks).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from jepa_ray.config import DataConfig
from jepa_ray.config.messages import near_to
from jepa_ray.data.conversations import MESSAGES, SHAREGPT, Turn, conversation, turns
from jepa_ray.data.example import Example
from jepa_ray.data.jsonl import kind
from jepa_ray.data.tasks.task import Row

SYSTEM = "system"
"""Column of the system message, if `data.system` names no other."""
MOST_NAMES = 20
"""Columns that an error lists."""
COLUMNS = "give data.text=COLUMN and data.code=COLUMN"
Read = Callable[[Row, str, str], Example]
"""(row, its place, its id) -> the example."""


@dataclass(frozen=True)
class Format:
    """One way in which rows are written."""

    name: str
    keys: tuple[str, ...]
    """A row that has all of these is in this format."""
    said: str
    """Which columns are the views, in words."""
    read: Read
    optional: tuple[str, ...] = (SYSTEM,)
    """Other columns that are read if a row has them."""


def value(row: Row, key: str, where: str, *, optional: bool = False) -> str:
    """A column's value as text. `optional`: it may be missing, null or empty. ValueError, beginning with `where`, if it is no text."""
    given = row.get(key)
    if given is None and optional:
        return ""
    if key not in row:
        raise ValueError(f"{where}: no {key}, which the first row has; the columns here are {_names(row)}")
    if isinstance(given, bool):
        given = str(given)
    if isinstance(given, int) or (isinstance(given, float) and math.isfinite(given)):
        given = json.dumps(given)
    if not isinstance(given, str):
        raise ValueError(f"{where}: {key} is {kind(given)}; expected text")
    if not (optional or given.strip()):
        raise ValueError(f"{where}: {key} is empty; both views need at least one character, so drop the row")
    return given


def _names(row: Row) -> str:
    names = [name if name.isprintable() else repr(name) for name in map(_short, map(str, row))]
    return ", ".join([*names[:MOST_NAMES], *([f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else [])]) or "none"


def _columns(text: str, code: str) -> Read:
    return lambda row, where, name: Example(name, "", value(row, text, where), value(row, code, where))


def _alpaca(row: Row, where: str, name: str) -> Example:
    instruction, given = value(row, "instruction", where), value(row, "input", where, optional=True)
    text = f"{instruction}\n\n{given}" if given.strip() else instruction
    return Example(name, "", text, value(row, "output", where))


def _completion(row: Row, where: str, name: str) -> Example:
    if not any(isinstance(row.get(key), list) for key in ("prompt", "completion")):
        return Example(name, "", value(row, "prompt", where), value(row, "completion", where))
    asked, answered = _side(row, "prompt", "user", where), _side(row, "completion", "assistant", where)
    if not any(role == "assistant" for role, _ in answered):
        raise ValueError(f"{where}: completion has no assistant message; its last one is the answer (the Code view)")
    return conversation([*asked, *answered], where, name)


def _side(row: Row, key: str, role: str, where: str) -> list[Turn]:
    return turns(row[key], where, key) if isinstance(row.get(key), list) else [(role, value(row, key, where))]


FORMATS: tuple[Format, ...] = (
    Format(
        "messages",
        ("messages",),
        "last user message -> last assistant message, all messages before them in the prompt",
        lambda row, where, name: conversation(turns(row.get("messages"), where, "messages", MESSAGES), where, name),
    ),
    Format(
        "ShareGPT",
        ("conversations",),
        "last human message -> last gpt message, all messages before them in the prompt",
        lambda row, where, name: conversation(turns(row.get("conversations"), where, "conversations", SHAREGPT), where, name),
    ),
    Format("Alpaca", ("instruction", "output"), "instruction + input -> output", _alpaca, ("input", SYSTEM)),
    Format("prompt/completion", ("prompt", "completion"), "prompt -> completion", _completion),
    Format("question/answer", ("question", "answer"), "question -> answer", _columns("question", "answer")),
    Format("parallel lines", ("src", "targ"), "src -> targ", _columns("src", "targ"), ()),
)


def detect(
    first: Row, where: str, data: DataConfig, formats: tuple[Format, ...] = FORMATS, also_used: tuple[str, ...] = ()
) -> tuple[Read, str]:
    """The function that reads every row of a source, and the format in words, from the first row and the columns that `data` names.
    `also_used`: columns that the caller reads itself.

    ValueError, beginning with the first row's place `where`: unknown column, unknown format, or one that two formats fit.
    """
    if data.text is not None or data.code is not None:
        format_ = _by_columns(first, where, data)
    else:
        fitting = [one for one in formats if all(key in first for key in one.keys)]
        if not fitting:
            known = ", ".join(f"{one.name} ({', '.join(one.keys)})" for one in formats)
            raise ValueError(f"{where}: the columns {_names(first)} are none of the known formats: {known}; {COLUMNS}")
        if len(fitting) > 1:
            names = " and as ".join(f"{one.name} ({one.said})" for one in fitting)
            talks = any(one.name in ("messages", "ShareGPT") for one in fitting)
            remedy = "remove the columns that are not meant" if talks else COLUMNS
            raise ValueError(f"{where}: the row can be read as {names}; {remedy}")
        (format_,) = fitting
    read, system_said, system_column = _with_system(first, where, data, format_)
    used = {*format_.keys, *format_.optional, *also_used, system_column}
    unused = {key: None for key in first if key not in used}
    left_out = f"; not used: {_names(unused)}" if unused else ""
    return read, f"{format_.name}: {format_.said}{system_said}{left_out}"


def _by_columns(first: Row, where: str, data: DataConfig) -> Format:
    if data.text is None or data.code is None:
        given, missing = ("text", "code") if data.code is None else ("code", "text")
        raise ValueError(f"data.{given} is given without data.{missing}; give both, or neither to have the format recognised")
    if data.text == data.code:
        raise ValueError(f"data.text and data.code are both {data.text!r}, so each answer would be its own question; name two columns")
    for key in ("messages", "conversations"):
        if isinstance(first.get(key), list):
            raise ValueError(
                f"{where}: data.text and data.code name columns, but the rows contain conversations under {key}; "
                f"drop data.text and data.code, or remove {key} from the rows"
            )
    known_column(first, where, "text", data.text)
    known_column(first, where, "code", data.code)
    return Format("columns", (data.text, data.code), f"{data.text} -> {data.code}", _columns(data.text, data.code), ())


def known_column(first: Row, where: str, key: str, column: str) -> None:
    """ValueError, beginning with the first row's place `where`, if the row lacks the column that `data` names under `key`."""
    if column not in first:
        near = near_to(column, [str(name) for name in first])
        also = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"{where}: data.{key} is {column!r}, but the columns are {_names(first)}{also}")


def _with_system(first: Row, where: str, data: DataConfig, format_: Format) -> tuple[Read, str, str | None]:
    """(the format's function, which also takes the system message from where `data.system` says; that in words; its column)."""
    column = data.system if data.system in first else SYSTEM if data.system is None and SYSTEM in format_.optional else None
    if data.system is not None and column is None:
        near = near_to(data.system, [str(key) for key in first], 0.8)
        if near or not len(data.system.split()) > 1:
            also = f"did you mean {near!r}?" if near else "name one of them, or write a message of several words"
            raise ValueError(f"{where}: data.system is {_short(data.system)!r}, but the columns are {_names(first)}; {also}")

    def read(row: Row, where: str, name: str) -> Example:
        example = format_.read(row, where, name)
        if example.system:
            return example
        system = value(row, column, where, optional=True) if column is not None else data.system or ""
        return replace(example, system=system.strip())

    if data.system is not None:
        said = f"; system message: {f'column {column}' if column is not None else f'the text {_short(data.system)!r}'}"
    else:
        said = f"; system message: column {SYSTEM}" if column is not None and column in first else ""
    return read, said, column


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
