"""From an example to token ids: the training sequence and the two views, with their readouts found by characters.

For each example three token sequences are made, each through the family's chat template:

    lm      system + user + assistant, up to and including the end-of-turn token; labels start at `prompt_length`
    text    the user message alone, cut after its last content token     (predictor tokens follow when batches are made)
    code    the assistant message alone, cut after its last content token

The model is causal, so nothing after a readout can influence it: cutting there is exact and saves tokens. Content is located
by rendering a sentinel and reading off the template's fixed prefix and suffix, never by counting tokens from the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jepa_ray.data.example import Example

Ids = NDArray[np.int32]
_SENTINEL = "\u241fcontent\u241f"


class ChatStyle(Protocol):
    """The part of a family's record that rendering needs (`models.families.ModelFamily` has it)."""

    @property
    def name(self) -> str: ...
    @property
    def template_kwargs(self) -> Mapping[str, Any]: ...
    @property
    def system_role(self) -> bool: ...
    @property
    def bos(self) -> str: ...
    @property
    def turn_end(self) -> str: ...


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in one flat array: sequence i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: Ids
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Ragged:
        lengths = [len(sequence) for sequence in sequences]
        flat = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int32, count=sum(lengths))
        return cls(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenTable:
    """A tokenised split: flat arrays that workers share without copying. Row i of every field is the same example."""

    example_ids: tuple[str, ...]
    references: tuple[str, ...]
    """The answer as text, what a generation is judged against."""
    lm: Ragged
    prompt_length: NDArray[np.int64]
    """Tokens of `lm` before the first label: exactly the tokens that generation starts from."""
    text: Ragged
    code: Ragged
    dropped: int = 0
    """Examples left out because a sequence was longer than `max_length`."""

    def __len__(self) -> int:
        return len(self.example_ids)

    def prompt(self, index: int) -> Ids:
        return self.lm[index][: self.prompt_length[index]]


class Renderer:
    """Renders messages through a tokenizer's chat template in the family's manner, the same text on any day."""

    def __init__(self, tokenizer: Any, style: ChatStyle) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"the tokenizer of family {style.name} gives no character offsets (a slow tokenizer); install its fast version"
            )
        self.tokenizer, self.style = tokenizer, style
        self._affixes: dict[str, tuple[str, str]] = {}

    def conversation(self, system: str, text: str, code: str | None) -> str:
        """The whole conversation; without `code`, the prompt that generation starts from."""
        messages = []
        if system and self.style.system_role:
            messages.append({"role": "system", "content": system})
        elif system:
            text = f"{system}\n\n{text}"
        messages.append({"role": "user", "content": text})
        if code is not None:
            messages.append({"role": "assistant", "content": code})
        return self._render(messages, add_generation_prompt=code is None)

    def view(self, role: str, content: str) -> tuple[str, int]:
        """One message alone, cut after its content; also the index of the content's first character."""
        prefix, suffix = self._affixes_of(role)
        rendered = self._alone(role, content)
        if not (rendered.startswith(prefix) and rendered.endswith(suffix)):
            raise ValueError(f"the chat template of family {self.style.name} changes with its content; views need a fixed frame around it")
        return rendered[: len(rendered) - len(suffix)], len(prefix)

    def _affixes_of(self, role: str) -> tuple[str, str]:
        if role not in self._affixes:
            prefix, found, suffix = self._alone(role, _SENTINEL).partition(_SENTINEL)
            if not found:
                raise ValueError(f"the chat template of family {self.style.name} does not show the content of a lone {role} message")
            self._affixes[role] = prefix, suffix
        return self._affixes[role]

    def _alone(self, role: str, content: str) -> str:
        try:
            return self._render([{"role": role, "content": content}], add_generation_prompt=False)
        except ValueError:
            if role == "user":
                raise
        # Some templates insist on a user turn first: take what the answer adds to one, behind the same BOS.
        question = [{"role": "user", "content": "-"}]
        head = self._render(question, add_generation_prompt=False)
        whole = self._render([*question, {"role": role, "content": content}], add_generation_prompt=False)
        return self.style.bos + whole[len(head) :]

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self.style.template_kwargs
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(f"the chat template of family {self.style.name} refuses the turns ({roles}): {error}") from error
        return text


def tokenize_split(examples: Iterable[Example], tokenizer: Any, style: ChatStyle, max_length: int) -> TokenTable:
    """Tokenise a split once, for all trials of a family. Examples with a sequence over `max_length` tokens are dropped and counted.

    Raises:
        ValueError: slow tokenizer, a template that cannot render the turns, or every example too long.
    """
    examples = tuple(examples)
    renderer = Renderer(tokenizer, style)
    texts = [renderer.view("user", example.text) for example in examples]
    codes = [renderer.view("assistant", example.code) for example in examples]
    text_ids, code_ids = (_view_ids(tokenizer, views) for views in (texts, codes))
    lm_ids, prompt_lengths = _conversation_ids(renderer, examples)

    kept = [i for i in range(len(examples)) if max(len(lm_ids[i]), len(text_ids[i]), len(code_ids[i])) <= max_length]
    if examples and not kept:
        raise ValueError(f"all {len(examples)} examples are longer than data.max_length = {max_length} tokens; raise it")
    return TokenTable(
        example_ids=tuple(examples[i].id for i in kept),
        references=tuple(examples[i].code for i in kept),
        lm=Ragged.of([lm_ids[i] for i in kept]),
        prompt_length=np.array([prompt_lengths[i] for i in kept], dtype=np.int64),
        text=Ragged.of([text_ids[i] for i in kept]),
        code=Ragged.of([code_ids[i] for i in kept]),
        dropped=len(examples) - len(kept),
    )


def _view_ids(tokenizer: Any, views: list[tuple[str, int]]) -> list[list[int]]:
    """Token ids of each view; its last token is the one that holds the content's last character."""
    if not views:
        return []
    encoded = tokenizer([text for text, _ in views], add_special_tokens=False, return_offsets_mapping=True)
    out = []
    for (text, content_start), ids, offsets in zip(views, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        last = len(ids)
        while last and offsets[last - 1][0] == offsets[last - 1][1]:  # zero-width additions at the end
            last -= 1
        if not (last and offsets[last - 1][1] == len(text) > content_start):
            raise ValueError(
                f"the tokenizer's offsets do not find the end of {text[content_start:]!r} in its view, so there is no sound readout; "
                f"use a tokenizer whose offset mapping covers the text"
            )
        out.append(ids[:last])
    return out


def _conversation_ids(renderer: Renderer, examples: Sequence[Example]) -> tuple[list[list[int]], list[int]]:
    """Ids up to the end of turn, and the number of prompt tokens, such that `ids[:prompt]` is what generation will be given."""
    if not examples:
        return [], []
    tokenizer, turn_end = renderer.tokenizer, renderer.style.turn_end
    prompts = [renderer.conversation(example.system, example.text, None) for example in examples]
    answers = []
    for example, prompt in zip(examples, prompts, strict=True):
        whole = renderer.conversation(example.system, example.text, example.code)
        stop = whole.rfind(turn_end)
        if not whole.startswith(prompt) or stop < len(prompt):
            raise ValueError(
                f"the chat template of family {renderer.style.name} does not continue its own generation prompt "
                f"with the answer and {turn_end!r}"
            )
        answers.append(whole[len(prompt) : stop + len(turn_end)])
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    joint_ids = tokenizer([p + a for p, a in zip(prompts, answers, strict=True)], add_special_tokens=False)["input_ids"]
    out = []
    for prompt, joint, answer in zip(prompt_ids, joint_ids, answers, strict=True):
        if joint[: len(prompt)] != prompt:  # a merge across the boundary: keep what the model will see when it generates
            joint = prompt + tokenizer(answer, add_special_tokens=False)["input_ids"]
        out.append(joint)
    return out, [len(prompt) for prompt in prompt_ids]
