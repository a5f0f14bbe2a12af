"""Rules between the keys of a sweep file, files and names that do not exist: each mistake is refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_ray.config import arms
from jepa_ray.plan.load import load_sweep
from tests.sweep_files import SOUND, Write, refused, refused_once, writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


SPACE = [
    ("space=3", "space (override): must be keys and values such as {a: ..., b: ...}, got 3"),
    (
        "space.k=3",
        "space.objective.k (override): must be a distribution such as {float: [0.1, 10], log: true}, {int: [0, 4]}",
    ),
    ("space.k={int: [4, 0]}", "space.objective.k (override): the range is empty, since low = 4 is above high = 0; swap them"),
    (
        "space.lambda.float=[0, 8]",
        "space.objective.lambda (line 7 and override): a log range needs low > 0, got low = 0; raise low or drop log",
    ),
    (
        "space.lambda.choice=[1]",
        "space.objective.lambda (line 7 and override): needs exactly one of float, int and choice, got float and choice",
    ),
    (
        "space.k={float: [0, 4]}",
        "space.objective.k (override): takes whole numbers, but a float range also draws others; write int: [0, 4]",
    ),
    ("space.k={int: [0, 65]}", "space.objective.k (override): must be at most 64, got 65; narrow the range"),
    ("space.loss_dropout={choice: [0, 1]}", "space.objective.loss_dropout (override): must be below 1.0, got 1"),
    (
        "space.distance={choice: [cosine, cos]}",
        "space.objective.distance (override): must be 'cosine', 'l2', 'mse', 'smooth_l1' or 'infonce', got 'cos'",
    ),
    ("space.learning_rate={float: [0, 1]}", "space.optim.learning_rate (override): must be above 0.0, got 0.0; narrow the range"),
    (
        "space.optim.learning_rat={float: [1, 2]}",
        "space.optim.learning_rat (override): unknown parameter; did you mean 'optim.learning_rate'?",
    ),
    ("space.loss_dropot={choice: [0, 0.5]}", "space.loss_dropot (override): unknown parameter; did you mean 'objective.loss_dropout'?"),
    ("space.lr={float: [1, 2]}", "space.lr (override): unknown parameter; did you mean 'optim.learning_rate'?"),
    ("space.epochs={int: [1, 2]}", "space.epochs (override): unknown parameter; did you mean 'optim.num_epochs'?"),
    ("space.xyzzy={int: [1, 2]}", "space.xyzzy (override): unknown parameter; searchable: optim.learning_rate, optim.num_epochs"),
    (
        "space.seed={int: [1, 2]}",
        "space.seed (override): seeds are replicates and cannot be searched; set base.seed for the search and confirm.seeds",
    ),
    (
        "space.data.num_train={int: [1, 2]}",
        "space.data.num_train (override): data must be the same for all trials, or they could not be compared; set it in data",
    ),
    (
        "space.model.family={choice: [a, b]}",
        "space.model.family (override): model must be the same for all trials, or they could not be compared",
    ),
    ("space.k={int: [0, 2], when: 3}", "space.objective.k.when (override): must be keys and values such as {a: ..., b: ...}, got 3"),
    (
        "space.lambda.when={k: 1}",
        "space.objective.lambda.when (override): objective.k is below objective.lambda, but `when` can only refer to parameters above it",
    ),
    (
        "space.k.when={lamda: 1}",
        "space.objective.k.when (override): lamda is not searched; `when` refers to parameters above it: optim.learning_rate",
    ),
    (
        "space.k.when={objective.lamda: 1}",
        "space.objective.k.when (override): objective.lamda is not searched; did you mean 'objective.lambda'?",
    ),
    ("space.k.when={gamma: 1}", "space.objective.k.when (override): objective.gamma is not searched; "),
    ("space.k.when={k: 1}", "space.objective.k.when (override): a parameter cannot depend on itself"),
    (
        "space.loss_dropout.when={k: 9}",
        "space.objective.loss_dropout.when (override): objective.k is never 9, since it is searched over 0 to 4, whole",
    ),
    (
        "space.control={choice: [lambda_zero, shuffled]}",
        "space.objective.control (override): must be written 'zero' here, got 'lambda_zero'",
    ),
    ("search.algorithm=grid", "space.optim.learning_rate (line 6): search.algorithm is grid, but a grid needs finitely many values"),
]
BETWEEN_KEYS = [
    (
        "base.seed=82",
        "base.seed (override): base.seed = 82 is also among confirm.seeds = [82, 23, 37, 84, 4], but the confirmation needs fresh seeds",
    ),
    (
        "confirm.seeds=[2, 1]",
        "confirm.seeds (override): base.seed = 1 is also among confirm.seeds = [2, 1], but the confirmation needs fresh seeds; change one",
    ),
    ("data.train=absent.jsonl", "data.train (override): the file absent.jsonl does not exist (relative paths start from "),
    ("data.test=absent.jsonl", "data.test (override): the file absent.jsonl does not exist (relative paths start from "),
    (f"data.test={__file__}", "data.test (override): is given without data.train; give both, or neither for the built-in generator"),
    (
        f"data.train={__file__}",
        "data.test (override): is missing, but the confirmation needs a sealed test split; give a file, or set confirm=none",
    ),
    ("base.evaluation.embeddings=-1", "base.evaluation.embeddings (override): must be at least 0, got -1"),
    ("base.evaluation.test=true", "base.evaluation.test (override): the test split stays sealed until confirmation; drop this key"),
]


@pytest.mark.parametrize(("override", "sentence"), SPACE + BETWEEN_KEYS)
def test_bad_override(override: str, sentence: str, write: Write) -> None:
    if override in ("data.test=absent.jsonl", "data.train=absent.jsonl", "search.algorithm=grid"):
        # A missing file also lacks its counterpart; a grid is refused for each range.
        assert sum(message.startswith(sentence) for message in refused(write(SOUND), override)) == 1
        return
    refused_once(write(SOUND), override, sentence)


def test_methods_that_resolve_to_the_same_are_refused(write: Write) -> None:
    """Writing out a default does not make a new method: the plan would count it once, the verdict twice."""
    for override in (
        "cross_entropy={other: {loss_on: answer}}",
        "cross_entropy={other: {train_end_of_turn: true}, baseline: {loss_on: none}}",
    ):
        (message,) = refused(write(SOUND), "methods.other=none", override)
        assert message == "methods.other (override): is the same as methods.baseline; change or drop one"
    sweep = load_sweep(write(SOUND), ["methods.other=none", "cross_entropy={other: {loss_on: all}}"])
    assert {name: sweep.loss_side(name)[0] for name in ("baseline", "other")} == {"baseline": "answer", "other": "all"}


def test_the_loss_side_cannot_be_searched(write: Write) -> None:
    for knob in ("loss_on", "train_end_of_turn"):
        values = "[answer, all]" if knob == "loss_on" else "[true, false]"
        messages = refused(write(SOUND), f"space.optim.{knob}={{choice: {values}}}")
        assert messages[0].startswith(f"space.optim.{knob} (override): decides what a method is compared with, so it cannot be searched")


def test_a_control_that_changes_nothing(write: Write) -> None:
    messages = refused(write(SOUND), "controls=[stop_token]", "base.optim.train_end_of_turn=false")
    assert any(message.startswith("controls (override): stop_token has no effect") for message in messages), messages


def test_embeddings_without_a_confirmation(write: Write) -> None:
    (message,) = refused(write(SOUND), "base.evaluation.embeddings=8", "confirm=none")
    assert message == (
        "base.evaluation.embeddings (override): has no effect, since embeddings are kept only for confirmed trials and there are none; "
        "drop it, or give confirm.seeds"
    )
    assert load_sweep(write(SOUND), ["base.evaluation.embeddings=8"]).base.evaluation.embeddings == 8


def test_lambda_without_an_objective(write: Write) -> None:
    text = "name: a\nmethods: {baseline: none}\nspace:\n  learning_rate: {float: [1, 2]}\n  lambda: {float: [1, 2]}\n"
    (message,) = refused(write(text))
    assert message == (
        "space.objective.lambda (line 5): no method has an objective, so this would search nothing; "
        "add a method such as jepa: {distance: cosine}"
    )


def test_adapters_searched_without_adapters(write: Write) -> None:
    (message,) = refused(write(SOUND), "base.lora=none", "space.r={int: [1, 8]}")
    assert message == "space.lora.r (override): base.lora is not set, so there are no adapters to search; set e.g. base.lora.r=16"
    assert load_sweep(write(SOUND), ["space.r={int: [1, 8]}"]).space["lora.r"].int_ == (1, 8)


def test_large_grid(write: Write) -> None:
    (message,) = refused(write(SOUND), "space={k: {int: [0, 64]}, gamma: {float: [0, 1], step: 1e-9}}", "search.algorithm=grid")
    assert message.startswith("search.algorithm (override): the grid has more than 10000 points; use larger steps")


def test_two_tasks(write: Write) -> None:
    messages = refused(write("name: a\ntask: nl-rx\ndata:\n  task: spider\nmethods: {a: none}\n"))
    assert "data.task (line 4): is 'spider', but task is 'nl-rx'; drop data.task" in messages


# --- the scheduler


def test_a_setting_of_a_scheduler_that_is_none_has_no_effect(write: Write) -> None:
    sentence = "has no effect, since the scheduler is none; drop it (to drop all: scheduler=none), or set scheduler.name=asha"
    (message,) = refused(write(SOUND + "scheduler: none\n"), "scheduler.grace_period=3")
    assert message == f"scheduler.grace_period (override): {sentence}"
    path = write(SOUND + "scheduler: {grace_period: 3, reduction_factor: 4}\n")
    assert refused(path, "scheduler.name=none") == [
        f"scheduler.{key} (line 14): {sentence}" for key in ("grace_period", "reduction_factor")
    ]
    # Both remedies.
    assert load_sweep(path, ["scheduler=none"]).scheduler.name == "none"
    both = load_sweep(write(SOUND + "scheduler: none\n"), ["scheduler.grace_period=3", "scheduler.name=asha"])
    assert (both.scheduler.name, both.scheduler.grace_period) == ("asha", 3)


@pytest.mark.parametrize(("section", "place"), [("", "time_attr (override)"), ("scheduler: {grace_period: 4}\n", "grace_period (line 14)")])
def test_a_grace_period_in_epochs_is_refused_for_flops(section: str, place: str, write: Write) -> None:
    (message,) = refused(write(SOUND + section), "scheduler.time_attr=train_flops")
    assert message.startswith(f"scheduler.{place}: with time_attr train_flops, scheduler.grace_period must be in FLOPs")
    assert "--dry-run" in message
    assert (
        load_sweep(write(SOUND + section), ["scheduler.time_attr=train_flops", "scheduler.grace_period=1e12"]).scheduler.grace_period
        == 1e12
    )


@pytest.mark.parametrize(
    ("scheduler", "place", "sentence"),
    [
        ("{time_attr: step}", "time_attr", "with time_attr step, scheduler.grace_period must be given, in optimizer steps"),
        (
            "{time_attr: step, grace_period: 2.5}",
            "grace_period",
            "with time_attr step, must be a whole number of optimizer steps, but is 2.5",
        ),
    ],
)
def test_a_grace_period_in_steps_is_a_whole_number(scheduler: str, place: str, sentence: str, write: Write) -> None:
    assert refused(write(SOUND + f"scheduler: {scheduler}\n")) == [f"scheduler.{place} (line 14): {sentence}"]
    sound = load_sweep(write(SOUND + "scheduler: {time_attr: step, grace_period: 200}\n"))
    assert sound.scheduler.at_steps[:2] == (200, 600)


def test_steps_of_validations_follow_from_the_scheduler(write: Write) -> None:
    (message,) = refused(write(SOUND), "base.evaluation.at_steps=[5]")
    assert message.endswith("follows from scheduler.time_attr: step and grace_period; set these, and drop this key")


# --- data and conditions


def test_the_test_file_must_not_be_the_training_file(tmp_path: Path, write: Write) -> None:
    file, other = tmp_path / "all.jsonl", tmp_path / "other.jsonl"
    file.touch()
    other.touch()
    (tmp_path / "link.jsonl").symlink_to(file)
    for same in (file, tmp_path / "." / "all.jsonl", tmp_path / "link.jsonl"):
        (message,) = refused(write(SOUND), f"data.train={file}", f"data.test={same}")
        assert message.startswith(f"data.test (override): is the training file {file}; the test split must be data")
    assert load_sweep(write(SOUND), [f"data.train={file}", f"data.test={other}"]).data.test == str(other)


def test_a_condition_on_a_continuous_parameter_is_refused(write: Write) -> None:
    (message,) = refused(write(SOUND), "space.k.when={lambda: 1}")
    assert message.startswith("space.objective.k.when (override): objective.lambda is continuous, so it almost never takes an exact value")
    for values in ("{float: [0, 2], step: 0.5}", "{choice: [0.5, 1]}", "{float: [1, 1]}"):
        assert load_sweep(write(SOUND), [f"space.lambda={values}", "space.k.when={lambda: 1}"]).space["objective.k"].when is not None


@pytest.mark.parametrize("mode", ["true", "'true'"])
def test_a_graph_of_a_network_in_shards_is_refused(mode: str, write: Write) -> None:
    override = "resources={sharding: fsdp, workers_per_trial: 2}"
    (message,) = refused(write(SOUND), f"base.model.compile={mode}", override)
    assert message == "base.model.compile (override): is not supported with resources.sharding=fsdp, whose shards run eagerly; drop one"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("base.model={compile: true, attention: bucketed}", "base.model (override): compile = true needs attention = flex"),
        ("base.model={compile: true, packing: plain}", "base.model (override): packing = plain uses the model's own attention"),
        ("base.model.compile=maybe", "base.model.compile (override): must be 'auto', 'true' or 'false'"),
        ("base.optim={micro_batch_size: 4, tokens_per_forward: 99}", "base.optim (override): micro_batch_size = 4 and tokens_per_forward"),
    ],
)
def test_settings_of_the_step_that_contradict_each_other(override: str, sentence: str, write: Write) -> None:
    (message,) = refused(write(SOUND), override)
    assert message.startswith(sentence)


# --- families found from their checkpoints


@pytest.mark.parametrize("model", ["tiny", "paper"])
def test_auto_needs_a_checkpoint(model: str, write: Write) -> None:
    sentence = f"auto is found from a checkpoint, but model is {model}; set model to a hub id or a folder, or name a family such as llama3"
    assert refused(write(SOUND), "families=[auto]", f"model={model}") == [f"families (override): {sentence}"]
    assert refused(write(SOUND), "families=[auto, qwen3]", f"model={{auto: {model}, qwen3: tiny}}") == [f"families (override): {sentence}"]


def test_auto_is_the_default_for_a_checkpoint(write: Write) -> None:
    assert load_sweep(write(SOUND), ["model=org/name"]).families == ("auto",)
    assert load_sweep(write(SOUND), ["model=org/name", "families=[llama3]"]).families == ("llama3",)
    for model in ("tiny", "paper"):
        assert load_sweep(write(SOUND), [f"model={model}"]).families == ("llama3",)
    both = load_sweep(write(SOUND), ["families=[auto, qwen3]", "model={auto: a/b, qwen3: tiny}"])
    assert [arm.name for arm in arms(both)] == ["baseline/auto", "jepa/auto", "baseline/qwen3", "jepa/qwen3"]
    assert load_sweep(write(SOUND), ["model={llama3: a/b}"]).families == ("llama3",)
