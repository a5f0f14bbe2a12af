"""From YAML and `key=value` overrides to a SweepConfig. Reports all errors at once, each with its place and remedy.

The checks need only the file: types and bounds (`config/`), names, files and rules between keys (`checks/`). Checks that need
weights or data run when these are prepared. Imports neither torch nor Ray.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from jepa_ray.config import SweepConfig, canonical
from jepa_ray.config.messages import Finding, Place, finding, full_path
from jepa_ray.config.record import is_none, show
from jepa_ray.plan.checks import check
from jepa_ray.plan.strict_yaml import Dumper, Loader, parse

_SECTIONS = ("data", "space", "search", "resources", "track", "base")
_SECTIONS_OF_BASE = ("model", "optim", "evaluation")
_PATHS = ("output", "model", "train", "test", "databases", "warm_start", "pilot", "corpus")
"""Keys whose values may be paths."""
_WRITTEN = ("families", "model", "methods", "search", "base")
"""Some of the keys that every sweep.yaml of a results folder contains."""
_DISTRIBUTION_KEYS = ("float", "int", "choice", "log", "step", "when")


class ConfigError(ValueError):
    """All errors in a sweep file."""

    def __init__(self, source: str, messages: Sequence[str]) -> None:
        self.messages = list(messages)
        count = f"{len(self.messages)} errors" if len(self.messages) > 1 else "1 error"
        super().__init__("\n".join([f"{source}: {count}; nothing was started", *(f"  {message}" for message in self.messages)]))


def load_sweep(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    families: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    planning: bool = False,
) -> SweepConfig:
    """The resolved sweep of a file, or of a dictionary that contains what a file would.

    Args:
        overrides: `a.b.c=value`, the value in YAML; they take precedence over the file.
        families, tasks: legal names; by default those of the package.
        planning: nothing will be run, so that files of public data sets may be missing.
    Raises:
        ConfigError: lists every error.
    """
    tree, lines = (_plain(source), {}) if isinstance(source, Mapping) else _read(Path(source).expanduser())
    messages: list[str] = []
    _shorthands(tree)
    findings = list(_full_names(tree, lines))
    for override in overrides:
        try:
            _apply(tree, override, lines)
        except ValueError as error:
            messages.append(str(error))
    _shorthands(tree)
    _expand_homes(tree)
    findings += _full_names(tree, lines)
    findings += check(tree, families, tasks, planning)
    sweep = None
    try:
        sweep = SweepConfig.model_validate(tree)
    except ValidationError as error:
        # Errors of the sweep as a whole have no place here. The checks above report the same errors with their place.
        findings += [finding(item) for item in error.errors() if item["loc"] or not findings]
    messages += [_placed(where, lines) + sentence for where, sentence in sorted(findings, key=lambda pair: _line(pair[0], lines) or 0)]
    if messages or sweep is None:
        raise ConfigError("the sweep" if isinstance(source, Mapping) else str(source), list(dict.fromkeys(messages)))
    return sweep


def _plain(value: Any) -> Any:
    """A copy as YAML would have made it: mappings are dicts, tuples are lists, paths are text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def shipped(file: str | Path) -> Path:
    """The file itself, or, if there is none, the search space of that name that an installed package brings along."""
    inside = Path(__file__).parents[1] / "search_spaces" / Path(str(file).removeprefix("search_spaces/"))
    return inside if not Path(file).exists() and inside.is_file() and ".." not in inside.parts else Path(file)


def parse_resolved(path: Path) -> dict[str, Any]:
    """The tree of a results folder's sweep.yaml. Raises ValueError, with one sentence, if no sweep can have written it."""
    try:
        tree = parse(path.read_text(encoding="utf-8"))
        lacks = [key for key in _WRITTEN if key not in tree] if isinstance(tree, dict) else list(_WRITTEN)
        why = f"it lacks {', '.join(lacks)}" if lacks else _misshapen(tree)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or ("not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "not valid YAML")
    if why is not None:
        raise ValueError(unreadable_resolved(path, why))
    return tree  # type: ignore[no-any-return]


def unreadable_resolved(path: Path, why: str) -> str:
    """Error sentence for a results folder's sweep.yaml that no longer describes the sweep."""
    return (
        f"{path} cannot be read ({why}), so it is unknown whether this is the same sweep; to have it written again, rename it and repeat "
        "the command with the file that this sweep was last run with"
    )


def _misshapen(tree: dict[str, Any]) -> str | None:
    """Why a key that is compared with the command's file is malformed. None if all are well-formed."""
    for key, kind in (("families", list), ("controls", list), ("methods", dict), ("space", dict), ("cross_entropy", dict)):
        value = tree.get(key, kind())
        if not isinstance(value, kind) or not all(isinstance(name, str) for name in value):
            return f"{key} does not contain names"
    return None if isinstance(tree["model"], (str, dict)) else "model is not a name"


def dump(sweep: SweepConfig) -> str:
    """YAML text that `load_sweep` reads back as an equal sweep."""
    return str(yaml.dump(canonical(sweep), Dumper=Dumper, sort_keys=False, allow_unicode=True))


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The file's tree, and the line of each of its keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), [_missing_file(path)]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["is not UTF-8 text; give a YAML file"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read ({error.strerror}); give a YAML file"]) from None
    try:
        tree, node = parse(text), yaml.compose(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigError(str(path), [f"{where}not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    if not isinstance(tree, dict):
        content = "is empty" if tree is None else "contains a list" if isinstance(tree, list) else f"contains only {show(tree)}"
        raise ConfigError(str(path), [f"a sweep file must contain keys and values (name: ..., methods: ...), but this one {content}"])
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        # A blank section (its lines commented out) has its defaults. An explicit `null`, which YAML reads the same way, means none.
        if key.value in ("scheduler", "confirm") and tree[key.value] is None and not value.value:
            del tree[key.value]
    return tree, dict(_lines(node, ()))


def _missing_file(path: Path) -> str:
    if "=" in str(path):
        return "the file does not exist; FILE comes first, then key=value"
    neighbours = [str(other) for other in sorted(path.parent.glob("*.y*ml"))]
    near = difflib.get_close_matches(str(path), neighbours, 1, 0.6)
    return "the file does not exist; " + (f"did you mean {near[0]}?" if near else "search_spaces/ has examples to start from")


def _lines(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, str(index)), value.start_mark.line + 1


def _placed(path: Place, lines: dict[tuple[str, ...], int]) -> str:
    """Prefix of a message: the path of a key and, if it comes from the file, its line (or that of the nearest key above it)."""
    line = _line(path, lines)
    keys = tuple(map(str, path))
    also = " and override" if any(other[: len(keys)] == keys and not lines[other] for other in lines) else ""
    source = "" if line is None else f" (line {line}{also})" if line else " (override)"
    return f"{'.'.join(map(str, path))}{source}: " if path else ""


def _line(path: Place, lines: dict[tuple[str, ...], int]) -> int | None:
    """Line of a key: 0 for an override, None for a key of which no part is given."""
    keys = tuple(map(str, path))
    return next((lines[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in lines), None)


def _apply(tree: dict[str, Any], override: str, lines: dict[tuple[str, ...], int]) -> None:
    """Put one `key=value` into the tree. Keys of `space` contain dots themselves: `space.objective.k.int=[0, 2]`."""
    if not isinstance(override, str):
        raise ValueError(f"override {override!r} is not text of the form key=value, e.g. search.num_trials=40")
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ValueError(f"override {override!r} is not of the form key=value, e.g. search.num_trials=40")
    try:
        value = parse(text)
    except yaml.YAMLError as error:
        raise ValueError(f"override {override!r}: the value is not valid YAML ({getattr(error, 'problem', error)})") from None
    if parts[0] == "space" and len(parts) > 1:
        cut = next((number for number, part in enumerate(parts) if number > 1 and part in _DISTRIBUTION_KEYS), len(parts))
        parts = ["space", full_path(".".join(parts[1:cut])), *parts[cut:]]
        if "when" in parts[2:-1]:
            parts = [*parts[:3], full_path(".".join(parts[3:]))]
    if parts[0] == "methods" and len(parts) > 2 and _is_none(tree.get("methods"), parts[1]):
        raise ValueError(
            f"override {override!r}: methods.{parts[1]} is none (the baseline) and has no {parts[2]}; "
            f"add a method of another name, e.g. methods.jepa={{{parts[2]}: {text}}}"
        )
    branch = tree
    for depth, part in enumerate(parts[:-1], 1):
        if not isinstance(branch.get(part), dict):
            branch[part] = {}
            _override(lines, parts[:depth])
        branch = branch[part]
    branch[parts[-1]] = value
    _override(lines, parts)


def _is_none(methods: Any, name: str) -> bool:
    return isinstance(methods, dict) and name in methods and is_none(methods[name])


def _override(lines: dict[tuple[str, ...], int], parts: Sequence[str]) -> None:
    """Record that a key and all keys below it no longer come from the file (line 0)."""
    for keys in [keys for keys in lines if keys[: len(parts)] == tuple(parts)]:
        del lines[keys]
    lines[tuple(parts)] = 0


def _shorthands(tree: dict[str, Any]) -> None:
    """Expand `scheduler: none`, `confirm: none` and `families: llama3`. A blank section gets its defaults."""
    base = tree.get("base")
    for branch, keys in ((tree, _SECTIONS), (base if isinstance(base, dict) else {}, _SECTIONS_OF_BASE)):
        branch |= {key: {} for key in keys if key in branch and branch[key] is None}
    if "scheduler" in tree and is_none(tree["scheduler"]):
        tree["scheduler"] = {"name": "none"}
    if "confirm" in tree and is_none(tree["confirm"]):
        tree["confirm"] = {"seeds": []}
    if isinstance(tree.get("families"), str):
        tree["families"] = [tree["families"]]


def _expand_homes(tree: Any, is_path: bool = False) -> Any:
    """Expand `~` and `~user` at the start of paths, in place; no shell has done so."""
    if isinstance(tree, dict):
        tree |= {key: _expand_homes(value, is_path or key in _PATHS) for key, value in tree.items()}
    elif isinstance(tree, list) and is_path:
        tree[:] = [_expand_homes(value, True) for value in tree]
    elif isinstance(tree, str) and is_path and tree.startswith("~"):
        return os.path.expanduser(tree)
    return tree


def _full_names(tree: dict[str, Any], lines: dict[tuple[str, ...], int]) -> Iterator[Finding]:
    """Resolve short names (`lambda`) in `space` and `when` to full paths, in place. Unknown names are left to the checks."""
    space = tree.get("space")
    if not isinstance(space, dict):
        return
    resolved: dict[str, Any] = {}
    for name, spec in space.items():
        full = full_path(str(name))
        if full in resolved:
            yield ["space", name], f"{full} is given twice, once by its short name; drop one"
        if isinstance(spec, dict) and isinstance(spec.get("when"), dict):
            spec = {**spec, "when": {full_path(str(key)): value for key, value in spec["when"].items()}}
        resolved[full] = spec
    for keys, line in list(lines.items()):
        if keys[0] == "space" and len(keys) > 1:
            lines.setdefault(("space", full_path(keys[1]), *keys[2:]), line)
    tree["space"] = resolved
