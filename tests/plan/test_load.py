"""From YAML and overrides to a sweep: mistakes that users make, and the sentences that answer them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.plan import describe as planned
from jepa_ray.plan import strict_yaml
from jepa_ray.plan.load import ConfigError, dump, load_sweep
from jepa_ray.plan.schema import json_schema
from tests.sweep_files import SOUND, Write, refused, refused_once, writer

SPACES = sorted(Path(__file__).resolve().parents[2].glob("search_spaces/**/*.yaml"))


def describe(sweep: SweepConfig, *more: Any, **named: Any) -> str:
    return planned.describe(sweep, arms(sweep), *more, **named)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


# --- accepted


def test_sound_file_and_its_short_names(write: Write) -> None:
    sweep = load_sweep(write(SOUND))
    assert list(sweep.space) == ["optim.learning_rate", "objective.lambda", "objective.k", "objective.loss_dropout"]
    assert sweep.space["objective.loss_dropout"].when == {"objective.k": (1, 2)}
    assert sweep.methods["baseline"] is None
    assert sweep.families == ("llama3",) and sweep.model == "tiny"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1E5", 100000.0),
        ("-2e-3", -0.002),
        ("+1.5e+2", 150.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("3.", 3.0),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1.0.0", "1.0.0"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1:30", "1:30"),
        ("2025-01-31", "2025-01-31"),
        ("2025-13-45", "2025-13-45"),
        ("'1e-4'", "1e-4"),
        ("true", True),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("nl-rx", "nl-rx"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    read = yaml.load(f"key: {text}", strict_yaml.Loader)["key"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("name", ["1e5", "12", "1.5", "true", "no", "2025-01-31", "1.0.0", "0x1F"])
def test_names_that_look_like_other_types_survive_a_round_trip(name: str, write: Write) -> None:
    sweep = load_sweep(write(SOUND.replace("name: sound", f"name: '{name}'")))
    assert sweep.name == name
    assert load_sweep(write(dump(sweep))) == sweep


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_committed_search_spaces(path: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if path.parent.name == "paper":  # some name files that the user has to provide
        for name in re.findall(r"datasets/\w+\.jsonl", path.read_text(encoding="utf-8")):
            assert any(f"the file {name} does not exist" in sentence for sentence in refused(path))
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "spider_data" / "database").mkdir(parents=True)
    sweep = load_sweep(path)
    assert plan.total_trials(sweep, arms(sweep)) > 0
    for arm in arms(sweep):
        assert arm.name in describe(sweep)
        # Every arm starts with its own values: no default is outside the space.
        assert set(plan.defaults(sweep, arm)) == {
            name for name, distribution in plan.space(sweep, arm).items() if distribution.when is None
        }
    assert load_sweep(write(dump(sweep))) == sweep
    jsonschema.validate(yaml.load(path.read_text(encoding="utf-8"), strict_yaml.Loader), json_schema())


def test_there_are_search_spaces() -> None:
    assert {
        "lora",
        "full",
        "families",
        "tasks",
        "pretrain",
        "scratch",
        "ablation_objectives",
        "semantic_tube",
        "stop_token",
        "masked_span",
    } <= {path.stem for path in SPACES}
    assert sum(path.parent.name == "paper" for path in SPACES) >= 13


def test_every_family_and_task_has_a_search_space_at_either_scale() -> None:
    """`families.yaml` and `tasks.yaml` name all of them; the files under paper/ name those of the paper."""
    from jepa_ray.data.datasets import DATASETS
    from jepa_ray.models.families import FAMILIES

    built_in = {name for name, task in DATASETS.items() if task.built_in}
    trees = {path: yaml.load(path.read_text(encoding="utf-8"), strict_yaml.Loader) for path in SPACES}
    tiny = {path.stem: tree for path, tree in trees.items() if path.parent.name != "paper"}
    assert set(tiny["families"]["families"]) == set(FAMILIES) and set(tiny["tasks"]["task"]) == built_in
    paper = [tree for path, tree in trees.items() if path.parent.name == "paper"]
    assert {family for tree in paper for family in tree["families"]} == set(FAMILIES) - {"phi"}  # REFERENCE gives no number for phi
    trained = {tree["task"] for tree in paper} | {tree["pretrain"]["data"]["task"] for tree in paper if "pretrain" in tree}
    assert trained == built_in


def test_schema_accepts_shorthands_and_refuses_errors() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    sound = yaml.load(SOUND, strict_yaml.Loader)
    for more in ({}, {"scheduler": "none"}, {"confirm": "none"}, {"families": "gemma2"}, {"model": {"llama3": "paper"}}):
        assert validator.is_valid(sound | more), more
    assert validator.is_valid(sound | {"space": {"k": {"int": [0, 2], "when": {"lambda": 1}}}})
    for more in ({"familes": []}, {"search": {"num_trials": 0}}, {"methods": {}}, {"space": {"k": {"ints": [0, 2]}}}, {"name": 3}):
        assert not validator.is_valid(sound | more), more


def test_overrides_win_over_the_file(write: Write) -> None:
    sweep = load_sweep(
        write(SOUND),
        [
            "name=other",
            "search.num_trials=9",
            "base.optim.learning_rate=3e-3",
            "methods.jepa.lambda=4",
            "methods.wide={k: 4}",
            "space.k={choice: [1, 3]}",
            "space.objective.loss_dropout.when={k: 3}",
            "space.learning_rate.float=[1e-3, 1]",
            "base.lora=none",
            "families=gemma2",
            "scheduler=none",
            "confirm=none",
        ],
    )
    assert (sweep.name, sweep.search.num_trials, sweep.search.algorithm) == ("other", 9, "random")
    assert (sweep.base.optim.learning_rate, sweep.base.optim.num_epochs, sweep.base.lora) == (0.003, 2, None)
    jepa, wide = sweep.methods["jepa"], sweep.methods["wide"]
    assert jepa is not None and (jepa.lambda_, jepa.k) == (4, 1)
    assert wide is not None and wide.k == 4
    assert len(sweep.space) == 4, "an override by another name of the parameter made a second one"
    assert sweep.space["objective.k"].choice == (1, 3)
    assert sweep.space["objective.loss_dropout"].when == {"objective.k": (3,)}
    learning_rate = sweep.space["optim.learning_rate"]
    assert learning_rate.float_ == (0.001, 1) and learning_rate.log
    assert (sweep.families, sweep.scheduler.name, sweep.confirm.seeds) == (("gemma2",), "none", ())


def test_last_override_wins(write: Write) -> None:
    assert load_sweep(write(SOUND), ["search.num_trials=3", "search.num_trials=4"]).search.num_trials == 4


def test_merge_keys_of_yaml(write: Write) -> None:
    text = "name: a\nmethods:\n  cosine: &jepa {k: 3}\n  l2: {<<: *jepa, distance: l2}\n"
    l2 = load_sweep(write(text)).methods["l2"]
    assert l2 is not None and (l2.k, l2.distance) == (3, "l2")


def test_legal_names_can_be_passed(write: Write) -> None:
    sweep = load_sweep(write(SOUND), ["families=[mine]", "task=my-task"], families=["mine"], tasks=["my-task"])
    assert sweep.data.task == "my-task"
    with pytest.raises(ConfigError, match="unknown family 'llama3'; known: mine"):
        load_sweep(write(SOUND), ["families=llama3"], families=["mine"])


# --- refused

MALFORMED = [
    ("search.num_trials", "override 'search.num_trials' is not of the form key=value, e.g. search.num_trials=40"),
    ("=1", "override '=1' is not of the form key=value"),
    ("a..b=1", "override 'a..b=1' is not of the form key=value"),
    ("search=[1", "override 'search=[1': the value is not valid YAML (expected"),
    (
        "space.k=&a {int: [0, 2], when: *a}",
        "override 'space.k=&a {int: [0, 2], when: *a}': the value is not valid YAML (the alias *a is inside",
    ),
    ("search={{a}: 1}", "override 'search={{a}: 1}': the value is not valid YAML (a key must be a word"),
]


@pytest.mark.parametrize(("override", "sentence"), MALFORMED)
def test_malformed_override(override: str, sentence: str, write: Write) -> None:
    refused_once(write(SOUND), override, sentence)


def test_a_method_that_is_none_has_no_keys_to_set(write: Write) -> None:
    for none in ("none", "None", "null"):
        (message,) = refused(write(SOUND.replace("baseline: none", f"baseline: {none}")), "methods.baseline.lambda=2")
        assert message == (
            "override 'methods.baseline.lambda=2': methods.baseline is none (the baseline) and has no lambda; "
            "add a method of another name, e.g. methods.jepa={lambda: 2}"
        )
    assert refused(write(SOUND), "methods.other=none", "methods.other.k=2")[0].startswith("override 'methods.other.k=2'")


def test_parameter_under_two_names(write: Write) -> None:
    messages = refused(write(SOUND.replace("search:", "  objective.k: {int: [1, 2]}\nsearch:")))
    assert messages == ["space.objective.k (line 10): objective.k is given twice, once by its short name; drop one"]


def test_everything_at_once_in_the_order_of_the_file(write: Write) -> None:
    text = """\
name: bad name
families: [lama3]
methods:
  jepa: {lamda: 1, k: one}
space:
  optim.learning_rat: {float: [1, 2]}
  lambda: {float: [0, 8], log: true}
  k: {int: [4, 0]}
  loss_dropout:
    choice: [0, 1.5]
search: {num_trials: 0}
base: {seed: 82}
"""
    messages = refused(write(text), "foo=1", "bar")
    expected = [
        "override 'bar'",
        "foo (override): unknown key",
        "name (line 1)",
        "families (line 2)",
        "methods.jepa.k (line 4)",
        "methods.jepa.lamda (line 4)",
        "space.optim.learning_rat (line 6): unknown parameter",
        "space.objective.lambda (line 7)",
        "space.objective.k (line 8)",
        "space.objective.loss_dropout (line 9)",
        "search.num_trials (line 11)",
        "base.seed (line 12)",
    ]
    assert len(messages) == len(expected), "\n".join(messages)
    assert all(message.startswith(start) for message, start in zip(messages, expected, strict=True)), "\n".join(messages)


def test_an_override_is_not_blamed_on_the_file(write: Write) -> None:
    assert refused(write(SOUND), "base={lora: {r: 0}}")[0].startswith("base.lora.r (override): must be at least 1, got 0")
    assert refused(write(SOUND), "base.lora.r=0")[0].startswith("base.lora.r (override)")
    assert refused(write(SOUND.replace("r: 8", "r: 0")), "base.optim.num_epochs=3")[0].startswith("base.lora.r (line 12)")


# --- files that are not a sweep


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a sweep file must contain keys and values (name: ..., methods: ...), but this one is empty"),
        ("# only a comment\n", "a sweep file must contain keys and values (name: ..., methods: ...), but this one is empty"),
        ("- a\n- b\n", "a sweep file must contain keys and values (name: ..., methods: ...), but this one contains a list"),
        ("hello", "a sweep file must contain keys and values (name: ..., methods: ...), but this one contains only 'hello'"),
        ("name: a\nmethods: {a: [}\n", "line 2, column 15: not valid YAML: "),
        ("name: a\n\tmethods: b\n", "line 2, column 1: not valid YAML: "),
        ("name: a\ntask: nl-rx\nname: b\n", "line 3, column 1: not valid YAML: the key 'name' appears twice"),
        ("name: a\nbase:\n  seed: 1\n  seed: 2\n", "line 4, column 3: not valid YAML: the key 'seed' appears twice"),
        ("name: {{a}}\n", "line 1, column 8: not valid YAML: a key must be a word, not a list or mapping"),
        (
            "name: a\nmethods: &m {a: none, b: *m}\n",
            "line 2, column 26: not valid YAML: the alias *m is inside its own anchor, so it would never end",
        ),
        ("name: a\ndata: &d {train: [*d]}\n", "line 2, column 19: not valid YAML: the alias *d is inside"),
        ("[" * 3000, "not valid YAML: it is nested too deeply"),
        ("name: !!python/object:os.system a\n", "line 1, column 7: not valid YAML: could not determine a constructor"),
    ],
)
def test_not_a_sweep_file(text: str, sentence: str, write: Write) -> None:
    (message,) = refused(write(text))
    assert message.startswith(sentence)


def test_missing_file(tmp_path: Path, write: Write) -> None:
    assert refused(tmp_path / "other" / "none.yaml") == ["the file does not exist; search_spaces/ has examples to start from"]
    path = write(SOUND, "lora.yaml")
    assert refused(tmp_path / "lroa.yaml") == [f"the file does not exist; did you mean {path}?"]
    assert refused(Path("name=x")) == ["the file does not exist; FILE comes first, then key=value"]
    assert refused(tmp_path)[0].startswith("cannot be read (Is a directory)")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert refused(tmp_path / "binary.yaml") == ["is not UTF-8 text; give a YAML file"]


# --- the command line

HEAVY = ["ray", "torch", "transformers", "optuna", "pandas"]
SCRIPT = f"""
import sys
from jepa_ray.sweep import main
code = main(sys.argv[1:])
print("loaded:", [name for name in {HEAVY} if name in sys.modules])
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["search.num_trials=0"], 2, "search.num_trials (override): must be at least 1, got 0"),
        (["--schema"], 0, '"$schema"'),
    ],
)
def test_command_line_answers_before_anything_heavy_is_imported(
    arguments: list[str], code: int, output: str, tmp_path: Path, repository: Path, write: Write
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(write(SOUND)), *arguments, f"output={tmp_path / 'results'}"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stderr
    assert output in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr
    assert "loaded: []" in done.stdout
    assert not (tmp_path / "results").exists(), "a folder was made although nothing was started"


def test_dump_of_every_kind_of_distribution(write: Write) -> None:
    sweep = SweepConfig.model_validate(
        {
            "name": "all",
            "methods": {"baseline": None, "jepa": {"lambda": 0.1}},
            "space": {
                "optim.learning_rate": {"float": [1e-5, 1e5], "log": True},
                "objective.gamma": {"float": [0, 1], "step": 0.1},
                "objective.k": {"int": [0, 4], "step": 2},
                "optim.max_grad_norm": {"choice": [None, 1.0], "when": {"objective.k": [0, 2]}},
            },
        }
    )
    text = dump(sweep)
    assert load_sweep(write(text)) == sweep
    space = yaml.load(text, strict_yaml.Loader)["space"]
    assert space["objective.k"] == {"int": [0, 4], "step": 2, "log": False}, "keys that are not given are not written"
    assert space["optim.max_grad_norm"]["choice"] == [None, 1.0]


# --- shorthands


@pytest.mark.parametrize("key", ["data", "space", "search", "scheduler", "confirm", "resources", "base", "base.model", "base.optim"])
def test_a_section_whose_lines_are_all_commented_out_has_its_defaults(key: str, write: Write) -> None:
    top, _, inner = key.partition(".")
    blank = f"{top}:\n  {inner}:\n    # nothing: here\n" if inner else f"{top}:\n  # nothing: here\n"
    text = "name: a\nmethods: {baseline: none}\n"
    assert load_sweep(write(text + blank)) == load_sweep(write(text))


def test_none_is_none_in_any_spelling(write: Write) -> None:
    for none in ("none", "None", "null", "~"):
        sweep = load_sweep(write(f"name: a\nmethods: {{baseline: {none}}}\nscheduler: {none}\nconfirm: {none}\n"))
        assert (sweep.methods, sweep.scheduler.name, sweep.confirm.seeds) == ({"baseline": None}, "none", ())


def test_a_condition_as_an_override_is_one_path(write: Write) -> None:
    for name in ("loss_dropout.when.k", "objective.loss_dropout.when.objective.k"):
        assert load_sweep(write(SOUND), [f"space.{name}=3"]).space["objective.loss_dropout"].when == {"objective.k": (3,)}


def test_every_value_of_every_axis_has_a_trial_in_a_search_space() -> None:
    import typing

    from jepa_ray.config import ObjectiveConfig

    used: set[tuple[str, object]] = set()
    for path in SPACES:
        methods = yaml.load(path.read_text(encoding="utf-8"), strict_yaml.Loader)["methods"]
        for spec in methods.values():
            if isinstance(spec, dict):
                objective = ObjectiveConfig.model_validate(spec)
                used |= {(name, repr(getattr(objective, name))) for name in ObjectiveConfig.model_fields}
    for name, field in ObjectiveConfig.model_fields.items():
        if typing.get_origin(field.annotation) is typing.Literal:
            missing = [value for value in typing.get_args(field.annotation) if (name, repr(value)) not in used]
            assert not missing, f"no search space has {name}: {missing}"
        else:
            assert len([value for key, value in used if key == name]) > 1 or name == "gather", f"no search space changes {name}"


def test_paths_may_start_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.jsonl").write_text("{}\n")
    file = tmp_path / "sweep.yaml"
    file.write_text("name: a\noutput: ~/x\nmethods: {base: none}\nconfirm: none\ndata: {train: ~/train.jsonl}\nmodel: ~/checkpoint\n")
    sweep = load_sweep(file)
    assert sweep.output == f"{tmp_path}/x" and sweep.data.train == f"{tmp_path}/train.jsonl" and sweep.model == f"{tmp_path}/checkpoint"
    assert load_sweep(file, ["output=~/y"]).output == f"{tmp_path}/y"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("output=s3://bucket/x", r"output \(override\): must be a folder on a mounted file system, got 's3://bucket/x'"),
        ("output=~no-such-user/x", r"output \(override\): '~no-such-user/x' names a home folder"),
        ("resources.address=ray://head:10001", r"resources.address \(override\): got 'ray://head:10001', but Ray Client.*ray job submit"),
    ],
)
def test_places_that_a_sweep_cannot_use(override: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("name: a\nmethods: {base: none}\n")
    with pytest.raises(ConfigError, match=sentence):
        load_sweep(file, [override])
