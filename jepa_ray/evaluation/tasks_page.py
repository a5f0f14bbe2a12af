"""Writes docs/tasks.md: every task, when an answer to it is correct, and that its own references pass and a wrong answer does not.

python -m jepa_ray.evaluation.tasks_page > docs/tasks.md
"""

from __future__ import annotations

import inspect
import re
import sys

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.tasks.task import Task
from jepa_ray.evaluation.judges import judge_of

EXAMPLES = 50
"""Generated examples per task whose references are judged."""
WRONG = "#### 0.125 is not it"
"""No answer to any of them, though a number for the judge that looks for one."""

ALSO = {
    "text": "",
    "regex": "`equivalent`: both describe the same lines; `undecided`: too large to tell",
    "number": "`paper`: what stands after `\\n#### ` is equal as a string (1,000 is not 1000)",
    "sql": "`paper`: the same printed rows, where a query that fails prints none; `errors`: queries that did not run",
    "answers": "`paper`: a part of the output, cut at `; `, occurs in the reference; no output counts",
    "label": "`paper`: the output starts with the label, whatever follows",
    "choice": "",
}
"""What a judge reports beside accuracy, exact, prefix, contains and stopped."""

HEAD = """\
# Tasks and how an answer is judged

Written by `python -m jepa_ray.evaluation.tasks_page > docs/tasks.md`; a test compares.

Whatever the task, `accuracy` is the share of correct answers, and beside it stand `exact` (equal to the reference as text), `prefix`
(starts with it), `contains` (has it somewhere) and `stopped` (ended by itself before the token cap). `evaluation.judge: text` makes every
task's accuracy plain equality as text.

Every task is built in (generated from a seed, no network needed), and reads JSON lines of `{"messages": [system, user, assistant]}` as well
as the rows of its public source. `data: {train: paper, test: paper}` stands for the sources on the hub that are named here.
"""


def _row_of_source(task: Task) -> str:
    """The first clause of what the docstring of its `from_row` says of a row."""
    text = " ".join((inspect.getdoc(task.from_row) or "").split())
    found = re.match(r"(?:A row of [^:`]*: )?((?:`[^`]*`|[^`.;:])+)", text)
    return found[1] if found else ""


def shares(task: Task) -> tuple[float, float]:
    """(share of generated examples whose reference is correct, share for which a wrong answer is)."""
    judge = judge_of(task.judge, DataConfig(task=task.name), EvaluationConfig())
    examples = task.generate(EXAMPLES, 0, "test", ())
    golds = [judge(example.code, example.code, example.extra).correct for example in examples]
    wrong = [judge(WRONG, example.code, example.extra).correct for example in examples]
    return sum(golds) / len(golds), sum(wrong) / len(wrong)


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def page() -> str:
    """The whole page. The same text for the same tasks."""
    judged = ["task", "Text -> Code", "correct when", "judge", "also reported", "chance", "references correct", "wrong answer correct"]
    read = ["task", "row of the public source", "train on the hub", "test on the hub", "validation shares with training"]
    first, second = [_cells(judged), _cells(["---"] * len(judged))], [_cells(read), _cells(["---"] * len(read))]
    for name in sorted(DATASETS):
        task = DATASETS[name]
        right, wrong = shares(task)
        chance = f"{task.chance:.0%}" if task.chance else "-"
        judged_by = [f"`{task.judge}`", ALSO[task.judge], chance, f"{right:.0%}", f"{wrong:.0%}"]
        first.append(_cells([f"`{name}`", task.views, task.judged, *judged_by]))
        hub = [f"`{task.hub[split]}`" if split in task.hub else "-" for split in ("train", "test")]
        shared = "no text, no answer" if task.split_by == "answer" else "no text"
        second.append(_cells([f"`{name}`", _row_of_source(task), *hub, shared]))
    proof = f"The last two columns: each task's own judge on {EXAMPLES} generated examples, given their references and given `{WRONG}`."
    return "\n".join([HEAD, *first, "", proof, "", "## Sources", "", *second]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
