"""Checks that a checkpoint must pass before results trained on it mean anything: one small function per check.

Each function takes a Subject and returns a Found, or raises ValueError with a sentence "what is wrong; what to do". `run_checks`
turns either into a row, so that one failure does not hide the next. Expected values are derived independently (from decoded text, from
the rule of the packed row, from passes over one sequence at a time), not read from the code under test. This module contains the
checks of the text, `conformance/network_checks.py` those that run the network; the command is `python -m jepa_ray.conformance`.

A sweep of family `auto` runs the checks of the text on a few built-in pairs before anything is trained (`require_text`).
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_ray.config import LoraConfig, ModelConfig
from jepa_ray.data.example import Example
from jepa_ray.data.packing import PREDICTOR_BASE, Backend, ViewBatch, make_batch
from jepa_ray.data.tasks import nlrx
from jepa_ray.data.views import Renderer, TokenTable, tokenize_split
from jepa_ray.models.families import AUTO, PLAIN_TEMPLATE, ModelFamily
from jepa_ray.models.loading import check_rows, load_config, load_network, load_tokenizer
from jepa_ray.models.network import Network

NUM_EXAMPLES = 200
FEW = 24
"""Pairs of the checks that a sweep runs."""
CPU = torch.device("cpu")
PREDICTORS = 2
"""k of all checks with predictor tokens."""
DAYS = ("1 January 2001", "29 February 2032")
_THINKING = re.compile(r"<think>(.*?)(</think>|\Z)", re.DOTALL)


def examples() -> list[Example]:
    """The built-in pairs that all checks use, with a system prompt."""
    return [Example(example.id, nlrx.SYSTEM, example.text, example.code) for example in nlrx.generate(NUM_EXAMPLES, 0, "train")]


@dataclass(frozen=True)
class Subject:
    """A checkpoint under check."""

    checkpoint: str
    """Folder in Hugging Face's format, or hub id."""
    family: ModelFamily
    device: torch.device = CPU
    examples: Sequence[Example] = field(default_factory=examples)
    revision: str | None = None
    """For a hub id: the commit to read."""

    def model(self, **changes: Any) -> ModelConfig:
        """Model config in fp32, so that real errors stand out from rounding."""
        return ModelConfig(**{"family": self.family.name, "model": self.checkpoint, "precision": "fp32"} | changes)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.checkpoint, self.model(), self.revision)

    @property
    def backend(self) -> Backend:
        """The packing that `packing: auto` means for this model."""
        return "trie" if self.family.plain_because is None else "plain"

    @cached_property
    def table(self) -> TokenTable:
        return tokenize_split(self.examples, self.tokenizer, self.family, max_length=1 << 20)

    def network(self, lora: LoraConfig | None = None, *, k: int = 0, gradient_checkpointing: bool = False, source: str = "") -> Network:
        """Load the network, with nonzero adapters: PEFT initialises them to the zero map."""
        checkpoint = source or self.checkpoint
        model = self.model(model=checkpoint, gradient_checkpointing=gradient_checkpointing)
        network = load_network(checkpoint, model, lora, k=k, seed=0, device=self.device)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        return network


@dataclass(frozen=True)
class Found:
    """The result of a check that passed."""

    text: str
    error: float | None = None
    """Largest numerical error, if the check measures one."""


@dataclass(frozen=True)
class Row:
    """The outcome of one check."""

    check: str
    result: Literal["ok", "FAILED", "skipped"]
    found: str
    remedy: str = ""
    """What to do, in one sentence; empty unless FAILED."""
    bound: str = ""
    """Power of ten that bounds the numerical error, such as `< 1e-4`."""


class Skip(Exception):
    """The check does not apply, or lacks the disk space to run; the message states which."""


Check = Callable[[Subject], Found]
_REPORT = "report this with the checkpoint's name and the output of this command"


def run_checks(subject: Subject, checks: Mapping[str, Check], starts: Callable[[str], None] = lambda name: None) -> Iterator[Row]:
    """One row per check, in order. A check that fails for a cause already reported is marked as skipped. `starts` gets each check's name
    before it runs."""
    reported: dict[str, str] = {}
    for name, check in checks.items():
        starts(name)
        try:
            outcome = check(subject)
        except Skip as reason:
            yield Row(name, "skipped", str(reason))
        except torch.OutOfMemoryError:
            yield Row(name, "FAILED", "out of memory", "run on a device with more memory, or check a smaller model of the family")
        except Exception as error:  # a foreign checkpoint may raise anything; the other checks continue
            sentence = _one_line(str(error)) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
            if sentence in reported:
                yield Row(name, "skipped", f"for the same reason as {reported[sentence]}")
                continue
            reported[sentence] = name
            what, _, remedy = sentence.rpartition("; ")
            yield Row(name, "FAILED", what or sentence, remedy if what else _REPORT)
        else:
            yield Row(name, "ok", outcome.text, bound="" if outcome.error is None else bound(outcome.error))


def require_text(checkpoint: str, family: ModelFamily, revision: str | None) -> None:
    """ValueError with the first check of the text that a checkpoint fails on FEW built-in pairs, and its remedy. Takes about a second."""
    for row in run_checks(Subject(checkpoint, family, examples=examples()[:FEW], revision=revision), TEXT_CHECKS):
        if row.result == "FAILED":
            raise ValueError(f"{checkpoint} fails the check `{row.check}`: {row.found}; {row.remedy} ({command(checkpoint)} shows all)")


def command(checkpoint: str) -> str:
    """The command that runs every check on a checkpoint."""
    return f"python -m jepa_ray.conformance {checkpoint}"


def bound(error: float) -> str:
    """The power of ten above an error, at least 1e-4: coarse, so that all machines report the same."""
    return next((f"< 1e-{digits}" for digits in (4, 3, 2, 1) if error < 10.0**-digits), ">= 0.1")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def check_tokenizer(subject: Subject) -> Found:
    """Loads, fits the rows of the embeddings, provides character offsets, and encodes BOS and end of turn as one token each."""
    tokenizer, family = subject.tokenizer, subject.family
    check_rows(tokenizer, load_config(subject.checkpoint, subject.model(), subject.revision), subject.checkpoint)
    Renderer(tokenizer, family)  # rejects a slow tokenizer
    texts = {"end of turn": family.turn_end} | ({"BOS": family.bos} if family.bos is not None else {})
    for what, text in texts.items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids != [tokenizer.convert_tokens_to_ids(text)]:
            raise ValueError(
                f"the {what} {text!r} is encoded as {len(ids)} tokens instead of one; add it to the tokenizer as a special token"
            )
    return Found(f"{len(tokenizer)} tokens; " + ", ".join(f"{what} {text!r}" for what, text in texts.items()))


def check_template(subject: Subject) -> Found:
    """Renders the conversation (up to the end of turn) and the views: the same text on any date, with BOS once and without thinking."""
    tokenizer, family = subject.tokenizer, subject.family
    plain = tokenizer.get_chat_template() == PLAIN_TEMPLATE
    has_own = not plain and (family.name == AUTO or tokenizer.get_chat_template() != family.template)
    other = "remove the checkpoint's chat_template.jinja to use the family's" if has_own else f"correct the record of {family.name}"
    if family.name == AUTO:
        other = "add another chat_template.jinja to the checkpoint's folder, or name a family"
    today = _renderings(subject, tokenizer)
    for day in DAYS:
        dated = copy.copy(tokenizer)
        dated.chat_template = "{%- macro strftime_now(format) %}" + day + "{% endmacro %}" + tokenizer.get_chat_template()
        if _renderings(subject, dated) != today:
            raise ValueError(f"the text changes with the date; fix the date in template_kwargs of family {family.name}, or {other}")
    bos = tokenizer.bos_token if family.bos is None else family.bos
    if family.bos is None and bos and _opens_every_turn(subject, bos):
        bos = None
    for example, (whole, text, code) in zip(subject.examples, today, strict=True):
        position = 0
        for part in (example.system, example.text, example.code):
            position = whole.find(part.strip(), position)
            if position < 0:
                raise ValueError(f"the conversation does not contain {part[:60]!r} in its place; {other}")
            position += len(part.strip())
        for rendered in (whole, text, code):
            if any(inside.strip() or not end for inside, end in _THINKING.findall(rendered)):
                raise ValueError(f"{rendered[-80:]!r} contains an open or filled <think> block; switch thinking off, or {other}")
        for rendered in (whole[:position], text, code):
            count = rendered.count(bos) if bos else 0
            if count != (family.bos is not None) or (family.bos is not None and not rendered.startswith(family.bos)):
                wanted = "never" if family.bos is None else "once, at the start"
                raise ValueError(f"BOS {bos!r} appears {count} times in {rendered[:60]!r} and must appear {wanted}; {other}")
    once = "BOS once" if family.bos is not None else "no BOS"
    return Found(
        f"{'its own' if has_own else 'the plain one' if plain else f'that of {family.name}'}; {once}, no thinking, the same on any date"
    )


def _opens_every_turn(subject: Subject, token: str) -> bool:
    """Whether each turn of a conversation adds exactly one such token: then it marks turns (ChatML's `<|im_start|>`), not the sequence."""
    roles = ("user", "assistant", "user", "assistant")
    turns = [{"role": role, "content": "-"} for role in roles]
    renderings = [
        subject.tokenizer.apply_chat_template(turns[:count], tokenize=False, **subject.family.template_kwargs)
        for count in range(1, len(turns) + 1)
    ]
    counts = [rendered.count(token) for rendered in renderings]
    twice = renderings[0].startswith(token + token)
    return not twice and all(after - before == 1 for before, after in itertools.pairwise(counts))


def _renderings(subject: Subject, tokenizer: Any) -> list[tuple[str, str, str]]:
    """Conversation up to its end of turn, Text view and Code view of every example."""
    renderer = Renderer(tokenizer, subject.family)
    texts = [renderer.view("user", example.text)[0] for example in subject.examples]
    codes = [renderer.view("assistant", example.code)[0] for example in subject.examples]
    wholes = [renderer.conversation(example.system, example.text, example.code) for example in subject.examples]
    return list(zip(wholes, texts, codes, strict=True))


def check_readouts(subject: Subject) -> Found:
    """On every example, readouts are at the last content token of their view, or at the last predictor token."""
    texts = [example.text.rstrip() for example in subject.examples]
    codes = [example.code.rstrip() for example in subject.examples]
    for k in (0, PREDICTORS):
        batch = make_batch(subject.table, range(len(subject.table)), backend="trie", k=k)
        if batch.num_pairs != len(subject.examples):
            raise ValueError(f"only {batch.num_pairs} of {len(subject.examples)} examples have readouts; {_REPORT}")
        for index, contents, tokens in ((batch.source_index, texts, k), (batch.target_index, codes, 0)):
            for at, content in zip(index, contents, strict=True):
                _readout_is_last(subject, _seen(batch, int(at)), content, tokens)
    return Found(f"at the last content or predictor token of all {len(texts)}, k = 0 and {PREDICTORS}")


def _readout_is_last(subject: Subject, path: NDArray[np.int64], content: str, k: int) -> None:
    """`path`: all tokens that the readout sees, itself last. ValueError unless it ends exactly in the content and k predictor tokens."""
    view, predictors = path[: len(path) - k], path[len(path) - k :]
    whole, short = _decode(subject.tokenizer, view), _decode(subject.tokenizer, view[:-1])
    if predictors.tolist() != list(range(PREDICTOR_BASE, PREDICTOR_BASE + k)) or not whole.endswith(content) or short.endswith(content):
        raise ValueError(f"a readout of {content[-40:]!r} comes after {whole[-40:]!r} and {k} predictor tokens; {_REPORT}")


def check_labels(subject: Subject) -> Found:
    """On every example, labels decode to the answer and the end of turn, each predicted from exactly the tokens before it."""
    tokenizer, table, stop = subject.tokenizer, subject.table, subject.family.turn_end
    spaced = subject.family.name == AUTO
    for row, example in enumerate(subject.examples):
        batch = make_batch(table, [row], backend="trie", k=PREDICTORS)
        decoded, wanted = _decode(tokenizer, batch.label_ids), example.code.strip() + stop
        # Some templates have white space around the answer (Llama 2), which is trained with it.
        same = decoded.removesuffix(stop).strip() + stop if spaced else decoded
        if same != wanted:
            raise ValueError(f"labels are {decoded[:80]!r} instead of {wanted[:80]!r}; use a template that adds no text to the answer")
        seen = [_seen(batch, int(at)) for at in batch.label_index]
        for before, label, after in zip(seen, batch.label_ids, seen[1:], strict=False):
            if after.tolist() != [*before.tolist(), int(label)]:
                raise ValueError(f"a label of {example.code[:60]!r} is predicted from tokens that are not its prefix; {_REPORT}")
        if example.text.strip() not in _decode(tokenizer, seen[0]):
            raise ValueError(f"the first label of {example.code[:60]!r} is predicted without the question; {_REPORT}")
    return Found(f"answer and {stop!r} on all {len(subject.examples)}, exactly")


def _seen(batch: ViewBatch, at: int) -> NDArray[np.int64]:
    """Ids of the tokens that the token at flat index `at` attends to, by the packed row's rule: k <= q and q < end[k]."""
    width = batch.packed.input_ids.shape[1]
    row, q = divmod(at, width)
    ids: NDArray[np.int64] = batch.packed.input_ids[row, : q + 1][batch.packed.end[row, : q + 1] > q]
    return ids


def _decode(tokenizer: Any, ids: Any) -> str:
    text: str = tokenizer.decode([int(token) for token in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def longer_than(subject: Subject, tokens: int) -> TokenTable:
    """Four usual examples, and one whose Text and training sequence exceed this many tokens."""
    text, number = "", 0
    while len(subject.tokenizer(text, add_special_tokens=False)["input_ids"]) <= tokens:
        text += " ".join(example.text for example in subject.examples[number : number + 20]) + " "
        number = (number + 20) % len(subject.examples)
    few = [*subject.examples[:4], replace(subject.examples[0], id="long", text=text.strip())]
    return tokenize_split(few, subject.tokenizer, subject.family, max_length=1 << 20)


TEXT_CHECKS: dict[str, Check] = {
    "tokenizer": check_tokenizer,
    "template": check_template,
    "readouts": check_readouts,
    "labels": check_labels,
}
"""The checks that need no network."""
