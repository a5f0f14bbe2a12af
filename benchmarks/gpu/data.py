"""Examples with the lengths of NL-RX-SYNTH and GSM8K: from files if a folder is given, else generated, the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.example import Example
from jepa_ray.data.sources import read

FILES = {"nl-rx": ("synth_train.jsonl",), "gsm8k": ("gsm8k_train.jsonl", "gsm8k_test.jsonl")}
"""Task -> names of its file; the first that exists is used."""
WORDS = {"text": (62.0, 0.36), "code": (80.0, 0.42)}
"""Side of a generated GSM8K example -> (mean number of words, standard deviation of its logarithm). In the tiny base's tokens the real file
has means of 270 (whole), 123 (text) and 158 (code) and standard deviations of 82, 39 and 57."""


def examples(task: str, folder: Path | None, count: int) -> tuple[Sequence[Example], str]:
    """(`count` examples of a task, or as many as its file has; their origin)."""
    path = file_of(task, folder)
    if path is not None:
        return read(DATASETS[task], str(path))[:count], path.name
    # The built-in regexes are as long as the real ones; built-in arithmetic is a third as long as GSM8K.
    made = DATASETS[task].generate(count, 0, "train", ()) if task == "nl-rx" else gsm8k_like(count)
    return made, "made, with the real lengths"


def file_of(task: str, folder: Path | None) -> Path | None:
    """The task's file in the folder; None without a folder. ValueError if the folder has no such file."""
    if folder is None:
        return None
    for name in FILES[task]:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} contains none of {', '.join(FILES[task])}; put one there, or leave out --data to generate examples")


def gsm8k_like(count: int, seed: int = 0) -> list[Example]:
    """Random words in GSM8K's lengths. They have no meaning and serve only to measure speed."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwyp"))
    lexicon = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(300)]

    def words(mean: float, spread: float) -> str:
        total = max(8, round(mean * rng.lognormal(-(spread**2) / 2, spread)))
        return " ".join(lexicon[int(300 * rng.random() ** 3)] for _ in range(total))

    system = DATASETS["gsm8k"].system
    return [Example(f"made:{i}", system, words(*WORDS["text"]), words(*WORDS["code"])) for i in range(count)]
