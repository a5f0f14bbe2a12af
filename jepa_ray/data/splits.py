"""Splits a set of examples in two without leaks: examples that share a text or an answer form a group, and groups stay whole.

`sameness.py` says which texts count as the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jepa_ray.data.example import Example
from jepa_ray.data.sameness import Seen, answers, beginnings, key, texts
from jepa_ray.streams import stream

By = Literal["answer", "text"]
"""What the examples of a group share. answer: the text or the answer. text: only the text (or the Text view, if it differs), for tasks
whose answers are labels or few. With both, a conversation is in the group of its beginnings, and
of its last message if that has one answer."""


def groups(examples: Sequence[Example], by: By = "answer") -> list[list[Example]]:
    """Connected components of "same text or same code" (`by` text: of "same text"), in order of first appearance.

    Three pairs (a, x), (b, x), (b, y) form one group: the first two share an answer, the last two a text. So do (a, b), (b, c).
    """
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(one: int, other: int) -> None:
        older, younger = sorted((root(one), root(other)))
        parent[younger] = older

    # Texts and answers share the keys: examples also belong together if one's answer is another's text (consecutive paraphrases).
    seen: dict[str, int] = {}
    for index, example in enumerate(examples):
        for shared in (*texts(example), *((key(example.code),) if by == "answer" else ())):
            join(seen.setdefault(shared, index), index)
    if any(example.history for example in examples):
        begun, answered = [beginnings(example) for example in examples], answers(examples)
        whole = {digests[-1]: index for index, digests in enumerate(begun)}
        last: dict[str, int] = {}
        for index, digests in enumerate(begun):
            for digest in digests:
                join(whole.get(digest, index), index)
            if len(answered[text := key(examples[index].text)]) == 1:
                join(last.setdefault(text, index), index)
    components: dict[int, list[Example]] = {}
    for index, example in enumerate(examples):
        components.setdefault(root(index), []).append(example)
    return list(components.values())


def split_groups(examples: Sequence[Example], size: int, seed: int, purpose: str, by: By = "answer") -> tuple[list[Example], list[Example]]:
    """(part, rest): whole groups go to `part`, in seeded order, if they fit, until it has `size` examples.

    `part` is smaller than `size` only if no remaining group fits. Both keep the order of `examples`.
    """
    together = groups(examples, by)
    taken: set[str] = set()
    for index in stream(seed, purpose).permutation(len(together)):
        group = together[int(index)]
        if len(taken) + len(group) <= size:
            taken.update(example.id for example in group)
        if len(taken) == size:
            break
    return [example for example in examples if example.id in taken], [example for example in examples if example.id not in taken]


def split_base(train: Sequence[Example], fraction: float, seed: int, by: By = "answer") -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(base, finetune): about `fraction` of the training split pre-trains the tiny base, the rest is for fine-tuning.

    They share no text and, with `by` answer, no answer. Raises ValueError if either part would be empty.
    """
    base, finetune = split_groups(train, round(fraction * len(train)), seed, "base split", by)
    if not base or not finetune:
        raise ValueError(
            f"data.base_fraction {fraction} of {len(train)} training examples leaves {len(base)} to pre-train the tiny base "
            f"and {len(finetune)} to fine-tune: give more training examples (data.num_train) or another data.base_fraction"
        )
    return tuple(base), tuple(finetune)


def subset(examples: Sequence[Example], size: int | None, seed: int, purpose: str) -> list[Example]:
    """A seeded subset of at most `size` examples, in their order; it contains the smaller subsets of the same seed."""
    if size is None or size >= len(examples):
        return list(examples)
    kept = sorted(stream(seed, purpose).permutation(len(examples))[:size].tolist())
    return [examples[index] for index in kept]


def without(examples: Sequence[Example], others: Sequence[Example], by: By) -> tuple[Example, ...]:
    """The examples that share no text and no beginning of a conversation with any of `others` and, with `by` answer, no answer."""
    seen, views = Seen(others), {text for example in others for text in texts(example)}
    codes = {key(example.code) for example in others} if by == "answer" else set()
    return tuple(
        example for example in examples if example not in seen and views.isdisjoint(texts(example)) and key(example.code) not in codes
    )
