"""From YAML and overrides to a sweep: what a clumsy user types, and the sentence that answers it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jepa_ray import loading, plan
from jepa_ray.config import SweepConfig
from jepa_ray.loading import ConfigError, dump, json_schema, load_sweep

SOUND = """\
name: sound
methods:
  baseline: none
  jepa: {distance: cosine, lambda: 1, k: 1}
space:
  learning_rate: {float: [1e-4, 1e-2], log: true}
  lambda: {float: [0.1, 8], log: true}
  k: {int: [0, 4]}
  loss_dropout: {choice: [0, 0.5], when: {k: [1, 2]}}
search: {algorithm: random, num_trials: 5}
base:
  lora: {r: 8}
  optim: {num_epochs: 2}
"""
SPACES = sorted(Path(__file__).resolve().parents[1].glob("search_spaces/**/*.yaml"))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str, name: str = "sweep.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return _write


def refused(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_sweep(path, overrides)
    assert str(path) in str(error.value) and "nothing was started" in str(error.value)
    text = "\n".join(error.value.messages).lower()
    for jargon in ("input should", "valid dictionary", "tuple", "validation", "pydantic", "config", "extra inputs", "string should"):
        assert jargon not in text.replace("validation metric", ""), f"{jargon!r} in a message for users:\n{text}"
    return error.value.messages


# --- what is accepted


def test_sound_file_and_its_short_names(write: Any) -> None:
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
    read = yaml.load(f"key: {text}", loading._Loader)["key"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("name", ["1e5", "12", "1.5", "true", "no", "2025-01-31", "1.0.0", "0x1F"])
def test_names_that_look_like_something_else_survive_a_round_trip(name: str, write: Any) -> None:
    sweep = load_sweep(write(SOUND.replace("name: sound", f"name: '{name}'")))
    assert sweep.name == name
    assert load_sweep(write(dump(sweep))) == sweep


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_committed_search_spaces(path: Path, write: Any) -> None:
    sweep = load_sweep(path)
    assert plan.total_trials(sweep) > 0
    for arm in plan.arms(sweep):
        assert arm.name in plan.describe(sweep)
        # Every arm begins as it stands in the file: no default lies outside what is searched.
        assert set(plan.defaults(sweep, arm)) == {
            name for name, distribution in plan.space(sweep, arm).items() if distribution.when is None
        }
    assert load_sweep(write(dump(sweep))) == sweep
    jsonschema.validate(yaml.load(path.read_text(encoding="utf-8"), loading._Loader), json_schema())


def test_there_are_search_spaces() -> None:
    assert {"lora", "full"} <= {path.stem for path in SPACES}


def test_schema_accepts_shorthands_and_refuses_errors() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    sound = yaml.load(SOUND, loading._Loader)
    for more in ({}, {"scheduler": "none"}, {"confirm": "none"}, {"families": "gemma2"}, {"model": {"llama3": "paper"}}):
        assert validator.is_valid(sound | more), more
    assert validator.is_valid(sound | {"space": {"k": {"int": [0, 2], "when": {"lambda": 1}}}})
    for more in ({"familes": []}, {"search": {"num_trials": 0}}, {"methods": {}}, {"space": {"k": {"ints": [0, 2]}}}, {"name": 3}):
        assert not validator.is_valid(sound | more), more


def test_overrides_win_over_the_file(write: Any) -> None:
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


def test_last_override_wins(write: Any) -> None:
    assert load_sweep(write(SOUND), ["search.num_trials=3", "search.num_trials=4"]).search.num_trials == 4


def test_merge_keys_of_yaml(write: Any) -> None:
    text = "name: a\nmethods:\n  cosine: &jepa {k: 3}\n  l2: {<<: *jepa, distance: l2}\n"
    l2 = load_sweep(write(text)).methods["l2"]
    assert l2 is not None and (l2.k, l2.distance) == (3, "l2")


def test_names_that_exist_can_be_given(write: Any) -> None:
    sweep = load_sweep(write(SOUND), ["families=[mine]", "task=my-task"], families=["mine"], tasks=["my-task"])
    assert sweep.data.task == "my-task"
    with pytest.raises(ConfigError, match="unknown family 'llama3'; known: mine"):
        load_sweep(write(SOUND), ["families=llama3"], families=["mine"])


# --- what is refused: an override on the sound file, and the whole sentence or its beginning

UNKNOWN = [
    ("familes=[llama3]", "familes (override): unknown key; did you mean 'families'?"),
    ("foo=1", "foo (override): unknown key; legal here: name, output, families"),
    ("num_trials=1", "num_trials (override): unknown key; did you mean 'search.num_trials'?"),
    ("lambda=1", "lambda (override): unknown key; did you mean 'methods.<name>.lambda'?"),
    ("lr=1", "lr (override): unknown key; did you mean 'base.optim.learning_rate'?"),
    ("search.algorthm=tpe", "search.algorthm (override): unknown key; did you mean 'algorithm'?"),
    ("data.trian=x", "data.trian (override): unknown key; did you mean 'train'?"),
    ("methods.jepa.lamda=1", "methods.jepa.lamda (override): unknown key; did you mean 'lambda'?"),
    ("base.optim.learning_rte=1", "base.optim.learning_rte (override): unknown key; did you mean 'learning_rate'?"),
    ("base.lora.rank=1", "base.lora.rank (override): unknown key; legal here: r, alpha, dropout"),
    ("base.data.task=x", "base.data (override): unknown key"),
    ("space.k={int: [0, 1], lgo: true}", "space.objective.k.lgo (override): unknown key; did you mean 'log'?"),
    ("families=[lama3]", "families (override): unknown family 'lama3'; did you mean 'llama3'?"),
    ("families=[xyzzy]", "families (override): unknown family 'xyzzy'; known: llama3, gemma2"),
    ("task=nlrx", "task (override): unknown task 'nlrx'; did you mean 'nl-rx'?"),
    ("data.task=nlrx", "data.task (override): unknown task 'nlrx'; did you mean 'nl-rx'?"),
]
TYPES = [
    ("name=3", "name (override): must be text, got 3"),
    ("name=", "name (override): must be text, got none"),
    ("name=a/b", "name (override): may hold letters, digits, '.', '_' and '-' only and begins with a letter or digit, got 'a/b'"),
    ("name.x=1", 'name (override): must be text, got {"x": 1}'),
    ("families=3", "families (override): must be a list such as [a, b], got 3"),
    ("families=[]", "families (override): is empty, but needs at least one entry"),
    ("families=[llama3, llama3]", "families (override): names llama3 twice; drop one"),
    ("model=3", "model (override): must be one name for all families, or one for each such as {llama3: tiny, gemma2: paper}, got 3"),
    ("model={gemma2: tiny, llama3: tiny}", "model.gemma2 (override): is not among families; add it there or drop it here"),
    ("model={}", "model (override): gives no model for family llama3; add llama3: tiny (or a hub id, or a path)"),
    ("search=3", "search (override): must be keys and values (algorithm, num_trials, metric, mode, seed); got 3"),
    ("search.num_trials=true", "search.num_trials (override): must be a whole number, got true"),
    ("search.num_trials=0", "search.num_trials (override): must be at least 1, got 0"),
    (
        "search.algorithm=tpo",
        "search.algorithm (override): must be 'tpe', 'random', 'grid', 'gp', 'qmc' or 'cmaes', got 'tpo'; did you mean 'tpe'?",
    ),
    (
        "search.metric=test_exact",
        "search.metric (override): must be one of val_exact, val_prefix, val_contains, val_stopped, val_ce (the test split",
    ),
    ("search.metric=val_ce", "search.metric (override): val_ce is better when smaller, so mode = max would select the worst"),
    ("search.mode=min", "search.mode (override): val_exact is better when larger, so mode = min would select the worst"),
    ("base.optim.learning_rate=fast", "base.optim.learning_rate (override): must be a finite number, got 'fast'"),
    ("base.optim.learning_rate=.inf", "base.optim.learning_rate (override): must be a finite number, got inf"),
    ("base.optim.learning_rate=0", "base.optim.learning_rate (override): must be above 0.0, got 0"),
    ("base.lora.dropout=1", "base.lora.dropout (override): must be below 1.0, got 1"),
    ("base.lora=16", "base.lora (override): must be keys and values (r, alpha, dropout); got 16"),
    ("confirm.seeds=3", "confirm.seeds (override): must be a list such as [a, b], got 3"),
    ("confirm.seeds=[4, 4]", "confirm.seeds (override): must be distinct seeds, got [4, 4]; drop the repeated one"),
    ("confirm.seeds=[-4]", "confirm.seeds (override): must be at least 0, each of them, got [-4]"),
    ("resources.dashboard=1", "resources.dashboard (override): must be true or false, got 1"),
    ("methods=none", "methods (override): must be keys and values such as {a: ..., b: ...}, got 'none'"),
    ("methods={}", "methods (override): is empty, but needs at least one entry"),
    ("methods={1: {k: 1}}", "methods.1 (override): a key must be text, got 1; quote it"),
    (
        "methods.jepa=cosine",
        "methods.jepa (override): must be none (the baseline) or an objective such as {distance: cosine, lambda: 1, k: 1}; got 'cosine'",
    ),
    ("methods.jepa.k=one", "methods.jepa.k (override): must be a whole number, got 'one'"),
    ("methods.jepa.k=65", "methods.jepa.k (override): must be at most 64, got 65"),
    (
        "methods.jepa.distance=cosin",
        "methods.jepa.distance (override): must be 'cosine', 'l2' or 'mse', got 'cosin'; did you mean 'cosine'?",
    ),
    ("methods.other=none", "methods.other (override): is the same as methods.baseline; change or drop one"),
    ("methods.other={k: 1}", "methods.other (override): is the same as methods.jepa; change or drop one"),
    ("methods={'a b': none, jepa: {}}", "methods.a b (override): a method's name begins with a letter or digit and holds"),
]
SPACE = [
    ("space=3", "space (override): must be keys and values such as {a: ..., b: ...}, got 3"),
    (
        "space.k=3",
        "space.objective.k (override): must be a distribution such as {float: [0.1, 10], log: true}, {int: [0, 4]}",
    ),
    ("space.k={int: [4, 0]}", "space.objective.k (override): the range is empty: low = 4 is above high = 0; swap them"),
    (
        "space.lambda.float=[0, 8]",
        "space.objective.lambda (line 7 and override): a log range needs low > 0, got low = 0; raise low or drop log",
    ),
    (
        "space.lambda.choice=[1]",
        "space.objective.lambda (line 7 and override): needs exactly one of float, int and choice, got float and choice",
    ),
    ("space.k={float: [0, 4]}", "space.objective.k (override): takes whole numbers, but a float range draws others too; write int: [0, 4]"),
    ("space.k={int: [0, 65]}", "space.objective.k (override): must be at most 64, got 65; narrow the range"),
    ("space.loss_dropout={choice: [0, 1]}", "space.objective.loss_dropout (override): must be below 1.0, got 1"),
    ("space.distance={choice: [cosine, cos]}", "space.objective.distance (override): must be 'cosine', 'l2' or 'mse', got 'cos'"),
    ("space.learning_rate={float: [0, 1]}", "space.optim.learning_rate (override): must be above 0.0, got 0.0; narrow the range"),
    (
        "space.optim.learning_rat={float: [1, 2]}",
        "space.optim.learning_rat (override): unknown parameter; did you mean 'optim.learning_rate'?",
    ),
    ("space.lr={float: [1, 2]}", "space.lr (override): unknown parameter; did you mean 'optim.learning_rate'?"),
    ("space.epochs={int: [1, 2]}", "space.epochs (override): unknown parameter; did you mean 'optim.num_epochs'?"),
    ("space.xyzzy={int: [1, 2]}", "space.xyzzy (override): unknown parameter; searchable: optim.learning_rate, optim.num_epochs"),
    (
        "space.seed={int: [1, 2]}",
        "space.seed (override): seeds are replicates, never searched; set base.seed for the search and confirm.seeds",
    ),
    (
        "space.data.num_train={int: [1, 2]}",
        "space.data.num_train (override): data is the same for all trials, or they could not be compared; set it in data",
    ),
    (
        "space.model.family={choice: [a, b]}",
        "space.model.family (override): model is the same for all trials, or they could not be compared",
    ),
    ("space.k={int: [0, 2], when: 3}", "space.objective.k.when (override): must be keys and values such as {a: ..., b: ...}, got 3"),
    (
        "space.lambda.when={k: 1}",
        "space.objective.lambda.when (override): objective.k stands below objective.lambda, but `when` looks at parameters above it",
    ),
    (
        "space.k.when={lamda: 1}",
        "space.objective.k.when (override): lamda is not searched; `when` looks at parameters above it: optim.learning_rate",
    ),
    (
        "space.k.when={objective.lamda: 1}",
        "space.objective.k.when (override): objective.lamda is not searched; did you mean 'objective.lambda'?",
    ),
    ("space.k.when={gamma: 1}", "space.objective.k.when (override): objective.gamma is not searched; "),
    ("space.k.when={k: 1}", "space.objective.k.when (override): a parameter cannot depend on itself"),
    (
        "space.loss_dropout.when={k: 9}",
        "space.objective.loss_dropout.when (override): objective.k never is 9: it is searched over 0 to 4, whole",
    ),
    ("search.algorithm=grid", "space.optim.learning_rate (line 6): search.algorithm is grid, but a grid needs finitely many values"),
]
BETWEEN_KEYS = [
    (
        "base.seed=82",
        "base.seed (override): base.seed = 82 is also among confirm.seeds = [82, 23, 37, 84, 4], but confirmation needs fresh seeds",
    ),
    (
        "confirm.seeds=[2, 1]",
        "confirm.seeds (override): base.seed = 1 is also among confirm.seeds = [2, 1], but confirmation needs fresh seeds; change one",
    ),
    ("data.train=absent.jsonl", "data.train (override): there is no file absent.jsonl (relative paths start from "),
    ("data.test=absent.jsonl", "data.test (override): there is no file absent.jsonl (relative paths start from "),
    (f"data.test={__file__}", "data.test (override): a test file without data.train; name both, or neither for the built-in generator"),
    (
        f"data.train={__file__}",
        "data.test (override): is missing, but the confirmation needs a sealed test split; name a file, or set confirm=none",
    ),
    ("base.evaluation.test=true", "base.evaluation.test (override): the test split stays sealed until confirmation; drop this key"),
]
MALFORMED = [
    ("search.num_trials", "override 'search.num_trials' is not of the form key=value, e.g. search.num_trials=40"),
    ("=1", "override '=1' is not of the form key=value"),
    ("a..b=1", "override 'a..b=1' is not of the form key=value"),
    ("search=[1", "override 'search=[1': the value is not valid YAML (expected"),
    ("search={{a}: 1}", "override 'search={{a}: 1}': the value is not valid YAML (a key is a word"),
]


@pytest.mark.parametrize(("override", "sentence"), UNKNOWN + TYPES + SPACE + BETWEEN_KEYS + MALFORMED)
def test_bad_override(override: str, sentence: str, write: Any) -> None:
    messages = refused(write(SOUND), override)
    assert sum(message.startswith(sentence) for message in messages) == 1, "\n".join(messages)
    # One mistake, one sentence; but an absent file may also be without its twin, and a grid is refused for each range.
    assert len(messages) == 1 or override in ("data.test=absent.jsonl", "data.train=absent.jsonl", "search.algorithm=grid", "methods={}"), (
        messages
    )


def test_lambda_without_an_objective(write: Any) -> None:
    text = "name: a\nmethods: {baseline: none}\nspace:\n  learning_rate: {float: [1, 2]}\n  lambda: {float: [1, 2]}\n"
    (message,) = refused(write(text))
    assert message == (
        "space.objective.lambda (line 5): no method has an objective, so this would search nothing; "
        "add one to methods, e.g. jepa: {distance: cosine}"
    )


def test_adapters_searched_without_adapters(write: Any) -> None:
    (message,) = refused(write(SOUND), "base.lora=none", "space.r={int: [1, 8]}")
    assert message == "space.lora.r (override): base.lora is not set, so there are no adapters to search; set e.g. base.lora.r=16"
    assert load_sweep(write(SOUND), ["space.r={int: [1, 8]}"]).space["lora.r"].int_ == (1, 8)


def test_large_grid(write: Any) -> None:
    (message,) = refused(write(SOUND), "space={k: {int: [0, 64]}, gamma: {float: [0, 1], step: 1e-9}}", "search.algorithm=grid")
    assert message.startswith("search.algorithm (override): the grid has more than 10000 points; give larger steps")


def test_parameter_under_two_names(write: Any) -> None:
    messages = refused(write(SOUND.replace("search:", "  objective.k: {int: [1, 2]}\nsearch:")))
    assert messages == ["space.objective.k (line 10): objective.k is given twice, once by its short name; drop one"]


def test_two_tasks(write: Any) -> None:
    messages = refused(write("name: a\ntask: nl-rx\ndata:\n  task: spider\nmethods: {a: none}\n"))
    assert "data.task (line 4): is 'spider', but task is 'nl-rx'; drop data.task" in messages


def test_what_is_missing(write: Any) -> None:
    assert refused(write("task: nl-rx\n")) == [
        "name: is missing, but every sweep needs it",
        "methods: is missing, but every sweep needs it",
    ]


def test_everything_at_once_in_the_order_of_the_file(write: Any) -> None:
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


def test_an_override_is_not_blamed_on_the_file(write: Any) -> None:
    assert refused(write(SOUND), "base={lora: {r: 0}}")[0].startswith("base.lora.r (override): must be at least 1, got 0")
    assert refused(write(SOUND), "base.lora.r=0")[0].startswith("base.lora.r (override)")
    assert refused(write(SOUND.replace("r: 8", "r: 0")), "base.optim.num_epochs=3")[0].startswith("base.lora.r (line 12)")


# --- files that are no sweep


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a sweep file holds keys and values (name: ..., methods: ...), but this one holds nothing"),
        ("# only a comment\n", "a sweep file holds keys and values (name: ..., methods: ...), but this one holds nothing"),
        ("- a\n- b\n", "a sweep file holds keys and values (name: ..., methods: ...), but this one holds a list"),
        ("hello", "a sweep file holds keys and values (name: ..., methods: ...), but this one holds only 'hello'"),
        ("name: a\nmethods: {a: [}\n", "line 2, column 15: not valid YAML: "),
        ("name: a\n\tmethods: b\n", "line 2, column 1: not valid YAML: "),
        ("name: a\ntask: nl-rx\nname: b\n", "line 3, column 1: not valid YAML: the key 'name' stands twice"),
        ("name: a\nbase:\n  seed: 1\n  seed: 2\n", "line 4, column 3: not valid YAML: the key 'seed' stands twice"),
        ("name: {{a}}\n", "line 1, column 8: not valid YAML: a key is a word, not a list or mapping"),
        ("name: !!python/object:os.system a\n", "line 1, column 7: not valid YAML: could not determine a constructor"),
    ],
)
def test_not_a_sweep_file(text: str, sentence: str, write: Any) -> None:
    (message,) = refused(write(text))
    assert message.startswith(sentence)


def test_missing_file(tmp_path: Path, write: Any) -> None:
    assert refused(tmp_path / "other" / "none.yaml") == ["there is no such file; search_spaces/ has some to start from"]
    path = write(SOUND, "lora.yaml")
    assert refused(tmp_path / "lroa.yaml") == [f"there is no such file; did you mean {path}?"]
    assert refused(Path("name=x")) == ["there is no such file; FILE comes first, then key=value"]
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
    ("arguments", "code", "said"),
    [
        (["search.num_trials=0"], 2, "search.num_trials (override): must be at least 1, got 0"),
        (["--schema"], 0, '"$schema"'),
    ],
)
def test_command_line_answers_before_anything_heavy_is_imported(
    arguments: list[str], code: int, said: str, tmp_path: Path, repository: Path, write: Any
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(write(SOUND)), *arguments, f"output={tmp_path / 'results'}"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stderr
    assert said in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr
    assert "loaded: []" in done.stdout
    assert not (tmp_path / "results").exists(), "a folder was made although nothing was started"


def test_dump_of_every_kind_of_distribution(write: Any) -> None:
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
    assert load_sweep(write(dump(sweep))) == sweep


@pytest.mark.parametrize(
    ("text", "overrides", "sentences"),
    [
        (SOUND, ["methods.baseline.lambda=2"], ["methods.baseline is none", "methods.jepa={lambda: 2}"]),
        (SOUND + "scheduler: none\n", ["scheduler.grace_period=2"], ["scheduler is none", "scheduler.name=asha"]),
        (SOUND, ["scheduler.time_attr=train_flops"], ["scheduler.grace_period must be given in FLOPs"]),
        ("name: a\nmethods: &m {a: none, b: *m}\n", [], ["an alias (*name) stands inside what it names"]),
        (SOUND, ["optim.learning_rate=1"], ["did you mean 'base.optim"]),
        (SOUND, ["space.loss_dropot={choice: [0, 0.5]}"], ["loss_dropout"]),
    ],
    ids=["override inside none", "none and a grace period", "one FLOP", "endless alias", "part of base", "misspelt leaf"],
)
def test_silent_traps_are_refused(text: str, overrides: list[str], sentences: list[str], write: Any) -> None:
    messages = "\n".join(refused(write(text), *overrides))
    assert all(sentence in messages for sentence in sentences), messages


def test_the_test_file_must_not_be_the_training_file(tmp_path: Path, write: Any) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text("{}\n")
    messages = "\n".join(refused(write(SOUND), f"data.train={file}", f"data.test={tmp_path}/./all.jsonl"))
    assert "is the training file" in messages


def test_a_condition_on_a_continuous_parameter_is_refused(write: Any) -> None:
    messages = refused(write(SOUND), "space.objective.lambda={float: [0, 2]}", "space.objective.k={int: [0, 2], when: {lambda: 1}}")
    assert any("continuous" in message or "above it" in message for message in messages), messages


def test_a_blank_section_has_its_defaults_and_a_condition_is_one_path(write: Any) -> None:
    assert load_sweep(write("name: a\nmethods: {jepa: {k: 1}}\nspace:\n  # nothing yet\nsearch:\n")).space == {}
    path = write("name: a\nmethods: {jepa: {k: 1}}\nspace: {k: {int: [0, 2]}, loss_dropout: {choice: [0, 0.5]}}\n")
    sweep = load_sweep(path, ["space.objective.loss_dropout.when.objective.k=1"])
    assert sweep.space["objective.loss_dropout"].when == {"objective.k": (1,)}
