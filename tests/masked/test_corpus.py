"""Passages and labelled splits: their sources, what is omitted, and error messages for bad files."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_ray.config import DataConfig, MaskedConfig
from jepa_ray.masked.corpus import load_corpus, read_passages, tokenize_passages

DATA = DataConfig(task="rotten-tomatoes", num_train=30, num_val=10, num_test=12)


def test_built_in_reviews_with_both_labels() -> None:
    corpus = load_corpus(DATA, MaskedConfig())
    assert corpus.labels == ("negative", "positive") and len(corpus.passages) == 30
    texts = [{example.text for example in split} for split in (corpus.splits.train, corpus.splits.val, corpus.splits.test)]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert load_corpus(DATA, MaskedConfig()) == corpus


def test_a_text_file_is_trained_on_and_what_is_judged_is_left_out(tmp_path: Path) -> None:
    built_in = load_corpus(DATA, MaskedConfig())
    path = tmp_path / "own.txt"
    path.write_text(f"One passage.\n\n  another \n{built_in.splits.test[0].text}\n", encoding="utf-8")
    corpus = load_corpus(DATA, MaskedConfig(corpus=str(path)))
    assert corpus.passages == ("One passage.", "another") and corpus.removed == 1
    assert corpus.splits == built_in.splits and corpus.dataset_sha != built_in.dataset_sha


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; base.masked.corpus"),
        (b"", "contains no passage"),
        (b" \n\r\n\t\n", "contains no passage"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_passages(path)


def test_a_file_of_test_texts_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("\n".join(example.text for example in load_corpus(DATA, MaskedConfig()).splits.test), encoding="utf-8")
    with pytest.raises(ValueError, match="all of its 12 passages are in validation or test"):
        load_corpus(DATA, MaskedConfig(corpus=str(path)))


def test_one_label_cannot_be_probed(tmp_path: Path) -> None:
    rows = [f'{{"messages": [{{"role": "system", "content": "s"}}, {{"role": "user", "content": "text {n}"}}, '
            f'{{"role": "assistant", "content": "positive"}}]}}' for n in range(9)]  # fmt: skip
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match="a probe needs two"):
        load_corpus(DataConfig(task="rotten-tomatoes", train=str(path), num_val=2), MaskedConfig())


def test_long_and_empty_passages_are_dropped_and_counted() -> None:
    rows = {"a": [1, 10, 2], "long": [1, 10, 11, 12, 2], "unknown": [1, 3, 2]}
    table = tokenize_passages(list(rows), [0, 1, 0], list(rows), lambda texts: [rows[t] for t in texts], frozenset({1, 2, 3}), 4)
    assert table.ids == ("a",) and table.dropped == 2 and table.classes.tolist() == [0]
    assert table.tokens[table.span(0)].tolist() == [1, 10, 2] and table.candidates.tolist() == [False, True, False]
