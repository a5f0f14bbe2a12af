"""The keys that a sweep file may contain, and error sentences for the rest: each names the rule, the value and the remedy."""

from __future__ import annotations

import difflib
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TextIO

from pydantic import BaseModel

from jepa_ray.config import CrossEntropyConfig, LoraConfig, MaskingConfig, ObjectiveConfig, OptimConfig, StageConfig, SweepConfig
from jepa_ray.config.record import Record, show
from jepa_ray.config.space import Distribution

SEARCHABLE: dict[str, type[Record]] = {
    "optim": OptimConfig,
    "objective": ObjectiveConfig,
    "lora": LoraConfig,
    "masked": MaskingConfig,
    "pretrain": StageConfig,
}
"""Parts of a TrialConfig that `space` may search. Of the first stage only the optimizer settings are searchable."""
_WRITTEN = {
    "Distribution": "a distribution such as {float: [0.1, 10], log: true}, {int: [0, 4]} or {choice: [0, 0.5]}",
    "ObjectiveConfig": "none (the baseline) or an objective such as {distance: cosine, lambda: 1, k: 1}",
}

_TWICE = ("pretrain.", "task.")
"""Sections whose keys also appear elsewhere: never suggested for a misplaced key."""

Place = Sequence[Any]
Finding = tuple[Place, str]
"""Path of the faulty key, and the sentence that says what is wrong."""


def leaves_of(part: str) -> dict[str, Any]:
    """Names (as written in the file) and types of a part's searchable parameters.

    Excludes the tokens of a method's cross-entropy, which decide what baseline it is compared with (`cross_entropy`).
    """
    fixed = CrossEntropyConfig.model_fields if part == "optim" else {}
    return {field.alias or name: field.annotation for name, field in SEARCHABLE[part].model_fields.items() if name not in fixed}


def full_path(name: str) -> str:
    """`learning_rate` becomes `optim.learning_rate`. First-stage parameters are always written in full (`pretrain.learning_rate`)."""
    paths = [f"{part}.{name}" for part in SEARCHABLE if part != "pretrain" and name in leaves_of(part)]
    return paths[0] if len(paths) == 1 else name


def finding(error: Any) -> Finding:
    """One pydantic error as a sentence with place, rule, value and remedy."""
    place, kind = list(error["loc"]), error["type"]
    if kind == "extra_forbidden":
        return place, _unknown_key(place, error["input"])
    if kind == "missing":
        return place, "is missing, but every sweep needs it"
    if place[-1:] == ["[key]"] or kind == "invalid_key":
        return place[:-1] if kind != "invalid_key" else place, f"a key must be text, got {show(error['input'])}; quote it"
    if kind == "model_type":
        written = _WRITTEN.get(error["ctx"]["class_name"]) or "keys and values (" + ", ".join(_legal(SweepConfig, place)) + ")"
        return place, f"must be {written}; got {show(error['input'])}"
    return place, law(error)


def law(error: Any) -> str:
    """The rule that a value breaks, and the value."""
    context, value = error.get("ctx", {}), show(error["input"])
    match error["type"]:
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
        case "greater_than_equal":
            return f"must be at least {context['ge']}, got {value}"
        case "greater_than":
            return f"must be above {context['gt']}, got {value}"
        case "less_than_equal":
            return f"must be at most {context['le']}, got {value}"
        case "less_than":
            return f"must be below {context['lt']}, got {value}"
        case "literal_error":
            near = near_to(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
            return f"must be {context['expected']}, got {value}" + (f"; did you mean {near!r}?" if near else "")
        case "string_pattern_mismatch":
            return f"must begin with a letter or digit and contain only letters, digits, '.', '_' and '-', got {value}"
        case "too_short":
            return "is empty, but needs at least one entry"
        case "tuple_type":
            return f"must be a list such as [a, b], got {value}"
        case "dict_type":
            return f"must be keys and values such as {{a: ..., b: ...}}, got {value}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value}"


def _unknown_key(place: list[Any], value: Any) -> str:
    """Suggests the nearest legal key at that place, or else where in the file a key of that name belongs."""
    key, legal, paths = (
        str(place[-1]),
        list(_legal(SweepConfig, place[:-1])),
        [path for path in _paths(SweepConfig) if not path.startswith(_TWICE)],
    )
    if near := near_to(key, legal):
        return f"unknown key; did you mean {near!r}?"
    whole = [*map(str, place)]
    while isinstance(value, dict) and len(value) == 1:
        ((below, value),) = value.items()
        whole.append(str(below))
    leaf = near_to(whole[-1], {path.split(".")[-1] for path in paths}, 0.8)
    for elsewhere in (
        [path for path in paths if path.endswith("." + ".".join(whole))],
        [path for path in paths if key in (last := path.split(".")[-1], _initials(last))],
        [path for path in paths if path.split(".")[-1] == leaf],
    ):
        if len(elsewhere) == 1:
            return f"unknown key; did you mean {elsewhere[0]!r}?"
    return f"unknown key; legal here: {', '.join(legal)}"


def near_to(name: str, legal: Collection[str], cutoff: float = 0.6) -> str | None:
    """The legal name most similar to this one, by letters or initials. None if the similarity is below `cutoff` (0 to 1)."""
    short = [other for other in legal if _initials(other) == name]
    return next(iter(short or difflib.get_close_matches(name.lower(), legal, 1, cutoff)), None)


def _initials(name: str) -> str:
    """`lr` for learning_rate; empty for a single word."""
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else ""


def _legal(model: Any, location: Sequence[Any]) -> tuple[str, ...]:
    """Keys that are legal at a place in the file."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        if not location:
            return tuple(fields)
        return _legal(fields[location[0]], location[1:]) if location[0] in fields else ()
    if typing.get_origin(model) is dict:
        return _legal(typing.get_args(model)[1], location[1:]) if location else ()
    if typing.get_origin(model) in (typing.Union, types.UnionType):
        return next((legal for option in typing.get_args(model) if (legal := _legal(option, location))), ())
    return ()


def _paths(model: Any, above: str = "") -> Iterator[str]:
    """Path of every key of a sweep file except those of distributions; `methods.<name>` stands for any name."""
    if isinstance(model, type) and issubclass(model, BaseModel) and model is not Distribution:
        for name, field in model.model_fields.items():
            here = f"{above}{field.alias or name}"
            yield here
            yield from _paths(field.annotation, f"{here}.")
    elif typing.get_origin(model) is dict:
        yield from _paths(typing.get_args(model)[1], f"{above}<name>.")
    elif typing.get_origin(model) in (typing.Union, types.UnionType):
        for option in typing.get_args(model):
            yield from _paths(option, above)


def suggestion(name: str, legal: Collection[str]) -> str:
    near = near_to(name, legal)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(legal)}"


def folded(text: str, stream: TextIO) -> str:
    """Text as a stream can show it: characters that its encoding lacks are escaped. For a terminal lines are wrapped at words, with
    continuations indented by four more columns."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    out = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        wrapped = textwrap.wrap(
            line, width, subsequent_indent=indent + "    ", break_long_words=False, break_on_hyphens=False, replace_whitespace=False
        )
        out += [line] if len(line) <= width else wrapped
    return "\n".join(out)
