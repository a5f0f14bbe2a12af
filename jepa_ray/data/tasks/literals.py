"""Lists of strings in rows: given as such, or, where a format has strings only (CSV), as text that holds a list literal."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from typing import Any


def strings(value: Any, where: str, key: str) -> list[str]:
    """The strings of `value`, without surrounding space: a list, or the text of one in JSON or Python. Nothing in it is evaluated.

    Raises ValueError beginning with `where` where it is neither, is empty, or holds something else or an empty string.
    """
    found = _parse(value) if isinstance(value, str) else value
    if not (isinstance(found, list) and found and all(isinstance(item, str) and item.strip() for item in found)):
        raise ValueError(f'{where}: expected a list of strings, none of them empty, under {key}, such as ["one", "two"]')
    return [item.strip() for item in found]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(text.strip())
        literals = [token for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline) if token.type == tokenize.STRING]
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return None
    # Without commas, as NumPy prints an array, Python would read ['one' 'two'] as the single string "onetwo".
    return found if isinstance(found, list) and len(found) == len(literals) else None
