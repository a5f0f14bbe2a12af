"""Spider (Yu et al. 2018, arXiv 1809.08887): a question about a database and the SQL query that answers it.

The Text view is `For db_id:[x]`, an empty line and the question, as in the paper; the schema is not shown. The public release has
the queries in `train_spider.json`, and the databases, which the judge needs, in the folder `database`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

from jepa_ray.data.example import Example
from jepa_ray.data.tasks.spider_sample import DATABASES, SYSTEM, generate
from jepa_ray.data.tasks.task import Row, Task

__all__ = ["DATABASES", "SYSTEM", "TASK", "complete", "from_row", "generate"]

_DB_ID = re.compile(r"\s*For db_id:\[([^\]\n]+)\]\s*\S")


def from_row(row: Row, where: str, name: str) -> list[Example]:
    """A row of the public release: `db_id`, `question` and `query`; other keys (parsed queries, tokens) are not needed."""
    values = [row.get(key) for key in ("db_id", "question", "query")]
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"{where}: expected a database's name under db_id, a sentence under question and SQL under query")
    db_id, question, query = (str(value).strip() for value in values)
    return [Example(name, "", f"For db_id:[{db_id}]\n\n{question}", query, {"db_id": db_id})]


def complete(example: Example) -> Example:
    """The example with `extra["db_id"]`, taken from the start of its text."""
    match = _DB_ID.match(example.text)
    if match is None:
        raise ValueError(f"the user's message must be For db_id:[NAME] followed by a question; it begins with {example.text[:60]!r}")
    return replace(example, extra={**example.extra, "db_id": match.group(1).strip()})


TASK = Task(
    name="spider",
    views="For db_id:[x] + question -> SQL",
    system=SYSTEM,
    generate=generate,
    from_row=from_row,
    complete=complete,
    judge="sql",
    judged="both queries, run on the database, return the same rows",
    max_new_tokens=256,
    split_by="answer",
    hub=MappingProxyType({"train": "hub:xlangai/spider:train", "test": "hub:xlangai/spider:validation"}),
)
