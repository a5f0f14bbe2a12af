"""Templates that never end or fill the memory are refused within seconds; what a template raises is named; usual ones are left alone."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from jepa_ray.conformance.forms import FORMS
from jepa_ray.data import chat_template
from jepa_ray.data.chat_template import CAUSE, CONVERSATIONS, cause, environment, fault_of, render
from jepa_ray.models.families import FAMILIES

TURNS = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}{% endfor %}"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def tokenizer(template: str) -> Any:
    def apply_chat_template(messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: Any) -> str:
        assert not tokenize
        return render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=add_generation_prompt, **(SPECIAL | variables)
        )[0][0]

    return SimpleNamespace(special_tokens_map=SPECIAL, get_chat_template=lambda: template, apply_chat_template=apply_chat_template)


ENDLESS = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "one instruction": "{{ (10 ** (10 ** 10)) % 2 }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "only with a prompt for an answer": TURNS + "{% if add_generation_prompt %}{{ (10 ** (10 ** 10)) % 2 }}{% endif %}",
    "only with what the family fixes": "{% if slow %}{{ (10 ** (10 ** 10)) % 2 }}{% endif %}" + TURNS,
}
GIANT = {
    "a repeated string": "{{ 'a' * 10 ** 10 }}",
    "a padded string": "{{ messages[0].content | center(10 ** 10) }}",
    "doubled with every turn": "{% set n = namespace(x='a') %}{% for m in messages %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_template_that_does_not_end_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "SECONDS", 1)
    assert fault_of(tokenizer(ENDLESS[case]), {"slow": True}) == "does not end: a few short conversations take more than 1 s to render"


@pytest.mark.parametrize("case", GIANT)
def test_a_template_that_fills_the_memory_is_refused(case: str) -> None:
    assert fault_of(tokenizer(GIANT[case]), {}) == "needs more than 512 MiB of memory for a short conversation"


def test_a_template_that_adds_much_text_is_refused() -> None:
    assert fault_of(tokenizer("{{ 'a' * 120000 }}"), {}) == (
        "adds 119,972 characters to a short conversation; at most 100,000 are allowed"  # an answer alone has 28
    )
    assert fault_of(tokenizer("{{ 'a' * 90000 }}" + TURNS), {}) is None


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{% unknown %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
)
def test_a_template_that_fails_ends_and_its_failure_is_reported_where_it_is_rendered(template: str) -> None:
    assert fault_of(tokenizer(template), {}) is None
    with pytest.raises(ValueError, match=r"^(ZeroDivisionError: |TemplateError: no$|TemplateSyntaxError: |RecursionError: )") as caught:
        render(tokenizer(template), CONVERSATIONS[0], {})
    assert "\n" not in str(caught.value)


def test_a_cause_is_one_short_line() -> None:
    assert cause(TypeError("first line\nsecond")) == "TypeError: first line"
    assert cause(KeyError()) == "KeyError"
    assert len(cause(ValueError("x" * 999))) == CAUSE and cause(ValueError("x" * 999)).endswith("x...")


def test_a_template_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = subprocess.run

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return run(*args, **kwargs)

    monkeypatch.setattr(subprocess, "run", counted)
    for variables, expected in (({}, 1), ({}, 1), ({"day": "Monday"}, 2)):
        assert fault_of(tokenizer("{# measured once #}" + TURNS), variables) is None
        assert len(calls) == expected


def test_a_machine_that_cannot_measure_blames_no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any, timeout: float, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", busy)
    assert fault_of(tokenizer("{# not measured #}" + ENDLESS["one instruction"]), {}) is None


def test_a_tokenizer_without_a_template_is_left_to_rendering() -> None:
    def none() -> str:
        raise ValueError("no chat template")

    assert fault_of(SimpleNamespace(get_chat_template=none), {}) is None


TEMPLATES = {name: str(record.template) for name, record in FAMILIES.items()} | {
    name: str(form.template) for name, form in FORMS.items() if form.template
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_measured_in_the_environment_that_renders_them(name: str) -> None:
    """Ours has no Transformers in it; both render the same, with every tag and function that published templates use."""
    variables = {**SPECIAL, "date_string": "1 May 2025"}
    compiled, rendered = environment().from_string(TEMPLATES[name]), 0
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            try:
                wanted = render(tokenizer(TEMPLATES[name]), messages, variables, prompt=prompt)
            except ValueError:
                continue
            assert compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **variables) == wanted
            rendered += 1
    assert rendered >= 4
