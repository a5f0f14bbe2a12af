"""Unknown keys and values of the wrong type: the sentence names place, rule, value and remedy."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from jepa_ray.config.messages import folded
from tests.sweep_files import SOUND, Write, refused, refused_once, writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


UNKNOWN = [
    ("familes=[llama3]", "familes (override): unknown key; did you mean 'families'?"),
    ("optim.learning_rate=1", "optim (override): unknown key; did you mean 'base.optim.learning_rate'?"),
    ("lora.r=3", "lora (override): unknown key; did you mean 'base.lora.r'?"),
    ("objective.lambda=2", "objective (override): unknown key; did you mean 'methods.<name>.lambda'?"),
    ("loss_dropot=0.5", "loss_dropot (override): unknown key; did you mean 'methods.<name>.loss_dropout'?"),
    ("methods.jepa.loss_dropot=0.5", "methods.jepa.loss_dropot (override): unknown key; did you mean 'loss_dropout'?"),
    ("scheduler={name: none, 1: 2}", "scheduler.1 (override): a key must be text, got 1; quote it"),
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
    ("name=a/b", "name (override): must begin with a letter or digit and contain only letters, digits, '.', '_' and '-', got 'a/b'"),
    ("name.x=1", 'name (override): must be text, got {"x": 1}'),
    ("families=3", "families (override): must be a list such as [a, b], got 3"),
    ("families=[]", "families (override): is empty, but needs at least one entry"),
    ("families=[llama3, llama3]", "families (override): contains llama3 twice; drop one"),
    ("model=3", "model (override): must be one name for all families, or one per family such as {llama3: tiny, gemma2: paper}, got 3"),
    ("model={gemma2: tiny, llama3: tiny}", "model.gemma2 (override): is not in families; add it there or drop it here"),
    ("model={}", "model (override): has no model for family llama3; add llama3: tiny (or a hub id, or a path)"),
    ("search=3", "search (override): must be keys and values (algorithm, num_trials, train_flops, warm_start, metric, mode, seed); got 3"),
    ("search.num_trials=true", "search.num_trials (override): must be a whole number, got true"),
    ("search.num_trials=0", "search.num_trials (override): must be at least 1, got 0"),
    (
        "search.algorithm=tpo",
        "search.algorithm (override): must be 'tpe', 'random', 'grid', 'gp', 'qmc' or 'cmaes', got 'tpo'; did you mean 'tpe'?",
    ),
    (
        "search.metric=test_exact",
        "search.metric (override): must be one of val_accuracy, val_exact, val_prefix, "
        "val_contains, val_stopped, val_paper, val_equivalent, val_retrieval (the test split",
    ),
    ("search.metric=val_ce", "search.metric (override): must be one of val_accuracy"),
    ("search.mode=min", "search.mode (override): a larger val_accuracy is better, so mode = min would select the worst"),
    ("base.optim.learning_rate=fast", "base.optim.learning_rate (override): must be a finite number, got 'fast'"),
    ("base.optim.learning_rate=.inf", "base.optim.learning_rate (override): must be a finite number, got inf"),
    ("base.optim.learning_rate=0", "base.optim.learning_rate (override): must be above 0.0, got 0"),
    ("base.lora.dropout=1", "base.lora.dropout (override): must be below 1.0, got 1"),
    ("base.lora=16", "base.lora (override): must be keys and values (r, alpha, dropout); got 16"),
    ("confirm.seeds=3", "confirm.seeds (override): must be a list such as [a, b], got 3"),
    ("confirm.seeds=[4, 4]", "confirm.seeds (override): must be distinct seeds, got [4, 4]; drop the repeated one"),
    ("confirm.seeds=[-4]", "confirm.seeds (override): must all be at least 0, got [-4]"),
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
        "methods.jepa.distance (override): must be 'cosine', 'l2', 'mse', 'smooth_l1' or 'infonce', got 'cosin'; did you mean 'cosine'?",
    ),
    ("methods.other=none", "methods.other (override): is the same as methods.baseline; change or drop one"),
    ("methods.other={k: 1}", "methods.other (override): is the same as methods.jepa; change or drop one"),
    (
        f"methods={{{'a' * 300}: none, jepa: {{}}}}",
        f"methods.{'a' * 300} (override): a method's name must have at most 100 characters, since folders and trackers have",
    ),
    ("methods={'a b': none, jepa: {}}", "methods.a b (override): a method's name must begin with a letter or digit and contain"),
]


@pytest.mark.parametrize(("override", "sentence"), UNKNOWN + TYPES)
def test_bad_override(override: str, sentence: str, write: Write) -> None:
    if override == "methods={}":  # also leaves the space of SOUND without an objective
        assert sentence in refused(write(SOUND), override)[0]
        return
    refused_once(write(SOUND), override, sentence)


def test_missing_keys(write: Write) -> None:
    assert refused(write("task: nl-rx\n")) == [
        "name: is missing, but every sweep needs it",
        "methods: is missing, but every sweep needs it",
    ]


def test_lines_are_wrapped_at_words_only_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    text = (
        "a short line\n  space    incomprehensible-words "
        + "are never broken " * 4
        + "/a/very/long/path/that/does/not/fit/into/forty/columns"
    )
    assert folded(text, io.StringIO()) == text
    lines = folded(text, Terminal()).split("\n")
    assert (
        lines[0] == "a short line"
        and lines[1].startswith("  space    incomprehensible-words")
        and lines[2].startswith("      never broken")
    )
    assert all(len(line) <= 40 or line.strip().startswith("/a/very") for line in lines)
    assert " ".join(lines).split() == text.split()
