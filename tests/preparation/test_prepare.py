"""Before the first trial: a checkpoint without weights is refused, and every trial loads the commit that was prepared."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jepa_ray.config import ModelConfig, SweepConfig, arms
from jepa_ray.conformance.forms import FORMS
from jepa_ray.data.report import of_family
from jepa_ray.masked.network import load_masked_lm
from jepa_ray.masked.prepare import estimate_masked, prepare_masked, write_tiny_encoder
from jepa_ray.models import loading
from jepa_ray.plan import trial_config
from jepa_ray.preparation.estimate import estimate
from jepa_ray.preparation.prepare import prepare
from jepa_ray.preparation.text_checks import examples
from jepa_ray.system.digests import former_weights_sha
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.trial import run_trial

COMMIT = "c0ffee" * 6 + "c0de"
OTHER = "0" * 40


@pytest.fixture
def checkpoint(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoints["llama3"], tmp_path / "checkpoint"))


def sweep_of(checkpoint: str | Path, **changes: Any) -> SweepConfig:
    tree: dict[str, Any] = {
        "name": "x",
        "families": ["llama3"],
        "model": str(checkpoint),
        "methods": {"base": "none"},
        "data": {"num_train": 12, "num_val": 4, "num_test": 4},
        "base": {"optim": {"num_epochs": 1, "batch_size": 4}, "evaluation": {"max_new_tokens": 4, "diagnostic_pairs": 0}},
    }
    return SweepConfig.model_validate(tree | changes)


def prepared_from(checkpoint: str | Path, **changes: Any) -> Prepared:
    return prepare(sweep_of(checkpoint, **changes), "llama3", "nl-rx")


def test_a_checkpoint_without_weights_is_refused_before_any_trial(checkpoint: Path) -> None:
    prepared_from(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ValueError, match=r"checkpoint contains no \*\.safetensors, and pickled weights .*save_pretrained them") as caught:
        prepared_from(checkpoint)
    assert "\n" not in str(caught.value)
    prepared_from(checkpoint, base={"model": {"init": "random"}})  # needs no weights


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (
            {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "three.safetensors"}},
            r"lacks 2 of .*three.*, two.*download",
        ),
        ({"weight_map": {}}, r"not a loadable checkpoint \(model.safetensors.index.json names no weight files\)"),
        (["one.safetensors"], r"not a loadable checkpoint \(model.safetensors.index.json is not an index of weight files\)"),
    ],
    ids=["shards", "empty", "list"],
)
def test_an_index_without_its_shards_is_refused(index: Any, sentence: str, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "one.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=sentence):
        prepared_from(checkpoint)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    prepared_from(checkpoint)


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pickled(file: Path) -> None:
    file.rename(file.with_name("pytorch_model.bin"))


@pytest.mark.parametrize("damage", [half, Path.unlink, pickled, lambda file: file.write_bytes(b"")])
def test_a_plan_refuses_weights_with_the_sentence_of_the_run(damage: Callable[[Path], object], checkpoint: Path) -> None:
    estimate(sweep_of(checkpoint))
    damage(checkpoint / "model.safetensors")
    sentences = []
    for attempt in (prepared_from, lambda folder: estimate(sweep_of(folder))):
        with pytest.raises(ValueError, match=r"truncated or damaged|contains no \*.safetensors") as caught:
            attempt(checkpoint)
        sentences.append(str(caught.value))
    assert sentences[1] == f"llama3 nl-rx cannot be run: {sentences[0]}"
    estimate(sweep_of(checkpoint, base={"model": {"init": "random"}}))  # needs no weights


def test_a_truncated_shard_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "one.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    half(checkpoint / "one.safetensors")
    with pytest.raises(ValueError, match=r"^one.safetensors in .* is truncated or damaged \(.*\); download or copy it again$"):
        prepared_from(checkpoint)


def test_a_masked_encoder_without_weights_is_refused(tmp_path: Path) -> None:
    from jepa_ray.models.encoders import get_encoder

    write_tiny_encoder(get_encoder("distilbert"), ["a good film", "a bad one"], tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").unlink()
    data = {"num_train": 20, "num_val": 8, "num_test": 8}
    changes = {"families": ["distilbert"], "task": "rotten-tomatoes", "data": data, "base": {"masked": {}}}
    with pytest.raises(ValueError, match=r"encoder contains no \*\.safetensors"):
        prepare_masked(sweep_of(tmp_path / "encoder", **changes), "distilbert", "rotten-tomatoes")
    with pytest.raises(ValueError, match=r"encoder contains no \*\.safetensors"):
        estimate_masked(sweep_of(tmp_path / "encoder", **changes))


class Hub:
    """A repository with two commits, which records every load with its revision."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.head, self.asked = str(folder), COMMIT, list[tuple[str, str | None]]()
        for name in ("AutoConfig", "AutoTokenizer", "PreTrainedTokenizerFast", "AutoModelForCausalLM"):
            real = getattr(loading, name)
            methods = {"from_pretrained": self._asking(name, real.from_pretrained)}
            if hasattr(real, "from_config"):
                methods["from_config"] = real.from_config
            monkeypatch.setattr(loading, name, type(name, (), {key: staticmethod(method) for key, method in methods.items()}))
        for name in ("cached_file", "has_file"):
            monkeypatch.setattr(loading, name, self._asking(name, getattr(loading, name)))

    def _asking(self, name: str, real: Any) -> Any:
        def load(checkpoint: str, *arguments: Any, revision: str | None = None, **options: Any) -> Any:
            assert checkpoint == "org/name"
            self.asked.append((name, revision))
            found = real(self.folder, *arguments, **options)
            if name == "AutoConfig":
                found._commit_hash = revision or self.head
            return found

        return load


def test_every_load_of_a_hub_checkpoint_is_of_the_commit_that_was_prepared(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tiny_checkpoints["llama3"], monkeypatch)
    sweep = sweep_of("org/name")
    prepared = prepare(sweep, "llama3", "nl-rx")
    assert prepared.revision == COMMIT and hub.asked[0] == ("AutoConfig", None)
    assert {"PreTrainedTokenizerFast", "has_file"} <= {name for name, _ in hub.asked[1:]}
    hub.head = OTHER  # somebody pushes
    result = run_trial(trial_config(sweep, arms(sweep)[0], {}), prepared, Runtime(), lambda _: None, tmp_path)
    assert result.state == "COMPLETE", result.error
    assert {"AutoConfig", "AutoModelForCausalLM", "PreTrainedTokenizerFast"} <= {name for name, _ in hub.asked}
    assert {revision for _, revision in hub.asked[1:]} == {COMMIT}, "not pinned"
    assert prepare(sweep, "llama3", "nl-rx").identity != prepared.identity


def test_a_network_that_breaks_off_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        """An error of the HTTP client: neither OSError nor ValueError."""

    def has_file(*_: Any, **__: Any) -> bool:
        raise Broken("peer closed the connection")

    monkeypatch.setattr(loading, "has_file", has_file)
    model = ModelConfig(family="llama3", model="org/name")
    with pytest.raises(ValueError, match=r"cannot load org/name: .*peer closed the connection.*check the name and network"):
        loading.check_weights("org/name", model, COMMIT)


def test_a_folder_has_no_commit(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Not even one inside the hub's cache of a commit: it is loaded as a folder."""
    snapshot = tmp_path / "snapshots" / COMMIT
    shutil.copytree(tiny_checkpoints["llama3"], snapshot)
    assert prepared_from(snapshot).revision is None


def test_identity_is_of_data_and_weights_as_earlier_versions_made_it(checkpoint: Path) -> None:
    """For small files. Code and vocabulary files, which those versions did not look at, change it."""
    prepared = prepared_from(checkpoint)
    sha = hashlib.sha256((prepared.dataset_sha + former_weights_sha(str(checkpoint), None)).encode()).hexdigest()
    assert prepared.identity == prepared.former_identity == sha and prepared.weights.written
    (checkpoint / "merges.txt").write_text("a b")
    changed = prepared_from(checkpoint)
    assert changed.identity != sha and changed.former_identity == sha


def test_a_masked_encoder_is_of_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa_ray.masked import network

    asked: list[str | None] = []

    def load(checkpoint: str, *, revision: str | None = None, **options: Any) -> Any:
        asked.append(revision)
        raise OSError("not reachable")

    monkeypatch.setattr(network, "AutoConfig", type("AutoConfig", (), {"from_pretrained": staticmethod(load)}))
    with pytest.raises(ValueError, match="cannot load org/name"):
        load_masked_lm("org/name", ModelConfig(family="distilbert", model="org/name"), 0, COMMIT)
    assert asked == [COMMIT]


def test_conversations_of_your_own_are_trained_and_judged_by_their_label(checkpoint: Path, tmp_path: Path) -> None:
    """From a file to a scored trial: earlier turns are in every prompt, chance is that of the labels, formats are in the report."""

    def conversation(number: int, label: str) -> str:
        asked = [f"a film {number}", "Which film?", f"film {number}: good or bad?", label]
        roles = itertools.cycle(("user", "assistant"))
        return json.dumps({"messages": [{"role": role, "content": content} for role, content in zip(roles, asked, strict=False)]})

    files = {"train": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl"}
    files["train"].write_text("\n".join(conversation(i, "good" if i % 4 else "bad") for i in range(16)), encoding="utf-8")
    files["test"].write_text("\n".join(conversation(i, "bad" if i % 4 else "good") for i in range(16, 24)), encoding="utf-8")
    data = {"task": "text", "judge": "label", "num_val": 4, **{name: str(path) for name, path in files.items()}}
    sweep = sweep_of(checkpoint, data=data, base={"evaluation": {"max_new_tokens": 4, "diagnostic_pairs": 0, "test": True}})
    prepared = prepare(sweep, "llama3", "text")
    assert prepared.test is not None and len(prepared.train) == 12 and prepared.report["golds_unscored"] == 0
    assert prepared.labels == ("bad", "good") and prepared.report["labels"] == ["bad", "good"], "from which answers can be judged again"
    assert set(prepared.report["formats"]) == {"train", "test"} and prepared.report["overlap_text"] == 0
    config = trial_config(sweep, arms(sweep)[0], {})
    assert (
        config.data.judge == "label"
        and trial_config(sweep_of(checkpoint, data=data, base={}), arms(sweep)[0], {}).evaluation.max_new_tokens == 16
    )
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"num_epochs": 1, "batch_size": 4})})
    result = run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "scratch")
    most = Counter(prepared.train.references).most_common(1)[0][0]
    assert result.summary["chance"] == max(0.5, prepared.test.references.count(most) / 8)
    rows = [row for row in result.predictions if row["split"] == "test"]
    assert len(rows) == 8 and all(row["question"].endswith("good or bad?") for row in rows)
    assert {row["reference"] for row in rows} == {"good", "bad"}


def test_references_too_short_to_be_contained_are_counted(checkpoint: Path, tmp_path: Path) -> None:
    """In the plan and in the data report; `no` is also in "I do not know"."""
    rows = [{"prompt": f"question {i}", "completion": ("no", "yes", "1917", " 42 ")[i % 4]} for i in range(24)]
    for name, part in (("train", rows), ("test", [{**row, "prompt": f"tested {row['prompt']}"} for row in rows])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    for judge, counted in (("contains", True), ("exact", False)):
        sweep = sweep_of(checkpoint, data={"task": "text", "judge": judge, "num_val": 4, **files})
        prepared = prepare(sweep, "llama3", "text")
        assert prepared.test is not None and "labels" not in prepared.report and prepared.labels == ()
        short = sum(len(reference.strip()) <= 3 for reference in [*prepared.val.references, *prepared.test.references])
        assert short >= 18 and prepared.report["golds_short"] == (short if counted else 0)
        told = [fact for fact in estimate(sweep)[1] if "have at most 3 characters" in fact]
        assert len(told) == counted and all(f"{short} of 28 references of validation and test" in fact for fact in told)


# --- family auto


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of other architectures, for family `auto`."""
    folder = tmp_path_factory.mktemp("forms")
    for name in ("Llama 2", "GPT-2", "OLMoE"):
        FORMS[name].write(folder / name, [text for pair in examples() for text in (pair.text, pair.code)])
    return {path.name: path for path in folder.iterdir()}


def auto_sweep(checkpoint: Path, **changes: Any) -> SweepConfig:
    sweep = sweep_of(checkpoint, **{"data": {"num_train": 12, "num_val": 4, "num_test": 4, "max_length": 256}} | changes)
    return sweep.model_copy(update={"families": ("auto",)})


def refused(sweep: SweepConfig, sentence: str) -> None:
    """Before a trial, and by the plan."""
    for prepare_or_plan in (lambda: prepare(sweep, "auto", "nl-rx"), lambda: estimate(sweep)):
        with pytest.raises(ValueError, match=sentence):
            prepare_or_plan()


@pytest.mark.parametrize(("name", "packing"), [("Llama 2", "trie"), ("GPT-2", "plain")])
def test_a_checkpoint_of_another_architecture_trains(name: str, packing: str, forms: dict[str, Path], tmp_path: Path) -> None:
    jepa = {"base": "none", "jepa": {"distance": "cosine", "lambda": 1, "k": 1}}
    sweep = auto_sweep(forms[name], methods=jepa)
    prepared = prepare(sweep, "auto", "nl-rx")
    assert (prepared.plain_because is None) == (packing == "trie") and prepared.report["conformance"].endswith(str(forms[name]))
    config = trial_config(sweep, arms(sweep)[1], {})
    result = run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "trial")
    assert result.state == "COMPLETE", result.error
    assert result.summary["packing_used"] == packing and float(str(result.summary["attention_error"])) < 1e-4
    assert config.model.packing == "auto"  # as configured, so is its identity
    estimates, facts = estimate(sweep)
    assert set(estimates) == {"base/auto", "jepa/auto"}
    (told,) = [fact for fact in facts if "found in the checkpoint" in fact]
    assert "python -m jepa_ray.conformance" in told and ("padded rows" in told) == (packing == "plain")
    assert any("memory of gpt2 models cannot be planned" in fact for fact in facts) == (name == "GPT-2")


def test_what_a_found_family_cannot_do_is_refused_before_any_trial(forms: dict[str, Path], tmp_path: Path) -> None:
    base = {"optim": {"num_epochs": 1, "batch_size": 4}, "evaluation": {"max_new_tokens": 4}}
    refused(auto_sweep(forms["OLMoE"], base={**base, "lora": {"r": 2}}), "adapters are not supported: .*base.lora=none")
    refused(auto_sweep(forms["GPT-2"], base={**base, "model": {"packing": "trie"}}), "base.model.packing=trie is not supported.*attn_pdrop")
    refused(auto_sweep(forms["GPT-2"], base={**base, "evaluation": {"max_new_tokens": 1000}}), "1000 .max_new_tokens.*1024 positions")
    broken = Path(shutil.copytree(forms["Llama 2"], tmp_path / "broken"))
    template = (broken / "chat_template.jinja").read_text()
    (broken / "chat_template.jinja").write_text(template.replace("~ eos_token", "~ '!' ~ eos_token"))
    refused(auto_sweep(broken), "fails the check `labels`: labels are")


# --- references that the tokenizer changes


@pytest.mark.parametrize(("judge", "lost"), [("exact", 5), ("contains", 5), ("number", 0)])
def test_references_that_do_not_survive_the_tokenizer_are_counted(judge: str, lost: int, checkpoint: Path, tmp_path: Path) -> None:
    """A tokenizer in lower case: answers with a capital cannot be reproduced, but their numbers can. In the run and in its plan."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    files = {"train": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl"}
    for name, path in files.items():
        answers = ["capital" if name == "train" or number >= 5 else "Capital" for number in range(12)]
        rows = [{"question": f"{name} dog {i}", "answer": f"{answer} {i}"} for i, answer in enumerate(answers)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"task": "text", "judge": judge, "num_val": 4, **{name: str(path) for name, path in files.items()}}
    sweep = sweep_of(checkpoint, data=data)
    report = prepare(sweep, "llama3", "text").report
    assert report["golds_lost"] == lost and report["golds_unscored"] == 0
    for sentences in (of_family(report), estimate(sweep)[1]):
        told = [sentence for sentence in sentences if "do not survive the tokenizer" in sentence]
        assert len(told) == (1 if lost else 0) and all(
            "5 references of validation and test do not survive" in sentence for sentence in told
        )
