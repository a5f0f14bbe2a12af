"""`Record`, the base of all configuration: frozen, strict about keys and types. Also how a value of the file is read and shown."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import textwrap
import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

Value = bool | int | float | str | None
_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}


class Record(BaseModel):
    """Base of every configuration record: frozen, strict about unknown keys and types, finite numbers only.

    `true` is not a number, and neither is `"3"`. `none` means null wherever null is legal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _typed(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        return _checked(value, cls.model_fields[info.field_name].annotation)


def _checked(value: Any, annotation: Any) -> Any:
    """The value unchanged (`none` as None) if its scalar type is in the annotation, else ValueError. pydantic checks the rest."""
    kinds = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else (annotation,)
    if type(None) in kinds and is_none(value):
        return None
    scalars = [kind for kind in kinds if kind in _WORDS]
    if scalars and len(scalars) == sum(kind is not type(None) for kind in kinds):
        if not any(is_a(value, kind) for kind in scalars):
            words = _WORDS[scalars[0]] if len(scalars) == 1 else "a number, text, true or false"
            raise ValueError(f"must be {words}, got {show(value)}")
    elif typing.get_origin(kinds[0]) is tuple and isinstance(value, (list, tuple)):
        return [_checked(item, typing.get_args(kinds[0])[0]) for item in value]
    elif typing.get_origin(kinds[0]) is dict and isinstance(value, dict):
        return {key: _checked(item, typing.get_args(kinds[0])[1]) for key, item in value.items()}
    return value


def is_a(value: Any, kind: type) -> bool:
    """Whether a value is of this scalar kind. A bool is not a number; 3.0 is a whole number."""
    if kind in (bool, str):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Comparisons are false for nan and, unlike float(), accept a whole number of 400 digits.
    return abs(value) <= sys.float_info.max if kind is float else abs(value) < 2**63 and value == int(value)


def is_none(value: Any) -> bool:
    """Whether a value of the file is null: YAML's own null, or the word `none` in any case."""
    return value is None or (isinstance(value, str) and value.lower() == "none")


def show(value: Any) -> str:
    """A value as it would be written in the file."""
    if isinstance(value, str):
        return repr(value)
    if value is None:
        return "none"
    return json.dumps(value, default=str) if isinstance(value, (bool, dict, list, tuple)) else str(value)


def docstrings(record: type[Record]) -> dict[str, str]:
    """Field -> the docstring under it, in the record or in the one from which the field is inherited."""
    out: dict[str, str] = {}
    for owner in reversed(record.__mro__):
        if issubclass(owner, Record) and owner is not Record:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, below in itertools.pairwise(body.body):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                        out[name] = inspect.cleandoc(docstring).replace("\n", " ")
    return out
