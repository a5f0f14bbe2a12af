"""Text and Code embeddings: distances and components by hand, missing or damaged files, and the figure's table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.embeddings import cosine_distances, principal, read_pairs, tsne
from analysis.figures import embedding
from analysis.inputs.sweep import read
from jepa_ray import results
from tests.analysis import sweeps


def test_distances_by_hand() -> None:
    """Texts (1, 0) and (0, 2); Codes (3, 0) and (1, 1): pairs at 0 and 1 - 1/sqrt(2), the others at 1 - 1/sqrt(2) and 1."""
    text, code = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])
    paired, unpaired = cosine_distances(text, code)
    diagonal = 1 - 1 / np.sqrt(2)
    assert paired == pytest.approx(diagonal / 2) and unpaired == pytest.approx((diagonal + 1) / 2)
    assert np.isnan(cosine_distances(text[:1], code[:1])[1])


def test_principal_components_of_a_known_covariance() -> None:
    """Four points at +-3 on one axis and +-1 on the other, rotated by 30 degrees and embedded in five dimensions."""
    angle = np.pi / 6
    axes = np.zeros((2, 5))
    axes[0, :2], axes[1, :2] = (np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))
    points = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]]) @ axes + 7.0
    found, share = principal(points)
    assert share == pytest.approx([0.9, 0.1])  # variances 9 and 1
    assert np.abs(found) == pytest.approx(np.array([[3, 0], [3, 0], [0, 1], [0, 1]]))
    assert found == pytest.approx(principal(points)[0]) and np.allclose(principal(points[::-1])[0][::-1], found)
    flat, nothing = principal(np.ones((4, 3)))
    assert not flat.any() and not nothing.any()


def test_tsne_is_the_same_every_time_and_keeps_clusters() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (20, 6)), rng.normal(30, 1, (20, 6))])
    found = tsne(points)
    assert found is not None and found.shape == (40, 2) and np.array_equal(found, tsne(points))
    centres = found[:20].mean(0), found[20:].mean(0)
    apart = np.linalg.norm(centres[0] - centres[1])
    for half, centre in zip((found[:20], found[20:]), centres, strict=True):
        assert np.linalg.norm(half - centre, axis=1).max() < apart / 2
    assert tsne(points[:3]) is None and tsne(np.ones((8, 2))) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in sweeps.SEEDS:
        for method, objective in (("baseline", None), ("jepa", {"k": 1}), ("l2", {"distance": "l2", "k": 1})):
            sweeps.add(tmp_path / "s", method, "confirm", 0.5, seed=seed, objective=objective, embeddings=8)
    return tmp_path / "s"


def test_the_figure_has_a_row_per_arm_and_counts_what_it_shows(folder: Path) -> None:
    plot = embedding.plot(read(folder))
    assert plot.figure is not None and not plot.notes
    assert [axis.get_title(loc="left").partition("\n")[0] for axis in plot.figure.axes][::2] == [
        "baseline/llama3",
        "jepa/llama3",
        "l2/llama3",
    ]
    assert plot.caption.startswith("8 validation pairs, the same in every arm, seed 23; ")
    for row in plot.table.rows:  # a Code is half its Text
        assert row[1:4] == ["3", "8", "0.000 ± 0.000"] and row[5] == "0.000 ± 0.000"
    axis = plot.figure.axes[0]
    text, code = (line for line in axis.lines if line.get_linestyle() == "None")
    assert len(text.get_xdata()) == len(code.get_xdata()) == 8
    joined = axis.lines[0].get_xydata()
    assert len(joined) == 24 and np.array_equal(joined[0], text.get_xydata()[0]) and np.array_equal(joined[1], code.get_xydata()[0])
    paper = embedding.plot_paper(read(folder))
    assert [row[0] for row in paper.table.rows] == ["baseline/llama3", "jepa/llama3"]


def test_without_scikit_learn_the_components_are_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    plot = embedding.plot(read(folder))
    assert plot.figure is not None and len(plot.figure.axes) in (3, 4) and plot.notes == (embedding.NO_TSNE,)
    assert all("t-SNE" not in axis.get_title(loc="left") for axis in plot.figure.axes)


def test_damaged_and_infinite_states_cost_themselves_only(folder: Path) -> None:
    victims = sorted((folder / "embeddings").glob("*.parquet"))
    victims[0].write_bytes(victims[0].read_bytes()[:100])
    frame = pd.read_parquet(victims[1])
    frame.at[0, "vector"] = np.full(4, np.inf, dtype=np.float16)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(frame.to_dict("records"), schema=results.EMBEDDINGS), victims[1])
    pairs, note = read_pairs(folder, victims[1].stem)
    assert pairs is not None and len(pairs.example_ids) == 7 and note.startswith("1 pairs of ")
    plot = embedding.plot(read(folder))
    told = " ".join(plot.notes)
    assert plot.figure is not None and f"embeddings/{victims[0].name} cannot be read" in told and "beyond half precision" in told


def test_a_sweep_without_embeddings_says_what_keeps_them(tmp_path: Path) -> None:
    sweeps.add(tmp_path / "s", "jepa", "confirm", 0.5, seed=82)
    plot = embedding.plot(read(tmp_path / "s"))
    assert plot.figure is None and "`base.evaluation.embeddings` above 0" in plot.caption
