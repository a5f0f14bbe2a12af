"""The JSON schema of a sweep file, for editors: the meaning of every key, and every closed list of names.

Written to `search_spaces/sweep.schema.json` by `python -m jepa_ray.plan.schema`; the first line of each file there names it, so that
an editor with a YAML language server completes keys and marks typos. Rules that need the whole file (a control without a JEPA term, a
value that a method cannot have) are checked on loading, not here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jepa_ray.config import SweepConfig
from jepa_ray.config.messages import SEARCHABLE, full_path, leaves_of
from jepa_ray.config.record import Record, docstrings
from jepa_ray.config.sweep import VALIDATION_METRICS
from jepa_ray.data.datasets import DATASETS
from jepa_ray.models.encoders import ENCODERS
from jepa_ray.models.families import AUTO, FAMILIES
from jepa_ray.system import atomic

SHIPPED = Path("search_spaces") / "sweep.schema.json"
"""Relative to the root of a checkout."""


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a sweep file, including the shorthands that loading accepts."""
    schema = SweepConfig.model_json_schema(by_alias=True)
    records = {record.__name__: record for record in _records(SweepConfig)}
    for name, part in (("SweepConfig", schema), *schema["$defs"].items()):
        _describe(part, records[name])
        _accept_none(part)
    keys, parts = schema["properties"], schema["$defs"]
    tasks, families = {"enum": list(DATASETS)}, {"enum": [*FAMILIES, AUTO, *ENCODERS]}
    for key in ("scheduler", "confirm"):
        keys[key] = _either(keys[key], {"enum": ["none", None]})
    keys["task"]["propertyNames"] = tasks
    keys["task"] = _either(keys["task"], tasks, {"type": "array", "items": tasks})
    parts["DataConfig"]["properties"]["task"] |= tasks
    keys["families"]["items"] |= families
    keys["families"] = _either(keys["families"], families)
    next(option for option in keys["model"]["anyOf"] if option.get("type") == "object")["propertyNames"] = families
    for place, spelling in ((keys["controls"]["items"], "zero"), (parts["ObjectiveConfig"]["properties"]["control"], "lambda_zero")):
        place["enum"] = [*place["enum"], spelling]
    parts["SearchConfig"]["properties"]["metric"] |= {"enum": list(VALIDATION_METRICS)}
    warm_start = parts["SearchConfig"]["properties"]["warm_start"]
    parts["SearchConfig"]["properties"]["warm_start"] = _either(warm_start, {"type": "string"})
    keys["space"]["propertyNames"] = {"enum": searchable()}
    conditions = next(option for option in parts["Distribution"]["properties"]["when"]["anyOf"] if option.get("type") == "object")
    conditions["propertyNames"] = {"enum": searchable()}
    several = conditions["additionalProperties"]
    conditions["additionalProperties"] = {"anyOf": [several, several["items"]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def searchable() -> list[str]:
    """Keys of `space`: every path of a trial's configuration that a search may vary, then the short names of these paths."""
    paths = [f"{part}.{leaf}" for part in SEARCHABLE for leaf in leaves_of(part)]
    short = [leaf for part in SEARCHABLE for leaf in leaves_of(part) if full_path(leaf) != leaf]
    return [*paths, *dict.fromkeys(short)]


def text() -> str:
    """The text of the shipped schema file."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _either(key: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """A key that has one of several forms. Its description stays on the key itself, where editors look for it."""
    about = {name: key[name] for name in ("description", "title", "default") if name in key}
    return about | {"anyOf": [{name: value for name, value in key.items() if name not in about}, *others]}


def _accept_none(part: dict[str, Any]) -> None:
    """Accept `none` wherever null is legal."""
    for key in part.get("properties", {}).values():
        for place in (key, key.get("additionalProperties")):
            options = place.get("anyOf", []) if isinstance(place, dict) else []
            if {"type": "null"} in options:
                options.append({"const": "none"})


def _describe(part: dict[str, Any], record: type[Record]) -> None:
    """Use the docstrings under the record's fields as descriptions of its keys.

    They are read from the source on demand: pydantic's `use_attribute_docstrings` would read them on every import, in every worker.
    """
    descriptions = docstrings(record)
    for name, field in record.model_fields.items():
        if name in descriptions:
            part["properties"][field.alias or name]["description"] = descriptions[name]


def _records(record: type[Record]) -> Iterator[type[Record]]:
    """A record and all records nested in it."""
    yield record
    for field in record.model_fields.values():
        for kind in _classes(field.annotation):
            yield from _records(kind)


def _classes(annotation: Any) -> Iterator[type[Record]]:
    if inspect.isclass(annotation) and issubclass(annotation, Record):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _classes(part)


if __name__ == "__main__":
    atomic.write_text(SHIPPED, text())
