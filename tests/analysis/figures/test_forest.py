"""The forest plot: its lines are the verdict's numbers, its files follow light and dark, and what cannot be drawn is a sentence."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from analysis.figures import forest, style
from analysis.inputs.sweep import read
from analysis.protocol.claims import gather
from analysis.verdict import judge
from tests.analysis import sweeps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Baseline, method (12 of 20 points better, more expensive, with matched runs) and control, on three seeds."""
    for place, seed in enumerate(sweeps.SEEDS):
        sweeps.add(tmp_path, "baseline", "confirm", 0.40 + 0.01 * place, seed=seed, examples=50, kind="baseline")
        sweeps.add(tmp_path, "jepa", "confirm", 0.52 + 0.02 * place, seed=seed, examples=50, cost=2e9, objective={"k": 1})
        sweeps.add(tmp_path, "jepa", "matched", 0.30, seed=seed, cost=1e9, objective={"k": 1}, max_train_flops=3e9)
        sweeps.add(tmp_path, "jepa-zero", "confirm", 0.41, seed=seed, examples=50, objective={"control": "zero"}, kind="control")
    (tmp_path / "sweep.yaml").write_text(sweeps.SWEEP)
    return tmp_path


def test_lines_are_the_verdicts_numbers(folder: Path) -> None:
    lines, margin = forest.lines_of(read(folder))
    rulings = {ruling.method: ruling for ruling in judge(gather(folder)).verdicts}
    assert [line.name for line in lines] == ["jepa/llama3", "jepa/llama3, equal FLOPs", "jepa-zero/llama3"] and margin == 0.01
    for line in (lines[0], lines[2]):
        ruling = rulings[line.arm]
        assert ruling.interval is not None and line.interval == (ruling.interval.low, ruling.interval.high)
        assert (line.difference, line.verdict) == (ruling.difference, ruling.verdict)
    assert lines[0].difference == pytest.approx(0.13)
    cost = rulings["jepa/llama3"].at_flops
    assert cost is not None and lines[1].difference == pytest.approx(0.30 - 0.41) and lines[1].verdict == cost.verdict
    assert lines[1].over == ("seeds" if cost.interval is None else "seeds and examples")
    assert cost.interval is None or lines[1].interval == (cost.interval.low, cost.interval.high)


def test_both_files_are_svg_and_differ_in_colours_only(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert forest.main([str(folder), "--output", str(tmp_path / "out")]) == 0
    assert "jepa-zero/llama3" in capsys.readouterr().out
    light, dark = ((tmp_path / "out" / name).read_text() for name in forest.FILES)
    assert {ElementTree.fromstring(drawn).tag.rpartition("}")[2] for drawn in (light, dark)} == {"svg"}
    assert light != dark and len(light) == len(dark) and style.INK not in dark
    assert ">jepa/llama3, equal FLOPs</text>" in light, "text stays text"
    assert forest.main([str(folder), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "forest.svg").read_text() == light, "the same folder gives the same file"


def test_without_a_comparison_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps.add(tmp_path, "baseline", "search", 0.4, kind="baseline")
    with pytest.raises(SystemExit) as stopped:
        forest.main([str(tmp_path)])
    assert stopped.value.code == 2 and "No method was confirmed" in capsys.readouterr().err
    assert not (tmp_path / "forest.svg").exists()
