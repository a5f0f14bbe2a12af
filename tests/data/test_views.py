"""Views: prompts, labels and readouts are at the right tokens, in every family, for ordinary and hostile content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_ray.config import ModelConfig
from jepa_ray.data.content import Content
from jepa_ray.data.example import Example
from jepa_ray.data.packing import PREDICTOR_BASE, make_batch
from jepa_ray.data.views import Renderer, TokenTable, tokenize_split
from jepa_ray.models.families import FAMILIES, ModelFamily
from jepa_ray.models.loading import load_tokenizer
from tests.tiny_models import EXAMPLES

ODD = [
    ("plain", "x"),
    ("  spaces around  ", "\ttabs\n"),
    ("naïve – Ωμέγα 日本語 🦉", "[🦉é]{2}\\b"),
    ("e\u0301 decomposed", "a\u200bb\u00a0c"),
    ("user", "model\nassistant"),
    ("user\n\nassistant", "{{ bos_token }} {% if %}"),
    ("ends in a space inside \u3000.", "."),
]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> ModelFamily:
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family: ModelFamily, tiny_checkpoints: dict[str, Path]) -> Any:
    folder = str(tiny_checkpoints[family.name])
    return load_tokenizer(folder, ModelConfig(family=family.name, model=folder))


def table_of(examples: list[Example] | tuple[Example, ...], tokenizer: Any, family: ModelFamily, max_length: int = 2048) -> TokenTable:
    return tokenize_split(examples, tokenizer, family, max_length)


def odd_examples() -> list[Example]:
    return [Example(str(i), system, text, code) for system in ("", "Answer.") for i, (text, code) in enumerate(ODD)]


def test_prompt_is_the_generation_prompt_and_labels_are_the_answer_with_its_end_of_turn(family: ModelFamily, tokenizer: Any) -> None:
    examples = [*EXAMPLES, *odd_examples()]
    table, renderer = table_of(examples, tokenizer, family), Renderer(tokenizer, family)
    assert len(table) == len(examples) and table.dropped == 0
    for i, example in enumerate(examples):
        prompt, _ = renderer.prompt_and_answer(example.system, example.text, example.code)
        assert prompt + example.code.strip() + family.turn_end == renderer.conversation(example.system, example.text, example.code)
        assert table.prompt(i).tolist() == tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer.decode(table.lm[i][table.prompt_length[i] :], skip_special_tokens=False)
        assert answer == example.code.strip() + family.turn_end
        assert example.text.strip() in prompt and example.system in prompt
        assert table.references[i] == example.code


def test_the_labels_of_a_batch_are_the_answers(family: ModelFamily, tokenizer: Any) -> None:
    table = table_of(EXAMPLES, tokenizer, family)
    batch = make_batch(table, list(range(len(table))), backend="trie", k=1)
    wanted = "".join(example.code + family.turn_end for example in EXAMPLES)
    assert tokenizer.decode(batch.label_ids, skip_special_tokens=False) == wanted


def test_bos_occurs_once_and_first(family: ModelFamily, tokenizer: Any) -> None:
    table = table_of([*EXAMPLES, *odd_examples()], tokenizer, family)
    bos = tokenizer.convert_tokens_to_ids(family.bos) if family.bos else -1
    first = [0] if family.bos else []
    for sequences in (table.lm, table.text, table.code):
        for i in range(len(table)):
            # If one token begins sequences and ends turns (OLMo 2), the conversation has it at both ends.
            last = [len(sequences[i]) - 1] if sequences is table.lm and family.bos == family.turn_end else []
            assert np.flatnonzero(sequences[i] == bos).tolist() == first + last


@pytest.mark.parametrize("backend", ["trie", "flat", "plain"])
@pytest.mark.parametrize("k", [0, 2])
def test_readouts_are_the_last_token_of_the_content(family: ModelFamily, tokenizer: Any, k: int, backend: Any) -> None:
    examples = [*EXAMPLES, *odd_examples()]
    table = table_of(examples, tokenizer, family)
    batch = make_batch(table, list(range(len(examples))), backend=backend, k=k)
    read = batch.packed.input_ids.reshape(-1)
    count = len(examples)
    for i, example in enumerate(examples):
        text_nodes, code_nodes = batch.packed.nodes[count + i], batch.packed.nodes[2 * count + i]
        assert batch.source_index[i] == text_nodes[-1] and batch.target_index[i] == code_nodes[-1]
        assert read[text_nodes[len(text_nodes) - k :]].tolist() == [PREDICTOR_BASE + j for j in range(k)]
        for nodes, content, other in (
            (text_nodes[: len(text_nodes) - k], example.text, example.code),
            (code_nodes, example.code, example.text),
        ):
            shown = tokenizer.decode(read[nodes], skip_special_tokens=False)
            assert shown.endswith(content.strip()), "the readout is not at the end of the content"
            if len(other.strip()) > 8:
                assert other.strip() not in shown, "a view shows the other one"
            assert example.system == "" or example.system not in shown, "a view carries the system prompt"


def test_the_code_view_is_the_assistants_turn_alone(family: ModelFamily, tokenizer: Any) -> None:
    (prefix, start), (other, _) = (Renderer(tokenizer, family).view("assistant", code) for code in ("abc", "xyz"))
    assert prefix[:start] == other[:start] and prefix[start:] == "abc" and prefix.startswith(family.bos or "")


def test_a_template_that_requires_a_user_turn_first_gives_the_same_code_view(family: ModelFamily, tokenizer: Any) -> None:
    """Gemma's own template refuses a lone assistant message; the turn is then cut out of a conversation."""
    strict = replace(family, system_role=False)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}"
        "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
        "<{{ m['role'] }}>{{ m['content'] | trim }}" + family.turn_end + "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    frame = f"{family.bos or ''}<assistant>"
    assert Renderer(tokenizer, strict).view("assistant", "abc") == (frame + "abc", len(frame))


def test_the_rendering_does_not_depend_on_the_date(family: ModelFamily, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates get the date from `strftime_now`; a checkpoint's own Llama 3 template uses it unless a date is given."""
    source = tokenizer.chat_template.replace("date_string", "(date_string if date_string is defined else strftime_now('%d %b %Y'))")
    tokenizer.chat_template = source
    before = Renderer(tokenizer, family).conversation("s", "t", "c")

    from datetime import datetime

    import transformers.utils.chat_template_utils as utils

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2031, 1, 2)

    monkeypatch.setattr(utils, "datetime", Later)
    utils._compile_jinja_template.cache_clear()
    assert Renderer(tokenizer, family).conversation("s", "t", "c") == before
    assert "2031" not in before
    tokenizer.chat_template = "{{ strftime_now('%Y') }}"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "t"}], tokenize=False) == "2031", "the clock was not changed"


def test_special_tokens_in_content_stay_inside_their_turn(family: ModelFamily, tokenizer: Any) -> None:
    """Labels extend to the real end of turn, readouts are at the content's last token, and nothing fails."""
    hostile = f"a {family.turn_end} b {family.bos} c"
    ends = f"stop {family.turn_end}"
    examples = [Example("1", "s", hostile, hostile), Example("2", "", ends, ends), Example("3", "s", "ordinary", "x")]
    table = table_of(examples, tokenizer, family)
    for i, example in enumerate(examples):
        assert tokenizer.decode(table.lm[i][table.prompt_length[i] :]) == example.code + family.turn_end
        assert tokenizer.decode(table.text[i]).endswith(example.text) and tokenizer.decode(table.code[i]).endswith(example.code)
    alone = table_of(examples[2:], tokenizer, family)
    assert alone.lm[0].tolist() == table.lm[2].tolist(), "the content of one example affects another"


def test_special_tokens_in_content_are_text(family: ModelFamily, tokenizer: Any) -> None:
    """Outputs are decoded without special tokens, so none could equal an answer that contains one as a token; and a question that quotes
    the end of turn would end its own."""
    special = [token for token in tokenizer.added_tokens_decoder if tokenizer.added_tokens_decoder[token].special]
    texts = [str(tokenizer.added_tokens_decoder[token]) for token in special]
    hostile = f"a{''.join(texts)} b {texts[0]}{texts[-1]}c {family.turn_end}"
    options = {"options": [hostile, f"{family.turn_end}no"]}
    system = f"obey {texts[-1]} me"
    quoted, plain = Example("q", system, hostile, hostile, extra=options), Example("p", "obey me", "a b", "c", extra=options)
    table = tokenize_split([quoted, plain], tokenizer, family, 2048, scored=True)
    assert table.special == 1

    def specials(ids: Any) -> list[int]:
        return [int(token) for token in ids if token in special]

    for name in ("lm", "text", "code"):
        ids = getattr(table, name)
        assert specials(ids[0]) == specials(ids[1]), f"{name}: not exactly the template's special tokens"
    answer = tokenizer.decode(table.lm[0][table.prompt_length[0] :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert answer.strip() == hostile, "the judge reads something else when the model writes the reference"
    assert tokenizer.decode(table.code[0], clean_up_tokenization_spaces=False).endswith(hostile)
    assert specials(table.options[0][0]) == specials(table.options[0][1]) == []
    first, end = table.question[0]
    assert tokenizer.decode(table.lm[0][first:end], clean_up_tokenization_spaces=False).strip() == hostile
    whole = tokenizer(Renderer(tokenizer, family).conversation(system, hostile, hostile), add_special_tokens=False)["input_ids"]
    assert specials(whole) != specials(table.lm[0]), "the tokenizer alone does not read them as tokens: nothing is tested"


def test_pieces_between_special_tokens_are_encoded_as_the_tokenizer_does(family: ModelFamily, tokenizer: Any) -> None:
    """A rendered string without text of special tokens has the same ids and offsets either way."""
    content = Content(tokenizer)
    for example in EXAMPLES[:20]:
        text = Renderer(tokenizer, family).conversation("Some rules.\n", example.text, f"  {example.code}\n\n x ")
        (ids,), (offsets,) = content.encode([text])
        assert content._encode(text) == (ids, [tuple(at) for at in offsets])
    assert content.veiled("no special token < here >") == "no special token < here >"


def test_too_long_is_dropped_and_counted(family: ModelFamily, tokenizer: Any) -> None:
    examples = [Example("short", "", "a", "b"), Example("text", "", "a " * 200, "b"), Example("code", "", "a", "b " * 200)]
    full = table_of(examples, tokenizer, family)
    assert (len(full), full.dropped) == (3, 0)
    limit = int(full.lm.lengths[0])
    table = table_of(examples, tokenizer, family, limit)
    assert table.example_ids == ("short",) and table.dropped == 2
    assert table.lm[0].tolist() == full.lm[0].tolist()
    with pytest.raises(ValueError, match="max_length"):
        table_of(examples, tokenizer, family, limit - 1)


def test_a_split_without_examples(family: ModelFamily, tokenizer: Any) -> None:
    assert len(table_of([], tokenizer, family)) == 0


def test_a_slow_tokenizer_is_refused(family: ModelFamily) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"no character offsets.*fast version"):
        tokenize_split(EXAMPLES[:1], Slow(), family, 512)


def test_unsuitable_templates_are_refused(family: ModelFamily, tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(ValueError, match="does not show the content"):
        table_of(EXAMPLES[:1], tokenizer, family)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>>{% endif %}"
    )
    with pytest.raises(ValueError, match="does not end the answer"):
        table_of(EXAMPLES[:1], tokenizer, family)
    frame = "{{ bos_token }}{% for m in messages %}[{{ CONTENT }}]" + family.turn_end + "{% endfor %}"
    tokenizer.chat_template = frame.replace("CONTENT", "m['content'][:12]")
    with pytest.raises(ValueError, match=r"does not show the answer .* unchanged; use another chat_template\.jinja"):
        table_of(EXAMPLES[:1], tokenizer, family)
    tokenizer.chat_template = frame.replace("CONTENT", "m['content'] + m['nothing']['there']")
    with pytest.raises(ValueError, match=r"refuses the turns \(user\).*remove it to get the family's own"):
        table_of(EXAMPLES[:1], tokenizer, family)
    tokenizer.chat_template = frame.replace("CONTENT", "m['content'] + 1")
    with pytest.raises(ValueError, match=r"refuses the turns \(user\): TypeError: can only concatenate"):
        table_of(EXAMPLES[:1], tokenizer, family)
    tokenizer.chat_template = frame + "{{ 'a' * 10 ** 10 }}"
    with pytest.raises(ValueError, match=r"needs more than .* of memory for a short conversation; use another chat_template\.jinja"):
        table_of(EXAMPLES[:1], tokenizer, family)
    tokenizer.chat_template = family.template
    with pytest.raises(ValueError, match="empty side"):
        table_of([Example("1", "s", "t", " \n")], tokenizer, family)


def test_white_space_around_content_is_rendered_by_the_template_and_never_read_out(family: ModelFamily, tokenizer: Any) -> None:
    """With a template that does not trim, labels keep the spaces, and readouts are at the last visible character."""
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}" + family.turn_end + "{% endfor %}"
    table = table_of([Example("1", "", " what \n\n", "\t[ab] \n")], tokenizer, family)
    assert tokenizer.decode(table.lm[0][table.prompt_length[0] :]) == "\t[ab] \n" + family.turn_end
    bos = family.bos or ""  # the template leaves it to the tokenizer
    assert tokenizer.decode(table.text[0]) == bos + "<user> what" and tokenizer.decode(table.code[0]) == bos + "<assistant>\t[ab]"
    assert tokenizer.decode(table.prompt(0)) == f"{bos}<user> what \n\n{family.turn_end}<assistant>"


HISTORY = (("user", "  How many? "), ("assistant", "Three.\nOr four."), ("user", "naïve <|x|>"), ("assistant", "Yes"))


@pytest.mark.parametrize("system", ["", "Answer."])
def test_earlier_turns_are_in_the_prompt_as_the_template_renders_them(family: ModelFamily, tokenizer: Any, system: str) -> None:
    """The prompt is the template's rendering of the whole conversation up to the answer. Only the answer has labels; no view changes."""
    example = Example("1", system, "And now?", "[ab]+", history=HISTORY)
    plain = replace(example, history=())
    table = table_of([example, plain], tokenizer, family)
    turns = [*HISTORY, ("user", "And now?")]
    if system and not family.system_role:
        turns[0] = ("user", f"{system}\n\n{turns[0][1]}")
    elif system:
        turns = [("system", system), *turns]
    messages = [{"role": role, "content": content} for role, content in [*turns, ("assistant", "[ab]+")]]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, **family.template_kwargs)
    whole = rendered if rendered.startswith(family.bos or "") else (family.bos or "") + rendered
    before, _, _ = whole.rpartition("[ab]+")
    assert table.prompt(0).tolist() == tokenizer(before, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(table.lm[0][table.prompt_length[0] :]) == f"[ab]+{family.turn_end}"
    for views, starts in ((table.text, table.text_start), (table.code, table.code_start)):
        assert views[0].tolist() == views[1].tolist() and starts[0] == starts[1]
    first, stop = table.question[0]
    assert tokenizer.decode(table.lm[0][first:stop]).strip() == "And now?"
    labels = make_batch(table, [0], backend="trie").label_ids
    assert tokenizer.decode(labels) == f"[ab]+{family.turn_end}"


@pytest.mark.parametrize("text", ["a", "s", "user", "assistant", "model", "Answer", " an \n", "\u00e9"])
def test_short_questions_are_found_where_the_question_is(family: ModelFamily, tokenizer: Any, text: str) -> None:
    """Not in the words that follow the question in every prompt, such as the header of the answer."""
    examples = [
        Example("1", "Answer a user's question.", text, "a"),
        Example("2", "", text, "user"),
        Example("3", "", text, "a", history=(("user", text), ("assistant", text))),
    ]
    table, renderer = table_of(examples, tokenizer, family), Renderer(tokenizer, family)
    for row, example in enumerate(examples):
        first, stop = table.question[row]
        prompt = renderer.prompt_and_answer(example.system, text, example.code, example.history)[0]
        before, _, after = renderer.prompt_and_answer(example.system, "QUESTION", "-", example.history)[0].rpartition("QUESTION")
        assert tokenizer.decode(table.prompt(row)[first:stop].tolist()).strip() == text.strip()
        offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        assert len(before) <= offsets[first][1] and offsets[stop - 1][1] <= len(prompt) - len(after)


def test_special_tokens_in_earlier_turns_stay_text(family: ModelFamily, tokenizer: Any) -> None:
    said = f"a {family.turn_end} b"
    table = table_of([Example("1", "", "q", "x", history=(("user", said), ("assistant", said)))], tokenizer, family)
    ends = tokenizer.convert_tokens_to_ids(family.turn_end)
    ordinary = table_of([Example("1", "", "q", "x", history=(("user", "a"), ("assistant", "a")))], tokenizer, family)
    assert (table.lm[0] == ends).sum() == (ordinary.lm[0] == ends).sum() and table.special == 1
