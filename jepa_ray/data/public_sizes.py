"""Sizes of public data sets, so that a sweep on them can be planned before they are downloaded.

Sources: the data sets' cards on the hub, and characters counted in the files themselves; for `datasets/*.jsonl`, the files of the
paper's repository (github.com/rbalestr-lab/llm-jepa).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PublicSize:
    """Size of one split of a public data set."""

    examples: int
    text: float | None = None
    """Mean number of characters of a Text; None: not counted."""
    code: float | None = None
    """Mean number of characters of a Code; None: not counted."""


PUBLIC_SIZES: Mapping[str, PublicSize] = MappingProxyType(
    {
        "datasets/synth_train.jsonl": PublicSize(8_000, 67, 26),
        "datasets/synth_test.jsonl": PublicSize(2_000),
        "datasets/turk_train.jsonl": PublicSize(8_000),
        "datasets/turk_test.jsonl": PublicSize(2_000),
        "datasets/spider_train.jsonl": PublicSize(6_587, 96, 109),
        "datasets/spider_test.jsonl": PublicSize(1_447),
        "hub:openai/gsm8k@main:train": PublicSize(7_473, 240, 293),
        "hub:openai/gsm8k@main:test": PublicSize(1_319),
        "hub:Rowan/hellaswag:train": PublicSize(39_905),
        "hub:Rowan/hellaswag:validation": PublicSize(10_042),
        "hub:google-research-datasets/nq_open:train": PublicSize(87_925),
        "hub:google-research-datasets/nq_open:validation": PublicSize(3_610),
        "hub:xlangai/spider:train": PublicSize(7_000, 96, 109),
        "hub:xlangai/spider:validation": PublicSize(1_034),
        "hub:cornell-movie-review-data/rotten_tomatoes:train": PublicSize(8_530),
        "hub:cornell-movie-review-data/rotten_tomatoes:test": PublicSize(1_066),
        "hub:Yelp/yelp_review_full:train": PublicSize(650_000),
        "hub:Yelp/yelp_review_full:test": PublicSize(50_000),
        "hub:humarin/chatgpt-paraphrases:train": PublicSize(419_197),
    }
)
"""By the source as a sweep file gives it, with `paper` resolved."""
