"""Loading: one path for all checkpoints, new weights from their own streams, and one clear sentence if it fails."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.config import LoraConfig, ModelConfig, ObjectiveConfig
from jepa_ray.models import loading
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_config, load_network, load_tokenizer, new_predictor, seeded, uses_bf16
from tests import tiny_models as tiny


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


def load(checkpoint: Path, *, k: int = 0, seed: int = 1, lora: LoraConfig | None = None, **model: Any) -> dict[str, torch.Tensor]:
    config = ModelConfig(family=checkpoint.name, model=str(checkpoint), **model)
    return tiny.weights(load_network(str(checkpoint), config, lora, k=k, seed=seed))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_new_weights_depend_on_the_seed_and_on_nothing_else(checkpoint: Path, init: str) -> None:
    options: dict[str, Any] = {"k": 2, "lora": LoraConfig(r=2), "init": init}
    torch.manual_seed(1)
    first = load(checkpoint, **options)
    torch.manual_seed(2)
    torch.rand(100)
    assert equal(first, load(checkpoint, **options)), "the global generator has a say"
    other = load(checkpoint, **options, seed=2)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    new = {name for name in first if "lora_A" in name or name == "predictor"}
    assert new and (changed == new if init == "pretrained" else changed > new)


def test_one_stream_does_not_move_another(checkpoint: Path) -> None:
    """k changes neither adapters nor random weights, and k tokens begin with the k - 1 of a smaller k."""
    options: dict[str, Any] = {"lora": LoraConfig(r=2), "init": "random"}
    few, many = load(checkpoint, k=1, **options), load(checkpoint, k=3, **options)
    none = load(checkpoint, k=0, **options)
    predictor = few.pop("predictor")
    assert torch.equal(many.pop("predictor")[:1], predictor)
    assert equal(few, many) and equal(few, none)


def test_adapters_start_as_the_zero_map_at_twice_the_rank(checkpoint: Path) -> None:
    network = load_network(str(checkpoint), ModelConfig(family=checkpoint.name, model=str(checkpoint)), LoraConfig(r=4), k=0, seed=1)
    assert all(not p.any() for name, p in network.named_parameters() if "lora_B" in name)
    scalings = {module.scaling["default"] for module in network.modules() if hasattr(module, "lora_A")}
    assert scalings == {2.0}  # alpha / r = 2r / r
    explicit = load_network(
        str(checkpoint), ModelConfig(family=checkpoint.name, model=str(checkpoint)), LoraConfig(r=4, alpha=1), k=0, seed=1
    )
    assert {module.scaling["default"] for module in explicit.modules() if hasattr(module, "lora_A")} == {0.25}


def test_predictor_tokens_look_like_words(checkpoint: Path) -> None:
    network = tiny.network_of(tiny.trial(checkpoint))
    table = network.causal_lm.get_input_embeddings().weight.detach()
    drawn = new_predictor(network.causal_lm, 5000, seed=3)
    # 5,000 draws: the standard error of a mean is sd / 71, of a standard deviation sd / 100.
    assert float((drawn.mean(0) - table.mean(0)).abs().max()) < 0.1 * float(table.std())
    assert float((drawn.std(0) / table.std(0) - 1).abs().max()) < 0.1


def test_vocabulary_and_tying_are_those_of_the_checkpoint(checkpoint: Path) -> None:
    for lora in (None, LoraConfig(r=2)):
        network = tiny.network_of(tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=3)))
        lm = network.causal_lm
        assert (
            lm.get_input_embeddings().num_embeddings
            == lm.config.vocab_size
            == len(load_tokenizer(str(checkpoint), tiny.trial(checkpoint).model))
        )
        assert (lm.get_output_embeddings().weight is lm.get_input_embeddings().weight) == lm.config.tie_word_embeddings
        assert not lm.config.use_cache


def test_seeded_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyError), seeded(7):
        inside = torch.rand(3)
        raise KeyError
    assert torch.equal(torch.rand(3), wanted) and not torch.equal(inside, wanted)


def test_precision_follows_the_device() -> None:
    auto, forced = ModelConfig(family="llama3"), ModelConfig(family="llama3", precision="bf16")
    assert not uses_bf16(auto, torch.device("cpu")) and uses_bf16(auto, torch.device("cuda")) and uses_bf16(forced, torch.device("cpu"))


def test_errors_name_the_remedy(checkpoint: Path, tmp_path: Path) -> None:
    model = ModelConfig(family=checkpoint.name, model="x")
    with pytest.raises(ValueError, match=r"neither a local folder nor reachable on the hub.*pass the folder's path"):
        load_config("nobody/no-such-model", model)
    with pytest.raises(ValueError, match="not a loadable checkpoint"):
        load_config(str(tmp_path), model)
    special_tokens, refused = FAMILIES[checkpoint.name].special_tokens, 0
    for other, family in FAMILIES.items():
        if other != checkpoint.name:
            with pytest.raises(ValueError, match="but family"):
                load_config(str(checkpoint), ModelConfig(family=other, model="x"))
        if family.turn_end not in special_tokens or family.bos not in (None, *special_tokens):
            refused += 1
            with pytest.raises(ValueError, match=r"families=\[auto\]"):
                load_tokenizer(str(checkpoint), ModelConfig(family=other, model="x"))
    assert refused >= 4


@pytest.fixture
def broken(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a checkpoint, for the tests to damage."""
    folder = tmp_path / "llama3"
    shutil.copytree(tiny_checkpoints["llama3"], folder)
    return folder


def test_pickled_weights_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    torch.save({name: torch.zeros(1) for name in ("a", "b")}, broken / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"contains no \*\.safetensors, and pickled weights .* can run any code.*save_pretrained"):
        load(broken)


def test_damaged_weights_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="not a loadable checkpoint"):
        load(broken)


def test_weights_of_another_shape_are_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(ValueError, match="not a loadable checkpoint"):
        load(broken)
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lacks 9 of the model's weights .*the download complete"):  # 7 matrices, 2 norms
        load(broken)
    load(broken, init="random")  # needs no weights at all


@pytest.mark.parametrize("part", ["config", "tokenizer"])
def test_code_of_a_checkpoint_is_not_run_unasked(broken: Path, part: str) -> None:
    (broken / "its_own.py").write_text("raise SystemExit('code of the checkpoint was run')")
    model = ModelConfig(family="llama3", model=str(broken))
    if part == "config":
        config = {"model_type": "its-own", "auto_map": {"AutoConfig": "its_own.Config", "AutoModelForCausalLM": "its_own.Model"}}
        (broken / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"needs its own Python code; read that code.*trust_remote_code=true"):
            load_config(str(broken), model)
    else:
        (broken / "tokenizer.json").unlink()
        config = {"tokenizer_class": "ItsOwn", "auto_map": {"AutoTokenizer": ["its_own.Tokenizer", None]}}
        (broken / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"needs its own Python code; read that code.*trust_remote_code=true"):
            load_tokenizer(str(broken), model)


def test_a_folder_without_a_tokenizer(broken: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).unlink()
    with pytest.raises(ValueError, match=r"not a loadable checkpoint.*needs config\.json, a tokenizer\.json"):
        load_tokenizer(str(broken), ModelConfig(family="llama3", model=str(broken)))


@pytest.mark.parametrize("checkpoint_name", ["/no/such/folder", "./nor/this", "results/lora/model"])
def test_a_folder_that_is_not_there(checkpoint_name: str) -> None:
    for load_it in (load_config, load_tokenizer):
        with pytest.raises(ValueError, match=rf"the folder {re.escape(checkpoint_name)} does not exist; .*ORG/NAME"):
            load_it(checkpoint_name, ModelConfig(family="llama3", model=checkpoint_name))


class _Hub:
    """Stand-in for the hub's client: a `from_pretrained` that fails as the real one does, with its message."""

    def __init__(self, message: str) -> None:
        self.message = message

    def from_pretrained(self, *_: Any, **__: Any) -> Any:
        raise OSError(self.message)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/org/name.\n401 Client Error.",
            r"org/name is gated: accept its licence at https://huggingface.co/org/name and log in \(hf auth login\), or download",
        ),
        (
            "org/name does not appear to have a file named model.safetensors or model.safetensors.index.json and thus cannot be loaded "
            "with `safetensors`. Please do not set `use_safetensors=True`.",
            r"org/name contains no \*\.safetensors, and pickled weights .* are never read",
        ),
        (
            "We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.\nCheck ...",
            r"neither a local folder nor reachable on the hub \(We couldn't connect.*check the name and network.*pass the folder's path",
        ),
        (
            "org/name is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\nIf ...",
            r"neither a local folder nor reachable on the hub.*check the name",
        ),
        (
            "The checkpoint has model type `new` but Transformers does not recognize this architecture. ...\n\nYou can update ...",
            r"does not support the architecture of org/name .*use one of the family's models",
        ),
    ],
    ids=["gated", "pickle only", "no network", "no such repository", "unknown architecture"],
)
def test_what_the_hub_refuses_is_one_sentence_with_its_remedy(message: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "AutoConfig", _Hub(message))
    with pytest.raises(ValueError, match=sentence) as caught:
        load_config("org/name", ModelConfig(family="llama3", model="org/name"))
    assert "\n" not in str(caught.value) and isinstance(caught.value.__cause__, OSError)


def test_a_tokenizer_is_what_its_file_says(checkpoint: Path, tmp_path: Path) -> None:
    """AutoTokenizer would rebuild Qwen 2's with a normalizer, a splitting rule and a token that tokenizer.json does not have."""
    model = ModelConfig(family=checkpoint.name, model=str(checkpoint))
    loaded = load_tokenizer(str(checkpoint), model)
    assert json.loads(loaded.backend_tokenizer.to_str()) == json.loads((checkpoint / "tokenizer.json").read_text())


@pytest.mark.parametrize("family", ["llama3", "auto"])
@pytest.mark.parametrize("template", [True, False])
def test_a_slow_tokenizer_is_refused_before_anything_is_rendered(broken: Path, family: str, template: bool) -> None:
    """It is the cause, although it also has neither the family's end of turn nor, without a template, any end of text."""
    if not template:
        (broken / "chat_template.jinja").unlink()
    (broken / "tokenizer.json").unlink()
    (broken / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "a</w>": 2}))
    (broken / "merges.txt").write_text("#version: 0.2\n")
    (broken / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer", "unk_token": "a"}))
    with pytest.raises(ValueError, match=r"\(CTRLTokenizer\) gives no character offsets.*needs a tokenizer\.json$") as caught:
        load_tokenizer(str(broken), ModelConfig(family=family, model=str(broken)))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_needs_another_library_is_one_sentence(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sentencepiece:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> Any:
            raise ImportError("\nXTokenizer requires the SentencePiece library but it was not found:\nmore lines")

    (broken / "tokenizer.json").unlink()
    monkeypatch.setattr(loading, "AutoTokenizer", Sentencepiece)
    sentence = r"contains no tokenizer\.json, and its other files give no tokenizer: XTokenizer requires .* found\); it needs"
    with pytest.raises(ValueError, match=sentence) as caught:
        load_tokenizer(str(broken), ModelConfig(family="auto", model=str(broken)))
    assert "\n" not in str(caught.value)


def test_the_families_template_serves_a_checkpoint_without_one(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, folder)
    (folder / "chat_template.jinja").unlink()
    model = ModelConfig(family=checkpoint.name, model=str(folder))
    assert load_tokenizer(str(folder), model).chat_template == FAMILIES[checkpoint.name].template
    (folder / "chat_template.jinja").write_text("its own")
    assert load_tokenizer(str(folder), model).chat_template == "its own"


def test_adapters_are_saved_in_the_same_order_by_every_process(checkpoint: Path, tmp_path: Path) -> None:
    """PEFT keeps the names of layers in a set, whose order is that of a hash that differs from process to process."""
    model = ModelConfig(family=checkpoint.name, model=str(checkpoint))
    network = load_network(str(checkpoint), model, LoraConfig(r=2), k=0, seed=1)
    network.lm.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert isinstance(network.lm.peft_config["default"].target_modules, list), "a set has no order of its own"
    assert saved == sorted(FAMILIES[checkpoint.name].lora_targets) and len(saved) > 1
