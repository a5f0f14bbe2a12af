"""Reading the data format: JSON lines of `{"messages": [system, user, assistant]}`, the system message optional.

Every error names the file, the line and what was expected there. May import: data/example. Not torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jepa_ray.data.example import Example

SHAPE = '{"messages": [{"role": "system", "content": ...}, {"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}'


def read_jsonl(path: Path) -> list[Example]:
    """All examples of a file in order, with ids `<stem>:<line>`; blank lines are skipped, though counted as lines.

    Raises ValueError naming file and line for whatever is not `SHAPE`: malformed JSON, a missing or repeated role, content that
    is empty or no string.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file (paths are relative to the folder the command is typed in)") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    examples = []
    # Split on newlines only: str.splitlines also cuts at U+2028 and others, which are legal inside a JSON string.
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            examples.append(_example(line, f"{path}:{number}", f"{path.stem}:{number}"))
    return examples


def _example(line: bytes, where: str, name: str) -> Example:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno}); expected one {SHAPE} a line") from error
    messages = row.get("messages") if isinstance(row, dict) else None
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
    return Example(name, contents.get("system", ""), contents["user"], contents["assistant"], extra)


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f'{where} is not {{"role": ..., "content": ...}}')
    role, content = message["role"], message.get("content")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"{where} has the role {role!r}; expected system, user or assistant")
    if not isinstance(content, str):
        raise ValueError(f"{where} ({role}): content is {_kind(content)}; expected a string")
    if role != "system" and not content.strip():
        raise ValueError(f"{where} ({role}): content is empty; both views need at least one character")
    return role, content


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number", type(None): "missing or null"}
    return names[type(value)]
