"""Own data as it is: any text and the text that should follow, in any of the formats of `data/formats.py`, judged as `data.judge` says.

    judge      correct when                                                  token cap
    exact      the output equals the Code view                               256
    contains   the Code view occurs in the output                            256
    number     same number: the one alone after ####, or else the last one   512
    label      of all labels, it is the longest that the output begins with  16
    regex      as exact; whether both describe the same lines is reported    256
    sql        both queries, run on the database, return the same rows       256

There is no generator: data come from `data.train`. Validation shares no text with training, but may share answers, because answers of own
data may be few. sql needs the database of each row: the column `db_id`, or a text that begins with `For db_id:[NAME]`, as Spider's does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from jepa_ray.config import DataConfig, OwnJudge
from jepa_ray.data import formats
from jepa_ray.data.clusters import CLUSTER, DATABASE
from jepa_ray.data.example import Example
from jepa_ray.data.tasks import spider
from jepa_ray.data.tasks.task import FromRow, Row, Task

NEEDS_DATA = "the task text is your own data and has no built-in generator; give data.train=FILE (and data.test=FILE for the confirmation)"


class Judged(NamedTuple):
    """What `data.judge` decides."""

    judge: str
    """Name in `evaluation.judges.JUDGES`."""
    correct: str
    """When an answer counts as correct, in words."""
    max_new_tokens: int


JUDGED: dict[OwnJudge, Judged] = {
    "exact": Judged("text", "the output equals the Code view as text", 256),
    "contains": Judged("contains", "the Code view occurs in the output", 256),
    "number": Judged("any_number", "the number alone on the line of the last ####, or else the last number, is that of the Code view", 512),
    "label": Judged("label", "the longest training label that the output starts with, as a whole word, is the Code view", 16),
    "regex": Judged("regex", "the text equals the regex", 256),
    "sql": Judged("sql", "both queries, run on the database, return the same rows", 256),
}

_SPIDER = formats.Format(
    "Spider",
    ("db_id", "question", "query"),
    "For db_id:[x] + question -> query",
    lambda row, where, name: spider.from_row(row, where, name)[0],
)


def not_own(key: str, task: str) -> str:
    """Error sentence for a key of own data with another task."""
    kinds = {"judge": "which has its own judge", "cluster": "whose examples are grouped by their database, if they have one"}
    what = kinds.get(key, "whose formats are fixed")
    return f"is for task: text only, not for {task}, {what}; drop it, or set task=text"


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """Raises ValueError: own data are not generated."""
    raise ValueError(NEEDS_DATA)


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """Any row whose columns are those of a format in `data/formats.py`."""
    return own(DataConfig(task="text")).from_row(row, where, name)


def own(data: DataConfig) -> Task:
    """The task of own data with the judge, its token cap and the columns that `data` chooses."""
    judged = JUDGED[data.judge or "exact"]

    def detect(first: Row, where: str) -> tuple[FromRow, str]:
        known, database = ((_SPIDER, *formats.FORMATS), (DATABASE,)) if data.judge == "sql" else (formats.FORMATS, ())
        cluster = () if data.cluster is None else (data.cluster,)
        read, said = formats.detect(first, where, data, known, also_used=(*database, *cluster))
        if data.cluster is not None:
            formats.known_column(first, where, "cluster", data.cluster)
            said += f"; examples of one source have the same {data.cluster}"

        def from_row(row: Row, where: str, name: str) -> list[Example]:
            example = read(row, where, name)
            example = _with_database(example, row, where) if database else example
            if data.cluster is not None:
                source = formats.value(row, data.cluster, where, optional=True).strip()
                if not source:
                    raise ValueError(f"{where}: {data.cluster} is empty; write the row's source, or one of its own if it has none")
                example = replace(example, extra={**example.extra, CLUSTER: source})
            return [example]

        return from_row, said

    def read_alone(row: Row, where: str, name: str) -> list[Example]:
        return detect(row, where)[0](row, where, name)

    return replace(
        TASK, judge=judged.judge, judged=judged.correct, max_new_tokens=judged.max_new_tokens, detect=detect, from_row=read_alone
    )


def _with_database(example: Example, row: Row, where: str) -> Example:
    """The example with `extra["db_id"]`: from the column of that name, or from the start of its text."""
    name = row.get("db_id")
    if isinstance(name, str) and name.strip():
        return replace(example, extra={"db_id": name.strip()})
    try:
        return spider.complete(example)
    except ValueError as error:
        raise ValueError(f"{where}: the row has no column db_id, so {error}") from error


TASK = Task(
    name="text",
    views="your Text -> your Code",
    system="",
    generate=generate,
    from_row=from_row,
    judge="text",
    judged="`data.judge` decides (below); by default, the output equals the Code view",
    max_new_tokens=JUDGED["exact"].max_new_tokens,
    split_by="text",
    built_in=False,
)
