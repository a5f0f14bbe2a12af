"""The numbers of the LLM-JEPA paper (arXiv 2509.14252v2), accuracy in % with the sd over its five seeds. Data only.

The paper chose its best cell on the test set, so its differences are too large by an unknown amount; they are shown for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Baseline and LLM-JEPA of one line of a comparison. `size` is part of the model's name, if the family has several."""

    task: str
    family: str
    baseline: tuple[float, float | None]
    jepa: tuple[float, float | None]
    settings: str
    size: str = ""


COMPARISONS: dict[str, tuple[Row, ...]] = {
    "T2": (Row("nl-rx", "llama3", (54.38, 1.70), (60.59, 1.01), "lr 8e-5, lambda 2, k 3"),),
    "T4": (
        Row("nq-open", "llama3", (20.12, 0.41), (21.59, 0.40), "lr 2e-5, lambda 1024, k 0"),
        Row("hellaswag", "llama3", (69.40, 0.99), (70.51, 1.20), "lr 4e-5, lambda 1, k 3"),
    ),
    "T5": (
        Row("gsm8k", "qwen3", (44.32, 0.39), (45.00, 0.40), "lr 4e-5, lambda 1, k 0"),
        Row("gsm8k", "r1-distill-qwen", (13.87, 1.01), (15.04, 0.15), "lr 8e-5, lambda 0.5, k 1"),
    ),
    "T9": (
        Row("rotten-tomatoes", "llama3", (56.57, 1.66), (57.76, 1.33), "lambda 0.5, k 2, lr 8e-5 then 4e-5"),
        Row("yelp", "llama3", (26.46, 0.92), (27.15, 0.93), "lambda 0.5, k 2, lr 8e-5 then 8e-5"),
    ),
    "T12": (
        Row("nl-rx", "llama3", (57.29, 5.32), (71.46, 1.34), "lr 2e-5, lambda 1, k 1"),
        Row("nl-rx", "gemma2", (33.65, 3.24), (43.12, 2.61), "lr 1e-5, lambda 2, k 4"),
        Row("nl-rx", "openelm", (12.07, 1.81), (25.40, 2.40), "lr 8e-5, lambda 4, k 3"),
        Row("nl-rx", "olmo2", (87.09, 0.36), (87.52, 0.29), "lr 8e-5, lambda 2, k 0"),
    ),
    "T13": (
        Row("nl-rx-turk", "llama3", (22.49, 1.91), (30.94, 1.13), "lr 2e-5, lambda 1, k 1"),
        Row("gsm8k", "llama3", (32.36, 0.58), (36.36, 0.20), "lr 2e-5, lambda 0.5, k 4"),
        Row("spider", "llama3", (47.52, 2.44), (50.55, 2.08), "lr 4e-5, lambda 1, k 3"),
    ),
    "T15": (
        Row("nl-rx", "llama3", (74.55, None), (77.16, None), "lambda 2", "3B"),
        Row("nl-rx", "llama3", (35.77, None), (63.57, None), "lambda 2", "8B"),
        Row("nl-rx", "olmo2", (87.26, None), (87.75, None), "lambda 20", "7B"),
    ),
}

VARIANTS: dict[str, float] = {
    "baseline": 57.29,
    "cosine": 71.46,
    "l2": 2.22,
    "mse": 70.64,
    "prepend": 68.07,
    "reverse": 65.70,
    "infonce": 34.40,
}
"""T3: NL-RX-SYNTH, Llama-3.2-1B-Instruct, all at lr 2e-5, lambda 1, k 1. This says nothing about L2 itself: its lambda was not tuned."""

LOSS_DROPOUT: dict[tuple[float, float], float] = {
    (0, 1): 63.96,
    (0.5, 1): 70.60,
    (0.5, 2): 72.11,
    (0.75, 1): 70.31,
    (0.75, 2): 70.92,
    (0.75, 4): 73.08,
}
"""T6: (loss dropout, lambda) at equal FLOPs."""

RANKS: dict[float | None, tuple[float, float]] = {
    32: (6.09, 7.45),
    64: (21.09, 32.46),
    128: (34.21, 48.45),
    256: (45.57, 60.80),
    512: (50.18, 72.41),
    None: (57.29, 70.42),
}
"""T8: LoRA rank (None: full fine-tuning) -> baseline, LLM-JEPA."""

RATIOS: dict[float, float] = {0: 0.0, 0.01: 1.38, 0.1: 45.80, 1: 70.42, 10: 67.52, 100: 66.83, float("inf"): 57.29}
"""T10: gamma / lambda at k 0; infinity is the baseline."""

LINEARITY: dict[str, tuple[float, float]] = {
    "before training": (3953.0, 311.0),
    "baseline": (3035.0, 342.0),
    "k 1": (4.47, 94.8),
    "k 0": (4.04, 16.8),
}
"""T14: min_X ||Enc(Text) X - Enc(Code)||, and the mean of the 100 largest singular values of Enc(Text) - Enc(Code)."""
