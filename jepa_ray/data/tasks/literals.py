"""Lists of strings in rows: given as lists, or as the text of a list literal if the format has only strings (CSV)."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from typing import Any


def strings(value: Any, where: str, key: str) -> list[str]:
    """The strings of `value`, stripped: `value` is a list, or the text of one in JSON or Python. Nothing in it is evaluated.

    Raises ValueError, beginning with `where`, if it is neither, is empty, or contains an empty string or another type.
    """
    items = _parse(value) if isinstance(value, str) else value
    if not (isinstance(items, list) and items and all(isinstance(item, str) and item.strip() for item in items)):
        raise ValueError(f'{where}: expected a list of strings, none of them empty, under {key}, such as ["one", "two"]')
    return [item.strip() for item in items]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        items = ast.literal_eval(text.strip())
        literals = [token for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline) if token.type == tokenize.STRING]
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return None
    # Python reads ['one' 'two'], as NumPy prints an array without commas, as the single string "onetwo".
    return items if isinstance(items, list) and len(items) == len(literals) else None
