"""Examples with the lengths of NL-RX-SYNTH and GSM8K: from files where a folder is given, else made, the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.example import Example
from jepa_ray.data.sources import read

FILES = {"nl-rx": ("synth_train.jsonl",), "gsm8k": ("gsm8k_train.jsonl", "gsm8k_test.jsonl")}
"""Task -> names of its file, the first that is there counts."""
WORDS = {"text": (62.0, 0.36), "code": (80.0, 0.42)}
"""Of a made GSM8K example: mean words of each side, and the spread of their logarithm. In the tiny base's tokens the real file has means of
270 (whole), 123 (text) and 158 (code) and standard deviations of 82, 39 and 57."""


def examples(task: str, folder: Path | None, count: int) -> tuple[Sequence[Example], str]:
    """(`count` examples of a task, or as many as its file has; where they come from)."""
    path = file_of(task, folder)
    if path is not None:
        return read(DATASETS[task], str(path))[:count], path.name
    # The built-in regexes have the real ones' lengths; built-in arithmetic is a third as long as GSM8K.
    made = DATASETS[task].generate(count, 0, "train", ()) if task == "nl-rx" else gsm8k_like(count)
    return made, "made, with the real lengths"


def file_of(task: str, folder: Path | None) -> Path | None:
    """The task's file in the folder. ValueError where a folder is given and has none."""
    if folder is None:
        return None
    for name in FILES[task]:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} holds none of {', '.join(FILES[task])}; put one there, or leave out --data and the examples are made")


def gsm8k_like(count: int, seed: int = 0) -> list[Example]:
    """Random words in GSM8K's lengths. Nobody could answer them: they are for speed."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwyp"))
    lexicon = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(300)]

    def words(mean: float, spread: float) -> str:
        total = max(8, round(mean * rng.lognormal(-(spread**2) / 2, spread)))
        return " ".join(lexicon[int(300 * rng.random() ** 3)] for _ in range(total))

    system = DATASETS["gsm8k"].system
    return [Example(f"made:{i}", system, words(*WORDS["text"]), words(*WORDS["code"])) for i in range(count)]
