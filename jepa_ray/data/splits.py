"""Cutting a set of examples in two so that nothing leaks: whole groups of examples that share a text or an answer move together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jepa_ray.data.example import Example
from jepa_ray.streams import stream

By = Literal["answer", "text"]
"""What examples of one group share. answer: the text or the answer. text: the text alone (or the Text view, where it is another), for
tasks whose answers are labels, or few."""


def groups(examples: Sequence[Example], by: By = "answer") -> list[list[Example]]:
    """Connected components of "same text or same code" (`by` text: of "same text"), in order of first appearance.

    Three pairs (a, x), (b, x), (b, y) are one group: the first two share an answer, the last two a text. So are (a, b), (b, c).
    """
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    # One space of keys for both: where an answer is another example's text (paraphrases, one from the next), they belong together too.
    seen: dict[str, int] = {}
    for index, example in enumerate(examples):
        for key in (example.text, *(example.views or ())[:1], *((example.code,) if by == "answer" else ())):
            first = seen.setdefault(key, index)
            older, younger = sorted((root(first), root(index)))
            parent[younger] = older
    found: dict[int, list[Example]] = {}
    for index, example in enumerate(examples):
        found.setdefault(root(index), []).append(example)
    return list(found.values())


def split_groups(examples: Sequence[Example], size: int, seed: int, purpose: str, by: By = "answer") -> tuple[list[Example], list[Example]]:
    """(part, rest): whole groups, taken in seeded order while they fit, until `part` has `size` examples.

    `part` is smaller than `size` only where no remaining group fits. Both keep the order of `examples`.
    """
    found = groups(examples, by)
    taken: set[str] = set()
    for index in stream(seed, purpose).permutation(len(found)):
        group = found[int(index)]
        if len(taken) + len(group) <= size:
            taken.update(example.id for example in group)
        if len(taken) == size:
            break
    return [example for example in examples if example.id in taken], [example for example in examples if example.id not in taken]


def split_base(train: Sequence[Example], fraction: float, seed: int, by: By = "answer") -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(base, finetune): about `fraction` of the training split pre-trains the tiny base, the rest is fine-tuned on.

    No text is in both, and with `by` answer no answer. Raises ValueError where either half would be empty.
    """
    base, finetune = split_groups(train, round(fraction * len(train)), seed, "base split", by)
    if not base or not finetune:
        raise ValueError(
            f"data.base_fraction {fraction} of {len(train)} training examples leaves {len(base)} to pre-train the tiny base "
            f"and {len(finetune)} to fine-tune: give more training examples (data.num_train), or another data.base_fraction"
        )
    return tuple(base), tuple(finetune)


def subset(examples: Sequence[Example], size: int | None, seed: int, purpose: str) -> list[Example]:
    """A seeded subset of at most `size`, in the order of `examples`; a larger one contains the smaller ones of its seed."""
    if size is None or size >= len(examples):
        return list(examples)
    kept = sorted(stream(seed, purpose).permutation(len(examples))[:size].tolist())
    return [examples[index] for index in kept]


def without(examples: Sequence[Example], others: Sequence[Example], by: By) -> tuple[Example, ...]:
    """Those of `examples` that share no text, and with `by` answer no answer, with any of `others`."""
    texts = {text for example in others for text in (example.text, *(example.views or ())[:1])}
    codes = {example.code for example in others} if by == "answer" else set()
    return tuple(
        example
        for example in examples
        if example.text not in texts and example.code not in codes and not (example.views and example.views[0] in texts)
    )
