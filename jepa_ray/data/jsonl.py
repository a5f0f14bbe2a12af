"""The reference's data format: JSON lines of `{"messages": [system, user, assistant]}`, the system message optional.

`json_lines` reads the rows of a file in any format; `from_messages` turns one row of this format into an example. Every error
names the file, the line and the expected content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jepa_ray.data.example import Example

SHAPE = '{"messages": [{"role": "system", "content": ...}, {"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}'


def read_bytes(path: Path) -> bytes:
    """Contents of a file; ValueError with one sentence if it cannot be read."""
    try:
        if path.is_fifo():  # reading would wait for a writer, perhaps forever
            raise ValueError(f"{path}: is a pipe; write its contents to a file and name that")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file (paths are relative to the folder the command is typed in)") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode(raw: bytes, where: str) -> str:
    """UTF-8 text, without a byte order mark."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start + 1}); save the file as UTF-8") from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, row) of every line that is not blank. Blank lines count as lines."""
    # Split at newlines only: str.splitlines also splits at U+2028 and others, which are legal inside a JSON string.
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield number, parse_json(decode(line, where), where, f"expected one {SHAPE} per line")


def parse_json(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where}: not JSON ({error.msg} at {place}); {expected}") from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or thousands of nested brackets
        raise ValueError(f"{where}: JSON that cannot be parsed ({error}); {expected}") from error


def from_messages(row: dict[str, Any], where: str, name: str) -> Example:
    """The example of a row of `SHAPE`, with id `name`; the row's other keys become its `extra`.

    Raises ValueError, beginning with `where`, for a missing or repeated role and for content that is empty or not a string.
    """
    messages = row.get("messages")
    if not isinstance(messages, list):
        raise ValueError(f'{where}: no list under "messages"; expected {SHAPE}')
    contents: dict[str, str] = {}
    for position, message in enumerate(messages, start=1):
        role, content = _message(message, f"{where}: message {position}")
        if role in contents:
            raise ValueError(f"{where}: two {role} messages; expected one user and one assistant message (a single turn)")
        contents[role] = content
    for role in ("user", "assistant"):
        if role not in contents:
            raise ValueError(f"{where}: no {role} message; expected {SHAPE}")
    extra = {key: value for key, value in row.items() if key != "messages"}
    for key, value in extra.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:  # from Parquet: dates, bytes, decimals
            raise ValueError(f"{where}: {key} is {kind(value)}, which JSON cannot represent; drop it, or make it a string") from error
    return Example(name, contents.get("system", ""), contents["user"], contents["assistant"], extra)


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f'{where} is not {{"role": ..., "content": ...}}')
    role, content = message["role"], message.get("content")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"{where} has the role {role!r}; expected system, user or assistant")
    if not isinstance(content, str):
        raise ValueError(f"{where} ({role}): content is {kind(content)}; expected a string")
    if role != "system" and not content.strip():
        raise ValueError(f"{where} ({role}): content is empty; both views need at least one character")
    return role, content


def kind(value: Any) -> str:
    """A value's type in words, for an error."""
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number", type(None): "missing or null"}
    return names.get(type(value), f"a value of type {type(value).__name__}")
