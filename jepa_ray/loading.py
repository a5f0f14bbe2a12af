"""YAML and `key=value` overrides to a SweepConfig: everything that is wrong is said at once, each with its place and remedy.

Checks here need the file alone: types, bounds, names, distributions against the bounds of what they set, files that exist.
What needs weights or data is checked when they are prepared. Imports neither torch nor Ray.
"""

from __future__ import annotations

import difflib
import itertools
import re
import types
import typing
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from jepa_ray.config import BaseConfig, ConfirmConfig, LoraConfig, ObjectiveConfig, OptimConfig, SweepConfig, canonical
from jepa_ray.space import Distribution, Record, enumerate_grid, show

SEARCHABLE: dict[str, type[Record]] = {"optim": OptimConfig, "objective": ObjectiveConfig, "lora": LoraConfig}
"""Parts of a TrialConfig that `space` may search."""
MAX_GRID = 10_000
"""Points of a grid search."""
_DISTRIBUTION_KEYS = ("float", "int", "choice", "log", "step", "when")
_WRITTEN = {
    "Distribution": "a distribution such as {float: [0.1, 10], log: true}, {int: [0, 4]} or {choice: [0, 0.5]}",
    "ObjectiveConfig": "none (the baseline) or an objective such as {distance: cosine, lambda: 1, k: 1}",
}

Place = Sequence[Any]
Finding = tuple[Place, str]
"""What is wrong, and the path of the key that it is wrong with."""


class ConfigError(ValueError):
    """Everything that is wrong with a sweep file."""

    def __init__(self, source: str, messages: Sequence[str]) -> None:
        self.messages = list(messages)
        many = f"{len(self.messages)} errors" if len(self.messages) > 1 else "an error"
        super().__init__("\n".join([f"{source}: {many}; nothing was started", *(f"  {message}" for message in self.messages)]))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (`1e-4` is one, `1:30` and `2025-01-31` are not), 1.1's booleans, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a key is a word, not a list or mapping (text that holds braces or brackets needs quotes)"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            key = (key_node.tag, key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what _Loader would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"(?i:true|false|yes|no|on|off)", "tTfFyYnNoO"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]?(\d+\.\d*|\.\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
):
    for _yaml in (_Loader, _Dumper):
        _yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def load_sweep(
    path: str | Path, overrides: Sequence[str] = (), families: Collection[str] | None = None, tasks: Collection[str] | None = None
) -> SweepConfig:
    """The resolved sweep of a file.

    Args:
        overrides: `a.b.c=value`, the value in YAML; they win over the file.
        families, tasks: names that exist; by default those of the package.
    Raises:
        ConfigError: lists every error found.
    """
    tree, lines = _read(Path(path))
    messages: list[str] = []
    found = list(_full_names(tree, lines))
    for override in overrides:
        try:
            _apply(tree, override, lines)
        except ValueError as error:
            messages.append(str(error))
    _shorthands(tree)
    found += _full_names(tree, lines)
    found += _checks(tree, families, tasks)
    sweep = None
    try:
        sweep = SweepConfig.model_validate(tree)
    except ValidationError as error:
        # What the sweep as a whole refuses, without a place of its own, has been found above too, and with one.
        found += [_finding(item) for item in error.errors() if item["loc"] or not found]
    messages += [_placed(where, lines) + said for where, said in sorted(found, key=lambda finding: _line(finding[0], lines) or 0)]
    if messages or sweep is None:
        raise ConfigError(str(path), list(dict.fromkeys(messages)))
    return sweep


def dump(sweep: SweepConfig) -> str:
    """YAML text that `load_sweep` reads back as an equal sweep."""
    return str(yaml.dump(canonical(sweep), Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def json_schema() -> dict[str, Any]:
    """JSON schema of a sweep file, for editors."""
    schema = SweepConfig.model_json_schema(by_alias=True)
    keys = schema["properties"]
    keys["methods"]["additionalProperties"]["anyOf"].append({"const": "none"})
    for key in ("scheduler", "confirm"):
        keys[key] = {"anyOf": [keys[key], {"const": "none"}, {"type": "null"}]}
    keys["families"] = {"anyOf": [keys["families"], {"type": "string"}]}
    distribution = schema["$defs"]["Distribution"]["properties"]
    conditions = next(option for option in distribution["when"]["anyOf"] if "additionalProperties" in option)
    several = conditions["additionalProperties"]
    conditions["additionalProperties"] = {"anyOf": [several, several["items"]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The file's tree, and the line on which each of its keys stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), [_missing_file(path)]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["is not UTF-8 text; give a YAML file"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read ({error.strerror}); give a YAML file"]) from None
    try:
        tree = yaml.load(text, _Loader)  # _Loader is a SafeLoader
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigError(str(path), [f"{where}not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    if not isinstance(tree, dict):
        held = "nothing" if tree is None else "a list" if isinstance(tree, list) else f"only {show(tree)}"
        raise ConfigError(str(path), [f"a sweep file holds keys and values (name: ..., methods: ...), but this one holds {held}"])
    return tree, dict(_lines(node, ()))


def _missing_file(path: Path) -> str:
    if "=" in str(path):
        return "there is no such file; FILE comes first, then key=value"
    beside = [str(other) for other in sorted(path.parent.glob("*.y*ml"))]
    near = difflib.get_close_matches(str(path), beside, 1, 0.6)
    return "there is no such file; " + (f"did you mean {near[0]}?" if near else "search_spaces/ has some to start from")


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
    """Where a key stands: its path, and its line in the file (or the nearest above it), where it comes from there."""
    line = _line(path, lines)
    keys = tuple(map(str, path))
    also = " and override" if any(other[: len(keys)] == keys and not lines[other] for other in lines) else ""
    source = "" if line is None else f" (line {line}{also})" if line else " (override)"
    return f"{'.'.join(map(str, path))}{source}: " if path else ""


def _line(path: Place, lines: dict[tuple[str, ...], int]) -> int | None:
    """0 for an override, None for a key of which nothing is given."""
    keys = tuple(map(str, path))
    return next((lines[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in lines), None)


def _apply(tree: dict[str, Any], override: str, lines: dict[tuple[str, ...], int]) -> None:
    """Put one `key=value` into the tree. Keys of `space` hold dots themselves: `space.objective.k.int=[0, 2]`."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ValueError(f"override {override!r} is not of the form key=value, e.g. search.num_trials=40")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"override {override!r}: the value is not valid YAML ({getattr(error, 'problem', error)})") from None
    if parts[0] == "space" and len(parts) > 1:
        cut = next((number for number, part in enumerate(parts) if number > 1 and part in _DISTRIBUTION_KEYS), len(parts))
        parts = ["space", _full_path(".".join(parts[1:cut])), *parts[cut:]]
    branch = tree
    for depth, part in enumerate(parts[:-1], 1):
        if not isinstance(branch.get(part), dict):
            branch[part] = {}
            _override(lines, parts[:depth])
        branch = branch[part]
    branch[parts[-1]] = value
    _override(lines, parts)


def _override(lines: dict[tuple[str, ...], int], parts: Sequence[str]) -> None:
    """Note that a key and all below it no longer come from the file (line 0)."""
    for keys in [keys for keys in lines if keys[: len(parts)] == tuple(parts)]:
        del lines[keys]
    lines[tuple(parts)] = 0


def _shorthands(tree: dict[str, Any]) -> None:
    """`scheduler: none`, `confirm: none` and `families: llama3` mean what they say."""
    if "scheduler" in tree and tree["scheduler"] in (None, "none"):
        tree["scheduler"] = {"name": "none"}
    if "confirm" in tree and tree["confirm"] in (None, "none"):
        tree["confirm"] = {"seeds": []}
    if isinstance(tree.get("families"), str):
        tree["families"] = [tree["families"]]


def _full_names(tree: dict[str, Any], lines: dict[tuple[str, ...], int]) -> Iterator[Finding]:
    """Resolve short names (`lambda`) in `space` and in `when` to full paths, in place; what has none is left for the checks."""
    space = tree.get("space")
    if not isinstance(space, dict):
        return
    resolved: dict[str, Any] = {}
    for name, said in space.items():
        full = _full_path(str(name))
        if full in resolved:
            yield ["space", name], f"{full} is given twice, once by its short name; drop one"
        if isinstance(said, dict) and isinstance(said.get("when"), dict):
            said = {**said, "when": {_full_path(str(key)): value for key, value in said["when"].items()}}
        resolved[full] = said
    for keys, line in list(lines.items()):
        if keys[0] == "space" and len(keys) > 1:
            lines.setdefault(("space", _full_path(keys[1]), *keys[2:]), line)
    tree["space"] = resolved


def _leaves(part: str) -> dict[str, Any]:
    """Names, as written in the file, and types of a part's parameters."""
    return {field.alias or name: field.annotation for name, field in SEARCHABLE[part].model_fields.items()}


def _full_path(name: str) -> str:
    found = [f"{part}.{name}" for part in SEARCHABLE if name in _leaves(part)]
    return found[0] if len(found) == 1 else name


def _finding(error: Any) -> Finding:
    """One pydantic error as a sentence with place, law, value and remedy."""
    place, kind = list(error["loc"]), error["type"]
    if kind == "extra_forbidden":
        return place, _unknown_key(place)
    if kind == "missing":
        return place, "is missing, but every sweep needs it"
    if place[-1:] == ["[key]"] or kind == "invalid_key":
        return place[:-1] if kind != "invalid_key" else place, f"a key must be text, got {show(error['input'])}; quote it"
    if kind == "model_type":
        written = _WRITTEN.get(error["ctx"]["class_name"]) or "keys and values (" + ", ".join(_legal(SweepConfig, place)) + ")"
        return place, f"must be {written}; got {show(error['input'])}"
    return place, _law(error)


def _law(error: Any) -> str:
    """What a value must be, and what it is."""
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
            near = _near(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
            return f"must be {context['expected']}, got {value}" + (f"; did you mean {near!r}?" if near else "")
        case "string_pattern_mismatch":
            return f"may hold letters, digits, '.', '_' and '-' only and begins with a letter or digit, got {value}"
        case "too_short":
            return "is empty, but needs at least one entry"
        case "tuple_type":
            return f"must be a list such as [a, b], got {value}"
        case "dict_type":
            return f"must be keys and values such as {{a: ..., b: ...}}, got {value}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value}"


def _unknown_key(place: list[Any]) -> str:
    """The nearest key that is legal there, or else where in the file a key of that name belongs."""
    key, legal = str(place[-1]), list(_legal(SweepConfig, place[:-1]))
    if near := _near(key, legal):
        return f"unknown key; did you mean {near!r}?"
    elsewhere = [path for path in _paths(SweepConfig) if key in (leaf := path.split(".")[-1], _initials(leaf))]
    if len(elsewhere) == 1:
        return f"unknown key; did you mean {elsewhere[0]!r}?"
    return f"unknown key; legal here: {', '.join(legal)}"


def _near(name: str, legal: Collection[str]) -> str | None:
    short = [other for other in legal if _initials(other) == name]
    return next(iter(short or difflib.get_close_matches(name.lower(), legal, 1, 0.6)), None)


def _initials(name: str) -> str:
    """`lr` of learning_rate; nothing for a single word."""
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
    """Path of every key of a sweep file; `methods.<name>` stands for any name. Not those of distributions."""
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


def _at(tree: Any, *path: str, default: Any = None) -> Any:
    """What the raw tree holds at a path; the default where it holds nothing there, or `none`."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return default if tree is None or tree == "none" else tree


def _checks(tree: dict[str, Any], families: Collection[str] | None, tasks: Collection[str] | None) -> Iterator[Finding]:
    """Names, files, and laws between keys. They look at the raw tree, so that they are found beside errors of other kinds.

    Drops `data.task` where it contradicts `task`.
    """
    from jepa_ray.data.datasets import DATASETS
    from jepa_ray.models.families import FAMILIES

    own = _at(tree, "families", default=[])
    own = [name for name in own if isinstance(name, str)] if isinstance(own, list) else []
    for number, name in enumerate(own):
        if name not in (families or FAMILIES):
            yield ["families"], f"unknown family {name!r}; {_mean(name, families or FAMILIES)}"
        if name in own[:number]:
            yield ["families"], f"names {name} twice; drop one"
    yield from _check_data(tree, tasks or DATASETS)
    yield from _check_methods(tree)
    yield from _check_space(tree)
    model = tree.get("model")
    if isinstance(model, dict):
        own = own or list(SweepConfig.model_fields["families"].default)
        for family in own:
            if family not in model:
                yield ["model"], f"gives no model for family {family}; add {family}: tiny (or a hub id, or a path)"
        for family in model:
            if family not in own:
                yield ["model", family], "is not among families; add it there or drop it here"
    seeds, seed = _at(tree, "confirm", "seeds", default=ConfirmConfig().seeds), _at(tree, "base", "seed", default=BaseConfig().seed)
    if isinstance(seeds, (list, tuple)) and seed in seeds:
        place = ["base", "seed"] if _at(tree, "base", "seed") is not None else ["confirm", "seeds"]
        yield (
            place,
            f"base.seed = {seed} is also among confirm.seeds = {show(seeds)}, but confirmation needs fresh seeds; change one of the two",
        )
    if _at(tree, "base", "evaluation", "test") is True:
        yield ["base", "evaluation", "test"], "the test split stays sealed until confirmation; drop this key"
    metric, mode = _at(tree, "search", "metric", default="val_exact"), _at(tree, "search", "mode", default="max")
    if mode in ("max", "min") and (metric == "val_ce") != (mode == "min"):
        better = "smaller" if metric == "val_ce" else "larger"
        place = ["search", "metric" if _at(tree, "search", "mode") is None else "mode"]
        yield (
            place,
            f"{metric} is better when {better}, so mode = {mode} would select the worst; change search.mode or search.metric",
        )


def _mean(name: str, legal: Collection[str]) -> str:
    near = _near(name, legal)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(legal)}"


def _check_data(tree: dict[str, Any], tasks: Collection[str]) -> Iterator[Finding]:
    data = tree.get("data")
    for place in (["task"], ["data", "task"]):
        task = _at(tree, *place)
        if isinstance(task, str) and task not in tasks:
            yield place, f"unknown task {task!r}; {_mean(task, tasks)}"
    if not isinstance(data, dict):
        return
    if isinstance(data.get("task"), str) and isinstance(tree.get("task"), str) and data["task"] != tree["task"]:
        yield ["data", "task"], f"is {data['task']!r}, but task is {tree['task']!r}; drop data.task"
        tree["data"] = data = {key: value for key, value in data.items() if key != "task"}
    files = {key: _at(data, key) for key in ("train", "test")}
    for key, name in files.items():
        if isinstance(name, str) and not Path(name).is_file():
            yield ["data", key], f"there is no file {name} (relative paths start from {Path.cwd()})"
    if files["test"] is not None and files["train"] is None:
        yield ["data", "test"], "a test file without data.train; name both, or neither for the built-in generator"
    if files["train"] is not None and files["test"] is None and _at(tree, "confirm", "seeds", default=True):
        yield ["data", "test"], "is missing, but the confirmation needs a sealed test split; name a file, or set confirm=none"


def _check_methods(tree: dict[str, Any]) -> Iterator[Finding]:
    methods = tree.get("methods")
    if not isinstance(methods, dict):
        return
    seen: dict[ObjectiveConfig | None, str] = {}
    for name, said in methods.items():
        if isinstance(name, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            yield ["methods", name], "a method's name begins with a letter or digit and holds letters, digits, '_', '.', '-' only"
        try:
            objective = TypeAdapter(ObjectiveConfig | None).validate_python(None if _at(said) is None else said)
        except ValidationError:
            continue  # said where the whole is validated
        if objective in seen:
            yield ["methods", name], f"is the same as methods.{seen[objective]}; change or drop one"
        seen.setdefault(objective, name)


def _check_space(tree: dict[str, Any]) -> Iterator[Finding]:
    space, methods = tree.get("space"), tree.get("methods")
    if not isinstance(space, dict):
        return
    lawful: dict[str, Distribution] = {}
    for path, said in space.items():
        part = path.partition(".")[0]
        try:
            distribution = Distribution.model_validate(said)
        except ValidationError:
            distribution = None  # said where the whole is validated
        unknown = list(_path_errors(path))
        yield from ((["space", path], sentence) for sentence in unknown)
        if part == "objective" and isinstance(methods, dict) and methods and all(_at(spec) is None for spec in methods.values()):
            yield (
                ["space", path],
                "no method has an objective, so this would search nothing; add one to methods, e.g. jepa: {distance: cosine}",
            )
        if part == "lora" and not unknown and _at(tree, "base", "lora") is None:
            yield ["space", path], "base.lora is not set, so there are no adapters to search; set e.g. base.lora.r=16"
        yield from _check_when(path, said, list(space), lawful)
        if distribution is not None:
            if not unknown:
                yield from ((["space", path], sentence) for sentence in _value_errors(path, distribution))
            lawful[path] = distribution
    if _at(tree, "search", "algorithm") == "grid" and len(lawful) == len(space):
        infinite = False
        for path, distribution in lawful.items():
            try:
                distribution.grid()
            except ValueError as error:
                infinite = True
                yield ["space", path], f"search.algorithm is grid, but {error}"
        if not infinite and sum(1 for _ in itertools.islice(enumerate_grid(lawful), MAX_GRID + 1)) > MAX_GRID:
            yield ["search", "algorithm"], f"the grid has more than {MAX_GRID} points; give larger steps or fewer choices, or use random"


def _path_errors(path: str) -> Iterator[str]:
    part, _, leaf = path.partition(".")
    if part in SEARCHABLE and leaf in _leaves(part):
        return
    if path.split(".")[-1] == "seed":
        yield "seeds are replicates, never searched; set base.seed for the search and confirm.seeds for the confirmation"
    elif part in ("data", "model", "evaluation"):
        place = "data" if part == "data" else "model or base.model" if part == "model" else "base.evaluation"
        yield f"{part} is the same for all trials, or they could not be compared; set it in {place}, or run another sweep"
    else:
        legal = [f"{name}.{field}" for name in SEARCHABLE for field in _leaves(name)]
        leaves = {full.partition(".")[2]: full for full in legal}
        near = _near(path, legal) or leaves.get(_near(path.split(".")[-1], leaves) or "")
        yield "unknown parameter; " + (f"did you mean {near!r}?" if near else f"searchable: {', '.join(legal)}")


def _value_errors(path: str, distribution: Distribution) -> Iterator[str]:
    """What a distribution can draw but the parameter's own type and bounds refuse."""
    part, _, leaf = path.partition(".")
    kind = _leaves(part)[leaf]
    if distribution.float_ is not None and int in (kind, *typing.get_args(kind)):
        yield f"takes whole numbers, but a float range draws others too; write int: {show([int(bound) for bound in distribution.bounds])}"
        return
    for value in distribution.probes():
        try:
            SEARCHABLE[part].model_validate({leaf: value})
        except ValidationError as error:
            yield f"{_law(error.errors()[0])}; narrow the range" if distribution.choice is None else _law(error.errors()[0])


def _check_when(path: str, said: Any, order: list[str], lawful: dict[str, Distribution]) -> Iterator[Finding]:
    """`lawful` holds the parameters that stand above."""
    when = said.get("when") if isinstance(said, dict) else None
    above = order[: order.index(path)]
    for name, wanted in when.items() if isinstance(when, dict) else ():
        if name == path:
            yield ["space", path, "when"], "a parameter cannot depend on itself; name one that stands above it"
        elif name in order and name not in above:
            yield ["space", path, "when"], f"{name} stands below {path}, but `when` looks at parameters above it; move {name} up"
        elif name not in above:
            near = _near(name, above)
            remedy = f"did you mean {near!r}?" if near else f"`when` looks at parameters above it: {', '.join(above) or 'there are none'}"
            yield ["space", path, "when"], f"{name} is not searched; {remedy}"
        elif name in lawful:
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if not lawful[name].contains(value):
                    yield (
                        ["space", path, "when"],
                        f"{name} never is {show(value)}: it is searched over {lawful[name].text()}; change one of the two",
                    )


__all__ = ["ConfigError", "dump", "json_schema", "load_sweep"]
