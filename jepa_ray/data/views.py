"""From an example to token ids: the training sequence and the two views, with readouts located by characters.

Each example becomes three token sequences, each rendered by the family's chat template:

    lm      system (+ earlier turns) + user + assistant, up to and including the end of turn; labels start at `prompt_length`
    text    the user message alone, cut after its last content token     (predictor tokens follow when batches are made)
    code    the assistant message alone, cut after its last content token

The model is causal, so nothing after a readout can influence it: cutting there is exact and saves tokens. Content is located
by rendering a sentinel and taking the text that the template puts before and after it, never by counting tokens from the end. The
prompt is everything before the answer in the whole conversation, not the template's own generation prompt: some templates end
that with text that their answers do not begin with (a `<think>`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jepa_ray.data.chat_template import fault_of, render
from jepa_ray.data.content import Content
from jepa_ray.data.example import Example
from jepa_ray.data.ragged import Ids, Ragged

Turns = Sequence[tuple[str, str]]
"""(role, content) of each message."""
_SENTINEL = "\u241fcontent\u241f"
_OTHER_TEMPLATE = "use another chat_template.jinja in the checkpoint's folder, or remove it to get the family's own"


class ChatStyle(Protocol):
    """The part of a family's record that rendering needs (implemented by `models.families.ModelFamily`)."""

    @property
    def name(self) -> str: ...
    @property
    def template_kwargs(self) -> Mapping[str, Any]: ...
    @property
    def system_role(self) -> bool: ...
    @property
    def bos(self) -> str | None: ...
    @property
    def turn_end(self) -> str: ...
    @property
    def answer_lead(self) -> str: ...


@dataclass(frozen=True)
class TokenTable:
    """A tokenised split: flat arrays that workers share without copying. Row i of every field belongs to the same example."""

    example_ids: tuple[str, ...]
    questions: tuple[str, ...]
    """The user's message as text."""
    references: tuple[str, ...]
    """The answer as text, against which an output is judged."""
    leaked: tuple[bool, ...]
    """Whether the model may have been trained on the question."""
    lm: Ragged
    prompt_length: NDArray[np.int64]
    """Tokens of `lm` before the first label: exactly the tokens that generation starts from."""
    text: Ragged
    code: Ragged
    text_start: NDArray[np.int64]
    """Tokens of `text` before the content: position of the first content token."""
    code_start: NDArray[np.int64]
    question: NDArray[np.int64]
    """(N, 2) first position of the question's tokens in `lm`, and one past the last."""
    extras: tuple[Mapping[str, Any], ...]
    """Further data for the judge (`Example.extra`)."""
    options: tuple[tuple[Ids, ...], ...] = ()
    """Choice tasks: token ids of each option as it would follow the prompt, without end of turn. Empty for other tasks."""
    dropped: int = 0
    """Number of examples left out because a sequence was longer than `max_length`."""
    special: int = 0
    """Number of examples whose messages contain the text of a special token, which is read as text (`content.py`)."""
    turn_end: str = ""
    """Text of the token that ends every answer, and stops generation."""

    def __len__(self) -> int:
        return len(self.example_ids)

    def prompt(self, index: int) -> Ids:
        return self.lm[index][: self.prompt_length[index]]


class Renderer:
    """Renders messages with a tokenizer's chat template as the family requires; the text does not depend on the date."""

    def __init__(self, tokenizer: Any, style: ChatStyle) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"the tokenizer of family {style.name} gives no character offsets (a slow tokenizer); install its fast version: "
                f"readouts are located by characters, so the checkpoint needs a tokenizer.json"
            )
        if fault := fault_of(tokenizer, style.template_kwargs):
            raise ValueError(f"the chat template of family {style.name} {fault}; {_OTHER_TEMPLATE}")
        self.tokenizer, self.style = tokenizer, style
        self._affixes: dict[str, tuple[str, str]] = {}

    def conversation(self, system: str, text: str, code: str, history: Turns = ()) -> str:
        """The whole conversation, up to and including the end of turn. `history`: the turns before `text`, each (role, content)."""
        return "".join(self.prompt_and_answer(system, text, code, history))

    def prompt_and_answer(self, system: str, text: str, code: str, history: Turns = ()) -> tuple[str, str]:
        """(prompt, answer): everything before the answer, from which generation starts; the answer as rendered, with its end of turn."""
        prompt, after = self._around_answer(system, text, history)
        whole = self._turns(system, text, code, history)
        shown = whole[len(prompt) : len(whole) - len(after)]
        if not (whole.startswith(prompt) and whole.endswith(after) and shown.strip() == code.strip()):
            raise ValueError(
                f"the chat template of family {self.style.name} does not show the answer {code[:80]!r} unchanged; {_OTHER_TEMPLATE}"
            )
        if system.strip() not in prompt:
            raise ValueError(f"the chat template of family {self.style.name} does not show the system message; {_OTHER_TEMPLATE}")
        lead = self.style.answer_lead if prompt.endswith(self.style.answer_lead) else ""
        answer = lead + shown + after[: after.index(self.style.turn_end) + len(self.style.turn_end)]
        return prompt[: len(prompt) - len(lead)], answer

    def view(self, role: str, content: str) -> tuple[str, int]:
        """(one message alone, cut after the last character of its content that is not white space; start of the content)."""
        prefix, suffix = self._affixes_of(role)
        rendered = self._alone(role, content)
        if len(rendered) < len(prefix) + len(suffix) or not (rendered.startswith(prefix) and rendered.endswith(suffix)):
            raise ValueError(f"the chat template of family {self.style.name} depends on the content; views need a fixed frame around it")
        shown = rendered[len(prefix) : len(rendered) - len(suffix)].rstrip()
        if not shown:
            raise ValueError(f"a {role} message shows nothing to encode ({content[:80]!r}); remove examples with an empty side")
        return prefix + shown, len(prefix)

    def after_question(self, system: str) -> str:
        """The text of a prompt after the question, which depends neither on the question nor on what comes before it."""
        return self.prompt_and_answer(system, _SENTINEL, "-")[0].rpartition(_SENTINEL)[2]

    def _around_answer(self, system: str, text: str, history: Turns) -> tuple[str, str]:
        """The text before and after the answer, which does not depend on the answer."""
        before, sentinel, after = self._turns(system, text, _SENTINEL, history).rpartition(_SENTINEL)
        if not sentinel:
            raise ValueError(f"the chat template of family {self.style.name} does not show the content of the answer; {_OTHER_TEMPLATE}")
        if self.style.turn_end not in after:
            raise ValueError(
                f"the chat template of family {self.style.name} does not end the answer with {self.style.turn_end!r}, "
                f"which stops generation; {_OTHER_TEMPLATE}"
            )
        return before, after

    def _turns(self, system: str, text: str, code: str, history: Turns) -> str:
        turns = [*history, ("user", text), ("assistant", code)]
        if system and self.style.system_role:
            turns = [("system", system), *turns]
        elif system:
            first = next(number for number, (role, _) in enumerate(turns) if role == "user")
            turns[first] = "user", f"{system}\n\n{turns[first][1]}"
        return self._render([{"role": role, "content": content} for role, content in turns])

    def _affixes_of(self, role: str) -> tuple[str, str]:
        if role not in self._affixes:
            prefix, sentinel, suffix = self._alone(role, _SENTINEL).partition(_SENTINEL)
            if not sentinel:
                raise ValueError(
                    f"the chat template of family {self.style.name} does not show the content of a lone {role} message; {_OTHER_TEMPLATE}"
                )
            self._affixes[role] = prefix, suffix
        return self._affixes[role]

    def _alone(self, role: str, content: str) -> str:
        try:
            return self._render([{"role": role, "content": content}])
        except ValueError:
            if role == "user":
                raise
        # Some templates require a user turn first: take the text that the answer adds to one, after the same BOS.
        question = [{"role": "user", "content": "-"}]
        head = self._render(question)
        whole = self._render([*question, {"role": role, "content": content}])
        if not whole.startswith(head):
            raise ValueError(
                f"the chat template of family {self.style.name} renders a question differently once it is answered, "
                f"so the answer cannot be cut out; {_OTHER_TEMPLATE}"
            )
        return (self.style.bos or "") + whole[len(head) :]

    def _render(self, messages: list[dict[str, str]]) -> str:
        """The rendered messages, with the family's BOS exactly once in front: some templates leave it to the tokenizer."""
        try:
            text = render(self.tokenizer, messages, self.style.template_kwargs)
        except ValueError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(
                f"the chat template of family {self.style.name} refuses the turns ({roles}): {error}; {_OTHER_TEMPLATE}"
            ) from error
        bos = self.style.bos
        return text if bos is None or text.startswith(bos) else bos + text


def tokenize_split(
    examples: Iterable[Example],
    tokenizer: Any,
    style: ChatStyle,
    max_length: int,
    *,
    scored: bool = False,
    trained: Container[Example] = (),
) -> TokenTable:
    """Tokenise a split once, for all trials of a family. Examples with a sequence over `max_length` tokens are dropped and counted.

    `scored`: outputs are judged on this split. Then only an overlong prompt drops an example, so that families drop nearly the same ones,
    and the options of choice tasks are tokenised.
    `trained`: the splits before this one (`sameness.Seen`), to mark its leaked examples.

    Raises:
        ValueError: a slow tokenizer, a template that cannot render the turns, or every example too long.
    """
    examples = tuple(examples)
    renderer = Renderer(tokenizer, style)
    content = Content(tokenizer)
    views = [example.views or (example.text, example.code) for example in examples]
    texts = [renderer.view("user", content.veiled(text)) for text, _ in views]
    codes = [renderer.view("assistant", content.veiled(code)) for _, code in views]
    (text_ids, text_starts), (code_ids, code_starts) = (_view_ids(content, views) for views in (texts, codes))
    lm_ids, prompt_lengths, questions = _conversation_ids(renderer, content, examples)

    used = [prompt_lengths[i] if scored else max(len(lm_ids[i]), len(text_ids[i]), len(code_ids[i])) for i in range(len(examples))]
    kept = [i for i in range(len(examples)) if used[i] <= max_length]
    if examples and not kept:
        raise ValueError(f"all {len(examples)} examples are longer than data.max_length = {max_length} tokens; raise it")
    return TokenTable(
        example_ids=tuple(examples[i].id for i in kept),
        questions=tuple(examples[i].text for i in kept),
        references=tuple(examples[i].code for i in kept),
        leaked=tuple(examples[i] in trained for i in kept),
        lm=Ragged.of([lm_ids[i] for i in kept]),
        prompt_length=np.array([prompt_lengths[i] for i in kept], dtype=np.int64),
        text=Ragged.of([text_ids[i] for i in kept]),
        code=Ragged.of([code_ids[i] for i in kept]),
        text_start=np.array([text_starts[i] for i in kept], dtype=np.int64),
        code_start=np.array([code_starts[i] for i in kept], dtype=np.int64),
        question=np.array([questions[i] for i in kept], dtype=np.int64).reshape(-1, 2),
        extras=tuple(examples[i].extra for i in kept),
        options=_options([examples[i] for i in kept], renderer, content) if scored else (),
        dropped=len(examples) - len(kept),
        special=sum(content.veiled(text) != text for text in map(_messages, examples)),
        turn_end=style.turn_end,
    )


def _options(examples: Sequence[Example], renderer: Renderer, content: Content) -> tuple[tuple[Ids, ...], ...]:
    """For examples with `extra["options"]`: each option, tokenised as an answer."""
    if not any("options" in example.extra for example in examples):
        return ()
    asked = [replace(example, code=option) for example in examples for option in example.extra["options"]]
    ids, lengths, _ = _conversation_ids(renderer, content, asked)
    end = len(renderer.tokenizer(renderer.style.turn_end, add_special_tokens=False)["input_ids"])
    answers = iter(np.array(whole[length : len(whole) - end], dtype=np.int32) for whole, length in zip(ids, lengths, strict=True))
    return tuple(tuple(next(answers) for _ in example.extra["options"]) for example in examples)


def _messages(example: Example) -> str:
    """The contents of an example's messages, separated by a line feed, which no special token contains."""
    return "\n".join((example.system, *(text for _, text in example.history), example.text, example.code))


def _view_ids(content: Content, views: list[tuple[str, int]]) -> tuple[list[list[int]], list[int]]:
    """(token ids of each view, position of its first content token). The last token contains the content's last character."""
    out, starts = [], []
    for (text, content_start), ids, offsets in zip(views, *content.encode([text for text, _ in views]), strict=True):
        last = len(ids)
        while last and offsets[last - 1][0] == offsets[last - 1][1]:  # zero-width additions at the end
            last -= 1
        if not (last and offsets[last - 1][1] == len(text) > content_start):
            raise ValueError(
                f"the tokenizer's offsets do not locate the end of {text[content_start:]!r} in its view, so its readout is unknown; "
                f"use a tokenizer whose offset mapping covers the text"
            )
        out.append(ids[:last])
        starts.append(next(position for position, (_, end) in enumerate(offsets) if end > content_start))
    return out, starts


def _conversation_ids(
    renderer: Renderer, content: Content, examples: Sequence[Example]
) -> tuple[list[list[int]], list[int], list[tuple[int, int]]]:
    """(ids up to the end of turn; number of prompt tokens, so that `ids[:prompt]` is exactly the input of generation; span of the
    question's tokens)."""
    pairs = [_rendered(renderer, content, example) for example in examples]
    prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
    prompt_ids, offsets = content.encode(prompts)
    texts = [content.veiled(example.text).strip() for example in examples]
    after = renderer.after_question(examples[0].system) if examples else ""
    questions = [_span(prompt.removesuffix(after), text, at) for prompt, text, at in zip(prompts, texts, offsets, strict=True)]
    joint_ids, _ = content.encode([p + a for p, a in zip(prompts, answers, strict=True)])
    out = []
    for prompt, joint, answer in zip(prompt_ids, joint_ids, answers, strict=True):
        if joint[: len(prompt)] != prompt:  # a merge across the boundary: keep the tokens that generation starts from
            joint = prompt + content.encode([answer])[0][0]
        out.append(joint)
    return out, [len(prompt) for prompt in prompt_ids], questions


def _rendered(renderer: Renderer, content: Content, example: Example) -> tuple[str, str]:
    """(prompt, answer) of an example, veiled. An error about a conversation of several turns names it: others may be fine."""
    history = [(role, content.veiled(text)) for role, text in example.history]
    system, text, code = map(content.veiled, (example.system, example.text, example.code))
    try:
        return renderer.prompt_and_answer(system, text, code, history)
    except ValueError as error:
        if not history:
            raise
        raise ValueError(f"{example.id}: {error}, or drop the row") from error


def _span(upto: str, text: str, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Tokens of a prompt that contain characters of the question, `text`; all tokens if it does not occur verbatim. `upto`: the prompt
    without the text after the question, which may contain a short question as well (an `a`, in `assistant`)."""
    first = upto.rfind(text)
    inside = [position for position, (start, end) in enumerate(offsets) if start < first + len(text) and end > first and start < end]
    return (inside[0], inside[-1] + 1) if first >= 0 and inside else (0, len(offsets))
