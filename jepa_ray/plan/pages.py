"""Writes the generated parts of docs/sweep-file.md (every key of a sweep file) and docs/results.md (every column of every table).

    python -m jepa_ray.plan.pages [--check]

Replaces the text between `<!-- generated: ... -->` and `<!-- end -->` of each page; the prose around it is written by hand. Keys come from
the JSON schema (`plan/schema.py`), columns from `results/describe.py`. With --check it writes nothing, and exits with 1 if a page is
out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jepa_ray.config import SweepConfig
from jepa_ray.config.trial import canonical
from jepa_ray.plan.schema import json_schema
from jepa_ray.results.describe import TABLES, describe
from jepa_ray.system import atomic

BEGIN, END = "<!-- generated: edit the docstrings, then run `make docs` -->\n", "<!-- end -->\n"
KINDS = {"string": "text", "number": "number", "integer": "whole number", "boolean": "`true`, `false`", "null": "`none`"}
"""JSON's type -> the page's name for it."""
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
VALUE = {"boolean", "integer", "number", "string"}
"""A key that takes all of these takes any single value."""
NAMED = {"methods": "<name>", "cross_entropy": "<method>", "task": "<name>", "space": "<path>"}
"""Keys that map names to records -> what a heading calls the name."""


def keys() -> str:
    """One table per record of a sweep file, in the order of the file."""
    tree = json_schema()
    places = dict(_places(tree))
    whole = canonical(SweepConfig(name="x", methods={"baseline": None}))
    parts = [_record("Top level", tree, whole, places)]
    parts += [_record(f"`{place}`", tree["$defs"][record], {}, places) for record, place in places.items()]
    return "\n\n".join(parts)


def columns() -> str:
    """One table per table of a results folder, in the order of its columns."""
    parts = []
    for table, about in TABLES.items():
        rows = [(f"`{name}`", _kind(kind), *_meaning(text)) for of, name, kind, text in describe() if of == table]
        parts.append(f"### {table}\n\n{about}\n\n{_table(('column', 'type', 'meaning', 'empty'), rows)}")
    return "\n\n".join(parts)


PAGES: dict[Path, Callable[[], str]] = {Path("docs") / "sweep-file.md": keys, Path("docs") / "results.md": columns}
"""Page, under the root of a checkout -> what makes its generated part."""


def updated(page: str, generated: str) -> str:
    """The page with this generated part. Raises ValueError if the two marks are not in it, each once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"needs one line {BEGIN.strip()!r} and, below it, one line {END.strip()!r}")
    return f"{page[: page.index(BEGIN)]}{BEGIN}\n{generated}\n\n{page[page.index(END) :]}"


def _places(tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(record, key that it is first found at), depth first."""
    seen: set[str] = set()

    def below(place: str, part: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for name, key in part["properties"].items():
            for record in re.findall(r"'#/\$defs/(\w+)'", repr(key)):
                if record not in seen:
                    seen.add(record)
                    inner = ".".join(filter(None, (place, name, "" if place else NAMED.get(name, ""))))
                    yield record, inner
                    yield from below(inner, tree["$defs"][record])

    yield from below("", tree)


def _record(heading: str, part: dict[str, Any], defaults: dict[str, Any], places: dict[str, str]) -> str:
    rows = []
    for name, key in part["properties"].items():
        forms = list(dict.fromkeys(_forms(key, places)))
        several = [form for form in forms if f"list of {form}" in forms]
        forms = [form for form in forms if form not in several]
        forms = [f"{form.removeprefix('list of ')}; one or a list" if form.removeprefix("list of ") in several else form for form in forms]
        default = "required" if name in part.get("required", ()) else _shown(key.get("default", defaults.get(name)))
        rows.append((f"`{name}`", " or ".join(forms), default, " ".join(key["description"].split())))
    about = " ".join(part.get("description", "").split())
    return f"### {heading}\n\n{about}\n\n{_table(('key', 'value', 'default', 'meaning'), rows)}"


def _shown(value: Any) -> str:
    """A value as in the file; a record's defaults are in its own table."""
    if isinstance(value, dict) and value:
        return "see there"
    if value is None:
        return "`none`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("'", "")


def _forms(key: dict[str, Any], places: dict[str, str]) -> Iterator[str]:
    """What may be written, one form at a time."""
    options = key.get("anyOf", [])
    if {option.get("type") for option in options} >= VALUE:
        yield "any value"
    elif options:
        for option in options:
            yield from _forms(option, places)
    elif "$ref" in key:
        place = places[key["$ref"].rpartition("/")[2]]
        yield f"[`{place}`](#{re.sub(r'[^a-z_-]', '', place.lower())})"
    elif "enum" in key:
        yield ", ".join(map(_shown, dict.fromkeys("none" if value is None else value for value in key["enum"])))
    elif "const" in key:
        yield _shown(key["const"])
    elif "prefixItems" in key:
        yield f"[{', '.join(_joined(item, places) for item in key['prefixItems'])}]"
    elif key["type"] == "array":
        yield f"list of {_joined(key['items'], places)}"
    elif key["type"] == "object":
        yield f"mapping to {_joined(key['additionalProperties'], places)}"
    else:
        bounds = " and ".join(f"{sign} {key[name]:g}" for name, sign in BOUNDS.items() if name in key)
        yield f"{KINDS[key['type']]} {bounds}".rstrip()


def _joined(key: dict[str, Any], places: dict[str, str]) -> str:
    return " or ".join(dict.fromkeys(_forms(key, places)))


def _meaning(description: str) -> tuple[str, str]:
    """A description without what it says about null, and that: sentences that begin with `Null`, and clauses `; null: ...`."""
    rest, empty = [], []
    for sentence in re.split(r"(?<=\.) (?=[A-Z0-9`])", description):
        sentence, _, unset = sentence.partition("; null: ")
        if sentence.startswith(("Null", "Always null")):
            empty.append(sentence)
        else:
            rest.append(sentence.rstrip(".") + "." if unset else sentence)
        empty += [f"Null: {unset}"] if unset else []
    when = [re.sub(r"^Null(?! or)(: )?", lambda found: "if not set: " if found[1] else "", text).strip().rstrip(".") for text in empty]
    return " ".join(rest), "; ".join(when).replace("Always null", "always") or "never"


def _kind(arrow: str) -> str:
    return re.sub(r"dictionary<values=(\w+).*>", r"\1 (dictionary)", arrow)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, at the root of a checkout; 1 if --check finds a page that is out of date, 2 if a page cannot be read or written."""
    parser = argparse.ArgumentParser(prog="python -m jepa_ray.plan.pages", description="Write the generated parts of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for path, generated in PAGES.items():
        try:
            page = path.read_text(encoding="utf-8")
            new = updated(page, generated())
            if new != page:
                stale.append(path)
                if not options.check:
                    atomic.write_text(path, new)
        except (OSError, ValueError) as error:
            parser.error(f"{path}: {error}")
    if options.check and stale:
        print(f"{', '.join(map(str, stale))}: out of date; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
