"""A plan: components derived from two numbers, checked against simulated tables and closed forms, and its sentences."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis import planning
from analysis.planning import Spread, examples_needed, lines, pilot, stated
from analysis.stats import crossed
from tests.analysis import sweeps


def test_components_add_up_to_what_was_stated() -> None:
    """The sum is the discordance, the spread of N examples over seeds is sd, and the recurring share is the recurrence."""
    parts = stated(400, 0.03, 0.2, 0.25).parts
    assert parts.var_seed + parts.var_example + parts.var_residual == pytest.approx(0.2)
    assert parts.var_seed + parts.var_residual / 400 == pytest.approx(0.03**2)
    assert parts.var_example / (parts.var_example + parts.var_residual) == pytest.approx(0.25)


def test_simulated_arms_have_the_spread_that_was_stated() -> None:
    """Seeds and examples shift the probability of a win; sd over seeds and discordance are measured on the tables."""
    random, S, N, R = np.random.default_rng(0), 6, 300, 800
    lean_RSN = 0.1 * random.choice([-1, 1], (R, S, 1)) + 0.3 * random.choice([-1, 1], (R, 1, N))
    disagree = random.random((R, S, N)) < 0.2
    D_RSN = np.where(disagree, np.where(random.random((R, S, N)) < (1 + lean_RSN) / 2, 1.0, -1.0), 0.0)
    sd = math.sqrt(D_RSN.mean(axis=2).var(axis=1, ddof=1).mean())
    _, by_seed, by_example, residual = (x.mean() for x in crossed.mean_squares(D_RSN))
    seed, example = (by_seed - residual) / N, (by_example - residual) / S
    parts = stated(N, sd, 0.2, example / (example + residual)).parts
    assert [parts.var_seed, parts.var_example, parts.var_residual] == pytest.approx([seed, example, residual], rel=0.05)
    # A lean of 0.1 in a fifth of the examples shifts the mean by 0.02; the examples' lean of 0.3 by 0.06.
    assert [seed, example] == pytest.approx([0.02**2, 0.06**2], rel=0.1)


def test_answers_scatter_by_themselves() -> None:
    """100 examples of which 20 % disagree at random: the mean has sd sqrt(0.2 / 100) = 4.5 points, even if a smaller one was stated."""
    spread = stated(100, 0.01, 0.2, 0.0)
    assert spread.parts.var_seed == 0.0 and "scatter of 100 answers alone is larger, 4.5 points" in spread.origin
    assert "scatter" not in stated(100, 0.1, 0.2, 0.0).origin


def test_seeds_only_is_the_paired_t() -> None:
    """Without a variance of examples: the textbook power of a t-test with S - 1 degrees of freedom at 2/3 of 0.05 / 2 claims."""
    parts = crossed.Components(seeds=9, examples=100, mean=0.0, var_seed=1e-4, var_example=0.0, var_residual=1e-12)
    first, *_ = lines(Spread(parts=parts, origin="here"), seeds=5, examples=100, claims=2)
    told = float(first.split()[2]) / 100
    critical = stats.t.isf(0.0125 * 2 / 3, 4)
    shift = told / (0.01 / math.sqrt(5))
    assert 1 - stats.nct.cdf(critical, 4, shift) == pytest.approx(0.8, abs=0.02)  # the sentence rounds to two digits


def test_the_sentence() -> None:
    found = lines(stated(512, 0.03, 0.1, 0.0), seeds=5, examples=512, claims=2)
    assert found[0].startswith("can detect ") and "points with 5 seeds x 512 examples (power 0.8, 2 claims); 10 seeds: " in found[0]
    assert found[1].startswith("1 point needs ") and found[1].endswith(" seeds")
    assert found[-1] == "based on sd over seeds 3 points, arms disagree on 10 % of examples (stated)"
    assert (
        "7 seeds x" in lines(stated(512), seeds=7, examples=512, claims=1)[0]
        and "1 claim)" in lines(stated(512), seeds=7, examples=512, claims=1)[0]
    )
    assert planning.ORIGIN in lines(stated(512), seeds=7, examples=512, claims=1)[-1]


def test_the_seeds_that_a_margin_needs_do_detect_it() -> None:
    spread = stated(2000, 0.02, 0.1)
    need = int(lines(spread, seeds=5, examples=2000, claims=3)[1].split()[3])
    at, before = (crossed.detectable(spread.parts, seeds=n, examples=2000, power=0.8, alpha=0.05 * 2 / 3 / 3) for n in (need, need - 1))
    assert at <= 0.01 < before


def test_a_test_set_that_is_too_small() -> None:
    """A fifth of the examples disagree, the same ones at every seed: more seeds do not help, and N examples detect sqrt(0.2 / N) x 2.8."""
    spread = stated(200, 0.0, 0.2, 1.0)
    least = math.sqrt(0.2 / 200) * (stats.norm.isf(0.025 * 2 / 3) + stats.norm.ppf(0.8))
    second = lines(spread, seeds=5, examples=200, claims=1)[1]
    assert second.startswith(f"no number of seeds detects 1 point on 200 examples (at best {100 * least:.2g}); 20 seeds detect it on ")
    need = examples_needed(spread, 0.01, seeds=20, claims=1)
    assert need == pytest.approx(0.2 * (2.970 / 0.01) ** 2, rel=0.05)
    assert examples_needed(stated(200, 0.1, 0.2), 0.01, seeds=5, claims=1) is None
    assert "more than 1000 seeds" in lines(stated(500, 0.2, 0.2, 0.0), seeds=5, examples=500, claims=1)[1]


def test_bad_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, why in (
        ((0,), "at least 1 test example"),
        ((500, 0.01, 0.0), "Discordance must be in"),
        ((500, 0.5, 0.1), "at most 0.316"),
    ):
        with pytest.raises(ValueError, match=why):
            stated(*arguments)
    with pytest.raises(ValueError, match="at least 1 claim"):
        lines(stated(500), seeds=5, examples=500, claims=0)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        lines(stated(500), seeds=1, examples=500, claims=1)
    with pytest.raises(ValueError, match="not the folder of a sweep"):
        pilot(tmp_path)
    for line in (["--pilot", str(tmp_path)], ["--pilot", "x", "--sd-seed", "0.1"], ["--seeds", "1"], ["--discordance", "2"]):
        with pytest.raises(SystemExit) as stop:
            planning.main(line)
        assert stop.value.code == 2
    assert planning.main(["--examples", "512", "--claims", "1"]) == 0
    assert "can detect" in capsys.readouterr().out


def test_controls_do_not_speak_for_claims(tmp_path: Path) -> None:
    """The scatter of an arm that is meant to fail is not typical; it is used only if there is no claim."""
    folder = tmp_path / "s"
    for seed, level, wild in ((1, 0.50, 0.2), (2, 0.51, 0.8), (3, 0.49, 0.4)):
        sweeps.add(folder, "baseline", "confirm", level, seed=seed, examples=200)
        sweeps.add(folder, "shuffled", "confirm", wild, seed=seed, examples=200, kind="control", objective={"control": "shuffled"})
    controls = pilot(folder)
    assert "1 control, 2 degrees of freedom" in controls.origin
    for seed, level in ((1, 0.52), (2, 0.55), (3, 0.50)):
        sweeps.add(folder, "jepa", "confirm", level, seed=seed, examples=200)
    claims = pilot(folder)
    assert "1 claim, 2 degrees of freedom" in claims.origin and claims.parts.var_seed < controls.parts.var_seed / 10


def test_a_pilot_with_one_degree_of_freedom_warns(tmp_path: Path) -> None:
    """Two seeds: (n - 1) s^2 / sigma^2 is chi-square with one degree of freedom, so sigma / s is 1 / |z|: 1 / 2.2414 to 1 / 0.03134."""
    folder = tmp_path / "s"
    for seed, baseline, jepa in ((1, 0.50, 0.54), (2, 0.53, 0.56), (3, 0.51, 0.56)):
        sweeps.add(folder, "baseline", "confirm", baseline, seed=seed, examples=200)
        sweeps.add(folder, "jepa", "confirm", jepa, seed=seed, examples=200)
        spread = pilot(folder) if seed > 1 else None
        if spread is not None and seed == 2:
            assert "1 claim, 1 degree of freedom" in spread.origin
            *_, based_on, warning = lines(spread, seeds=5, examples=200, claims=1)
            assert based_on.startswith("based on sd over seeds") and warning == spread.warning
            assert warning.startswith("warning: ") and "0.45 to 32 times" in warning
    assert spread is not None and "1 claim, 2 degrees of freedom" in spread.origin and not spread.warning
    assert lines(spread, seeds=5, examples=200, claims=1)[-1].startswith("based on ")


def test_numbers_of_one_are_singular() -> None:
    assert lines(stated(1, 0.1, 0.2), seeds=2, examples=1, claims=1)[0].startswith(
        "cannot detect any effect, however large, with 2 seeds x 1 example ("
    )
    assert stated(100, 0.01, 0.01).origin.startswith("sd over seeds 1 point, ")


def test_a_plan_that_can_detect_nothing_says_so() -> None:
    """With two seeds the paired t needs a difference of more than 100 points, which no two accuracies have."""
    spread = planning.stated(240, None, None)
    found = planning.lines(spread, seeds=2, examples=240, claims=8)
    assert found[0].startswith("cannot detect any effect, however large, with 2 seeds x 240 examples (power 0.8, 8 claims); 5 seeds: ")
    points = [float(number) for number in re.findall(r"seeds: ([\d.]+)", found[0])]
    assert points and max(points) < 100
    assert planning.lines(spread, seeds=5, examples=240, claims=1)[0].startswith("can detect ")
