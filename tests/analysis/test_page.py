"""The verdict on the page follows from the tables on the page: it is recomputed from what is printed there, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from scipy import stats

from analysis import report
from tests.analysis import sweeps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # draws a whole page

SEEDS = (82, 23, 37, 84, 4)
JITTER = (0.0025, -0.0025, 0.0, 0.0025, -0.0025)
"""Give or take one of 400 examples."""
GAINS = {"gains": 0.1, "loses": -0.1, "equals": 0.0}


@dataclass
class Printed:
    """A table as it appears on the page."""

    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class Tables(HTMLParser):
    """Collects every table, and the word, sentence and table of reasons of every ruling."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Printed] = []
        self.rulings: list[tuple[list[str], Printed]] = []
        self.cell: list[str] | None = None
        self.in_ruling = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self.in_ruling = True
            self.rulings.append(([], Printed()))
        if tag == "table":
            self.tables.append(self.rulings[-1][1] if self.in_ruling else Printed())
        if tag == "tr":
            self.tables[-1].rows.append([])
        if tag in ("td", "th") or (self.in_ruling and tag in ("span", "p")):
            self.cell = []

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self.in_ruling = False
        if self.cell is None:
            return
        text = "".join(self.cell)
        if tag == "th":
            self.tables[-1].header.append(text)
        elif tag == "td":
            self.tables[-1].rows[-1].append(text)
        elif self.in_ruling and tag in ("span", "p"):
            self.rulings[-1][0].append(text)
        else:
            return
        self.cell = None


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Three methods with one baseline: one gains ten points, one loses ten, one does neither."""
    folder = tmp_path_factory.mktemp("results") / "s"
    for place, (seed, level) in enumerate(zip(SEEDS, (0.48, 0.51, 0.5, 0.52, 0.49), strict=True)):
        sweeps.add(folder, "baseline", "confirm", level, seed=seed, examples=400)
        for k, (method, gain) in enumerate(GAINS.items()):
            accuracy = round(level + gain + JITTER[place], 6)
            sweeps.add(folder, method, "confirm", accuracy, seed=seed, examples=400, objective={"k": k}, cost=2e9)
            sweeps.add(folder, method, "matched", accuracy, seed=seed, examples=400, objective={"k": k}, cost=1e9, max_train_flops=3e9)
    methods = ", ".join(["baseline: none", *(f"{method}: {{}}" for method in GAINS)])
    plan = f"methods: {{{methods}}}\nfamilies: [llama3]\ntask: nl-rx\nconfirm: {{seeds: {list(SEEDS)}, margin: 0.02}}\n"
    (folder / "sweep.yaml").write_text(plan)
    (index,) = report.write(folder, markdown=False)
    found = Tables()
    found.feed(index.read_text(encoding="utf-8"))
    return found


def named(page: Tables, *columns: str) -> list[dict[str, str]]:
    """Rows of the only table that has all these columns."""
    (table,) = (table for table in page.tables if set(columns) <= set(table.header))
    return [dict(zip(table.header, row, strict=True)) for row in table.rows if row]


def holm(values: dict[str, float]) -> dict[str, float]:
    ordered, highest, adjusted = sorted(values, key=lambda name: values[name]), 0.0, {}
    for rank, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(values) - rank) * values[name]))
        adjusted[name] = highest
    return adjusted


def test_the_verdicts_follow_from_the_tables_of_the_page(page: Tables) -> None:
    by_seed = {row["arm"]: [float(row[f"seed {seed}"]) for seed in SEEDS] for row in named(page, "arm", "seed 82")}
    gaps = {arm: [a - b for a, b in zip(values, by_seed["baseline/llama3"], strict=True)] for arm, values in by_seed.items()}
    del gaps["baseline/llama3"]
    assert sorted(gaps) == sorted(f"{method}/llama3" for method in GAINS)
    printed = {sentence.partition(" ")[0]: {row[0]: row[2] for row in reasons.rows if row} for (_, sentence), reasons in page.rulings}
    crossed = {arm: re.search(r"over seeds x examples p = (\S+); the larger counts", rows["significant"]) for arm, rows in printed.items()}
    assert all(crossed.values())
    over_both = {arm: float(found.group(1)) for arm, found in crossed.items() if found}
    # A first look spends two thirds of the 5 %.
    adjusted = holm({arm: 1.5 * max(float(stats.ttest_1samp(values, 0).pvalue), over_both[arm]) for arm, values in gaps.items()})
    at_equal_flops = {row["method"]: row for row in named(page, "at", "budget") if row["at"] == "equal FLOPs"}
    others = {(row["method"], row["metric"]): row["difference"] for row in named(page, "method", "metric", "per seed")}
    words = {}
    for (word, sentence), _ in page.rulings:
        arm = sentence.partition(" ")[0]
        numbers = printed[arm]
        low, high = map(float, re.search(r"over all looks\) (\S+) to (\S+) points", numbers["interval above 0"]).groups())  # type: ignore[union-attr]
        tost, alone = map(float, re.search(r"Holm p = (\S+) \(before: (\S+)\)", numbers["equivalent"]).groups())  # type: ignore[union-attr]
        mean = sum(gaps[arm]) / len(SEEDS)
        below = stats.ttest_1samp(gaps[arm], 2, alternative="less").pvalue
        above = stats.ttest_1samp(gaps[arm], -2, alternative="greater").pvalue
        assert alone >= 0.99 * max(below, above), "the larger of seeds and of seeds x examples"
        told = re.search(r": at equal steps, (\S+) points of test_accuracy ", sentence)
        assert told is not None or ": at equal steps, no difference in test_accuracy " in sentence
        assert f" (95 % {low:+.2f} to {high:+.2f}) over {len(SEEDS)} seeds" in sentence
        assert (float(told.group(1)) if told else 0.0) == pytest.approx(mean, abs=0.005)
        corrected = re.search(r"^Holm p = (\S+) over 3 claims", numbers["significant"])
        assert corrected and float(corrected.group(1)) == pytest.approx(adjusted[arm], rel=0.02), "printed to three digits"
        gained = max(float(others[arm, f"test {name}"].split(" ")[0]) for name in ("prefix", "contains"))
        flops = at_equal_flops[arm]
        assert flops["seeds"] == "5" and "schedule shortened to match" in flops["how"]
        better = adjusted[arm] < 0.05 and low > 0 and mean >= 2 and float(flops["difference"]) > 0 and gained >= 2
        worse = adjusted[arm] < 0.05 and high < 0
        words[arm] = "better" if better else "equivalent" if tost < 0.05 else "worse" if worse else "undecided"
        assert word == words[arm], sentence
    assert words == {"gains/llama3": "better", "loses/llama3": "worse", "equals/llama3": "equivalent"}


def test_the_parser_sees_a_verdict_that_does_not_follow() -> None:
    found = Tables()
    found.feed(
        '<article class="ruling"><span class="word better">better</span><p>jepa against x</p><table><tr><td>a</td></tr></table></article>'
    )
    assert found.rulings[0][0] == ["better", "jepa against x"] and found.rulings[0][1].rows == [["a"]]
