"""YAML and `key=value` overrides to a SweepConfig: everything that is wrong is said at once, each with its place and remedy.

Checks here need the file alone: types, bounds, names, distributions against the bounds of what they set, files that exist.
What needs weights or data is checked when they are prepared. Imports neither torch nor Ray.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from jepa_ray.config import LoraConfig, ObjectiveConfig, OptimConfig, Record, SweepConfig, canonical
from jepa_ray.space import Distribution

SEARCHABLE: dict[str, type[Record]] = {"optim": OptimConfig, "objective": ObjectiveConfig, "lora": LoraConfig}
"""Parts of a TrialConfig that `space` may search."""
_DISTRIBUTION_KEYS = ("float", "int", "choice", "log", "step", "when")


class ConfigError(ValueError):
    """Everything that is wrong with a sweep file."""

    def __init__(self, source: str, messages: Sequence[str]) -> None:
        self.messages = list(messages)
        many = f"{len(self.messages)} errors" if len(self.messages) > 1 else "an error"
        super().__init__("\n".join([f"{source}: {many}; nothing was started", *(f"  {message}" for message in self.messages)]))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (`1e-4` is one), and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def load_sweep(path: str | Path, overrides: Sequence[str] = (), families: Collection[str] | None = None, tasks: Collection[str] | None = None) -> SweepConfig:
    """The resolved sweep of a file.

    Args:
        overrides: `a.b.c=value`, the value in YAML; they win over the file.
        families, tasks: names that exist; by default those of the package.
    Raises:
        ConfigError: lists every error found.
    """
    source = str(path)
    tree, lines = _read(Path(path))
    messages = list(_space_names(tree))
    for override in overrides:
        try:
            _apply(tree, override, lines)
        except ValueError as error:
            messages.append(str(error))
    _shorthands(tree)
    messages += list(_space_names(tree))
    places = _Places(lines)
    sweep = None
    try:
        sweep = SweepConfig.model_validate(tree)
    except ValidationError as error:
        messages += [_say(item, tree, places) for item in error.errors()]
    messages += [places.at(where) + said for where, said in _raw_checks(tree, families, tasks)]
    if sweep is not None:
        messages += [places.at(where) + said for where, said in _cross_checks(sweep)]
    if messages or sweep is None:
        raise ConfigError(source, list(dict.fromkeys(messages)))
    return sweep


def dump(sweep: SweepConfig) -> str:
    """YAML text that `load_sweep` reads back as an equal sweep."""
    return str(yaml.safe_dump(canonical(sweep), sort_keys=False, allow_unicode=True))


def json_schema() -> dict[str, Any]:
    """JSON schema of a sweep file, for editors."""
    schema = SweepConfig.model_json_schema(by_alias=True)
    methods = schema["properties"]["methods"]["additionalProperties"]
    methods["anyOf"] = [*methods["anyOf"], {"const": "none"}]
    return schema


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The file's tree, and the line on which each of its keys stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file; search_spaces/ has some to start from"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read as text: {error}"]) from None
    try:
        tree = yaml.load(text, _Loader)  # _Loader is a SafeLoader
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigError(str(path), [f"{where}not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(str(path), [f"a sweep file holds keys and values (name: ..., methods: ...), but this one holds {found}"])
    return tree, dict(_lines(node, ()))


def _lines(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, str(index)), value.start_mark.line + 1


class _Places:
    """Says where a key stands: its path, and its line in the file where it comes from there."""

    def __init__(self, lines: dict[tuple[str, ...], int]) -> None:
        self._lines = lines

    def at(self, path: Sequence[Any]) -> str:
        keys = tuple(map(str, path))
        while keys and keys not in self._lines:
            keys = keys[:-1]
        line = f" (line {self._lines[keys]})" if keys and self._lines[keys] else " (override)" if keys else ""
        return f"{'.'.join(map(str, path))}{line}: " if path else ""


def _apply(tree: dict[str, Any], override: str, lines: dict[tuple[str, ...], int]) -> None:
    """Put one `key=value` into the tree. Keys of `space` hold dots themselves: `space.objective.k.int=[0, 2]`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"override {override!r} is not of the form key=value, e.g. search.num_trials=40")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"override {override!r}: the value is not valid YAML ({getattr(error, 'problem', error)})") from None
    parts = key.split(".")
    if parts[0] == "space" and len(parts) > 1:
        cut = next((number for number, part in enumerate(parts) if number > 1 and part in _DISTRIBUTION_KEYS), len(parts))
        parts = ["space", _full_path(".".join(parts[1:cut])), *parts[cut:]]
    branch = tree
    for depth, part in enumerate(parts[:-1]):
        if not isinstance(branch.get(part), dict):
            branch[part] = {}
        branch = branch[part]
        lines.setdefault(tuple(parts[: depth + 1]), 0)
    branch[parts[-1]] = value
    lines[tuple(parts)] = 0


def _shorthands(tree: dict[str, Any]) -> None:
    """`scheduler: none` and `confirm: none` mean what they say."""
    if tree.get("scheduler", {}) in (None, "none"):
        tree["scheduler"] = {"name": "none"}
    if tree.get("confirm", {}) in (None, "none"):
        tree["confirm"] = {"seeds": []}
    if isinstance(tree.get("families"), str):
        tree["families"] = [tree["families"]]


def _space_names(tree: dict[str, Any]) -> Iterator[str]:
    """Resolve short names (`lambda`) in `space` and in `when` to full paths, in place; what has none is left for the checks."""
    space = tree.get("space")
    if not isinstance(space, dict):
        return
    resolved: dict[str, Any] = {}
    for name, said in space.items():
        full = _full_path(str(name))
        if full in resolved:
            yield f"space.{name}: {full} is given twice, once by its short name"
        if isinstance(said, dict) and isinstance(said.get("when"), dict):
            said = {**said, "when": {_full_path(str(key)): value for key, value in said["when"].items()}}
        resolved[full] = said
    tree["space"] = resolved


def _leaves(part: str) -> list[str]:
    return [field.alias or name for name, field in SEARCHABLE[part].model_fields.items()]


def _full_path(name: str) -> str:
    found = [f"{part}.{name}" for part in SEARCHABLE if name in _leaves(part)]
    return found[0] if len(found) == 1 else name


def _say(error: Any, tree: dict[str, Any], places: _Places) -> str:
    """One pydantic error as a sentence with place, law, value and remedy."""
    location = [part for part in error["loc"] if not (isinstance(part, str) and part in ("dict[str,str]", "str", "ObjectiveConfig"))]
    where, kind = places.at(location), error["type"]
    if kind == "extra_forbidden":
        legal = sorted(_legal(SweepConfig, list(error["loc"])[:-1]))
        near = difflib.get_close_matches(str(location[-1]), legal, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"legal here: {', '.join(legal)}"
        return f"{where}unknown key; {hint}"
    if kind == "missing":
        return f"{where}is missing, but every sweep needs it"
    message = str(error["msg"])
    if kind == "value_error":
        return where + message.removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if kind == "model_type" or kind.endswith("_type"):
        message = message.replace("input should be a valid dictionary or instance of", "should hold the keys of")
    return f"{where}{message.replace('input ', '')}, got {error['input']!r}"


def _legal(model: Any, location: list[Any]) -> set[str]:
    """Keys that are legal at a place in the file."""
    for option in (model, *typing.get_args(model)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in option.model_fields.items()}
            if not location:
                return set(fields)
            if location[0] in fields:
                return _legal(fields[location[0]], location[1:])
    origin, arguments = typing.get_origin(model), typing.get_args(model)
    if origin is dict and location:
        return _legal(arguments[1], location[1:])
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            tail = location[1:] if location and location[0] in ("dict[str,str]", "str", "ObjectiveConfig") else location
            if legal := _legal(option, tail):
                return legal
    return set()


def _raw_checks(tree: dict[str, Any], families: Collection[str] | None, tasks: Collection[str] | None) -> Iterator[tuple[list[str], str]]:
    """What can be said of the file even where it does not validate."""
    from jepa_ray.data.datasets import DATASETS
    from jepa_ray.models.families import FAMILIES

    for key, legal in (("families", families or tuple(FAMILIES)), ("task", tasks or tuple(DATASETS))):
        given = tree.get(key, [])
        for name in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(name, str) and name not in legal:
                near = difflib.get_close_matches(name, list(legal), 1, 0.5)
                yield [key], f"unknown {'family' if key == 'families' else key} {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(legal)}")
    data = tree.get("data")
    if isinstance(data, dict):
        for key in ("train", "test"):
            name = data.get(key)
            if isinstance(name, str) and not Path(name).is_file():
                yield ["data", key], f"there is no file {name} (relative paths start from {Path.cwd()})"
        if data.get("test") is not None and data.get("train") is None:
            yield ["data", "test"], "a test file without data.train; name both, or neither for the built-in generator"
    space = tree.get("space")
    if isinstance(space, dict):
        for path, said in space.items():
            yield from ((["space", path], message) for message in [*_path_errors(path), *_value_errors(path, said)])
            if isinstance(said, dict) and isinstance(said.get("when"), dict):
                earlier = list(space)[: list(space).index(path)]
                for name in said["when"]:
                    if name not in earlier:
                        yield ["space", path, "when"], f"{name} is not searched above {path}; `when` can only look at parameters that stand earlier in space"


def _path_errors(path: str) -> Iterator[str]:
    part, _, leaf = path.partition(".")
    if part in SEARCHABLE and leaf in _leaves(part):
        return
    if path.split(".")[-1] == "seed":
        yield "seeds are replicates, never searched; set base.seed for the search and confirm.seeds for the confirmation"
    elif part in ("data", "model", "evaluation"):
        yield f"{part}.* is the same for all trials of an arm, or they could not be compared; set {'it in data' if part == 'data' else f'base.{part}'}, or run another sweep"
    else:
        legal = [f"{name}.{field}" for name in SEARCHABLE for field in _leaves(name)]
        near = difflib.get_close_matches(path, legal, 1, 0.5)
        yield "unknown parameter; " + (f"did you mean {near[0]!r}?" if near else f"searchable: {', '.join(legal)}")


def _value_errors(path: str, said: Any) -> Iterator[str]:
    """Values that a distribution can draw but that the parameter's own bounds refuse."""
    part, _, leaf = path.partition(".")
    try:
        probes = Distribution.model_validate(said).probes()
    except ValidationError:
        return  # said elsewhere
    for value in probes if part in SEARCHABLE else ():
        try:
            SEARCHABLE[part].model_validate({leaf: value})
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            yield f"{value!r} is not legal for {path}: {message[0].lower()}{message[1:].replace('input ', '')}"


def _cross_checks(sweep: SweepConfig) -> Iterator[tuple[list[str], str]]:
    """Laws between keys that are each fine on their own."""
    objectives = {name: objective for name, objective in sweep.methods.items() if objective is not None}
    for path in sweep.space:
        part = path.partition(".")[0]
        if part == "objective" and not objectives:
            yield ["space", path], "no method has an objective, so this would search nothing; add one to methods, e.g. jepa: {distance: cosine}"
        if part == "lora" and sweep.base.lora is None:
            yield ["space", path], "base.lora is not set, so there are no adapters to search; set e.g. base.lora.r=16"
    names = list(objectives)
    for number, name in enumerate(names):
        for other in names[:number]:
            if objectives[name] == objectives[other]:
                yield ["methods", name], f"is the same as methods.{other}; change or drop one"
    baselines = [name for name, objective in sweep.methods.items() if objective is None]
    if len(baselines) > 1:
        yield ["methods", baselines[1]], f"is the same as methods.{baselines[0]} (both none); drop one"
    for name in sweep.methods:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            yield ["methods", name], "a method's name holds letters, digits, '_', '.', '-' only: it becomes part of the arm's name"
    if len(set(sweep.families)) < len(sweep.families):
        yield ["families"], "names a family twice"
    if isinstance(sweep.model, dict):
        for family in sweep.families:
            if family not in sweep.model:
                yield ["model"], f"gives no model for family {family}; add {family}: tiny (or a hub id, or a path)"
        for family in sweep.model:
            if family not in sweep.families:
                yield ["model", family], "is not among families; add it there or drop it here"
    if sweep.data.train is not None and sweep.data.test is None and sweep.confirm.seeds:
        yield ["data", "test"], "the confirmation needs a sealed test split; name a file, or set confirm=none"
    if sweep.base.evaluation.test:
        yield ["base", "evaluation", "test"], "the test split stays sealed until confirmation; drop this key"
    if sweep.search.algorithm == "grid":
        for path, distribution in sweep.space.items():
            try:
                distribution.grid()
            except ValueError as error:
                yield ["space", path], f"search.algorithm is grid, but {error}"


__all__ = ["ConfigError", "dump", "json_schema", "load_sweep"]
