"""Spider-like questions about small databases: any number, generated from templates and a seed.

A query is composed of parts that mean the same in English and in SQL, each over a table's own columns and values:

    what          the name and age of singers             SELECT name, age FROM singer
    which         with country Spain and age over 20      WHERE country = 'Spain' AND age > 20
                  of singers with country Spain           JOIN singer AS T2 ON T1.singer_id = T2.id WHERE T2.country = 'Spain'
    in what order by descending age, top 3                ORDER BY age DESC LIMIT 3

The conditions of a query are true of one row, its witness, so that most queries return rows. Deliberate differences from the real
data: the English names columns literally, the vocabulary is small, and no question needs more than one join.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from jepa_ray.data.example import Example
from jepa_ray.streams import stream

SYSTEM = "Convert natural language to SQL."

# Table, its columns, then its rows, separated by `;`. A column `x_id` refers to the `id` of table x, which counts its rows from 1.
SCHEMAS: dict[str, str] = {
    "music": """
        singer: name country age fame
        Ann Spain 24 7; Bob Peru 31 12; Cleo Spain 45 30; Dan Egypt 19 4; Eva Peru 52 41; Finn Japan 38 18
        Gina Japan 27 9; Hugo Spain 63 55; Iris Egypt 34 22; Jack Peru 41 26; Kim Japan 22 3; Leo Spain 29 15

        song: title genre year length singer_id
        Rain rock 1999 210 1; Fire pop 2004 185 2; Moon jazz 1987 320 3; Road rock 2011 240 5; Lake pop 2015 199 6
        Wind jazz 1992 275 3; Snow pop 2008 172 8; Gold rock 1979 301 8; Sand jazz 2018 260 9; Star pop 2020 190 6
        Leaf rock 2001 233 5; Wave pop 1995 178 10; Bell jazz 1983 345 3; Echo rock 2013 222 11
    """,
    "pets": """
        owner: name city age income
        Ann Rome 44 52; Bob Oslo 23 31; Cleo Lima 61 47; Dan Rome 37 80; Eva Oslo 50 66; Finn Cairo 29 25
        Gina Lima 33 39; Hugo Cairo 68 18; Iris Rome 26 44; Jack Oslo 41 71

        pet: name kind color age weight owner_id
        Rex dog brown 5 30.5 1; Mia cat white 3 4.2 2; Tom cat black 9 6.1 2; Bo dog white 2 12.4 4; Coco bird green 7 0.4 5
        Lily cat brown 12 5.3 7; Max dog black 8 24.7 4; Pip bird white 1 0.3 9; Zoe dog brown 11 18.9 1; Kiki bird green 4 0.6 5
        Luna cat black 6 3.8 10; Otto dog white 10 33.2 4; Nina rabbit brown 13 2.1 8; Fred rabbit black 14 1.7 8
    """,
    "shop": """
        item: name color price stock
        lamp red 25 14; desk brown 180 3; chair white 60 22; sofa green 420 2; shelf white 95 8; clock red 33 17
        vase blue 18 30; rug green 140 6; bed brown 510 4; mirror blue 75 11; stool red 40 19

        client: name city age points
        Ann Rome 35 120; Bob Oslo 58 45; Cleo Lima 21 300; Dan Cairo 47 80; Eva Rome 64 210; Finn Oslo 30 15
        Gina Cairo 26 165; Hugo Lima 52 95

        sale: month units discount item_id client_id
        May 3 5 1 1; June 1 0 2 2; July 4 10 3 3; May 2 15 3 4; June 6 20 7 5; July 5 12 6 1; May 1 8 9 2; August 8 25 7 3
        August 2 3 10 5; June 3 18 11 7; July 1 30 4 7; August 7 22 1 4; May 10 9 7 5; June 9 14 11 1
    """,
    "school": """
        teacher: name subject age salary
        Ann math 39 48; Bob art 28 35; Cleo music 55 60; Dan math 61 72; Eva history 44 51; Finn art 33 40
        Gina history 50 57; Hugo music 26 33

        student: name city grade age score teacher_id
        Kim Rome 1 7 62 1; Leo Oslo 2 8 75 1; Mary Lima 3 9 88 2; Ned Rome 1 6 54 3; Olga Cairo 4 10 93 3; Paul Oslo 2 11 47 4
        Rita Lima 5 12 81 4; Sam Cairo 3 13 70 4; Tina Rome 4 14 66 5; Uma Oslo 5 15 97 6; Vic Lima 1 16 59 6; Wes Cairo 2 17 84 1
        Xena Rome 3 18 78 8; Yuri Oslo 4 19 41 8; Zack Lima 5 20 90 2
    """,
}
PATIENCE = 20
"""Draws per requested pair after which the templates count as exhausted."""

OPENINGS = ("Show {}.", "List {}.", "Find {}.", "Give {}.", "What is {}?")
AGGREGATES = {"average": "avg", "highest": "max", "lowest": "min", "total": "sum"}
COMPARISONS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "": ("=", operator.eq),
    " over": (">", operator.gt),
    " under": ("<", operator.lt),
    " at least": (">=", operator.ge),
    " at most": ("<=", operator.le),
}
Value = int | float | str
Row = Mapping[str, Value]
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """One table; every value of a column is of the same kind."""

    name: str
    columns: tuple[str, ...]
    """Without `id` and the keys."""
    keys: tuple[str, ...]
    """Columns that refer to the table named before `_id`, such as `singer_id`."""
    rows: tuple[Row, ...]

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if not isinstance(self.rows[0][column], str))

    @property
    def labels(self) -> tuple[str, ...]:
        """Text columns in which values repeat: candidates for GROUP BY."""
        return tuple(c for c in self.columns if c not in self.numbers and len({row[c] for row in self.rows}) < len(self.rows))

    @property
    def script(self) -> str:
        kinds = {int: "INTEGER", float: "REAL", str: "TEXT"}
        columns = [f"{column} {kinds[type(value)]}" for column, value in self.rows[0].items() if column != "id"]
        references = [f"FOREIGN KEY ({key}) REFERENCES {key.removesuffix('_id')} (id)" for key in self.keys]
        lines = [f"CREATE TABLE {self.name} ({', '.join(['id INTEGER PRIMARY KEY', *columns, *references])});"]
        lines += [f"INSERT INTO {self.name} VALUES ({', '.join(map(quoted, row.values()))});" for row in self.rows]
        return "\n".join(lines)


def quoted(value: Value) -> str:
    """A value as SQL. None of our values contains a quote."""
    return f"'{value}'" if isinstance(value, str) else str(value)


def _value(word: str) -> Value:
    if word.isdigit():
        return int(word)
    return float(word) if word.replace(".", "").isdigit() else word


def _table(text: str) -> Table:
    head, *lines = (line.strip() for line in text.strip().splitlines())
    name, _, names = head.partition(": ")
    columns = names.split()
    rows: list[dict[str, Value]] = []
    for number, line in enumerate("; ".join(lines).split(";")):
        values = [_value(word) for word in line.split()]
        rows.append({"id": number + 1, **dict(zip(columns, values, strict=True))})
    keys = tuple(column for column in columns if column.endswith("_id"))
    return Table(name, tuple(column for column in columns if column not in keys), keys, tuple(rows))


SCHEMA = MappingProxyType({db: {t.name: t for t in map(_table, text.split("\n\n"))} for db, text in SCHEMAS.items()})
DATABASES: Mapping[str, str] = MappingProxyType({db: "\n".join(t.script for t in tables.values()) for db, tables in SCHEMA.items()})
"""db_id -> the SQL script that creates the database."""


class _Dice:
    """Draws from one stream."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._rng.random() * len(options))]

    def some(self, options: Sequence[T], number: int) -> list[T]:
        """Up to `number` distinct options, in random order."""
        left = list(options)
        return [left.pop(int(self._rng.random() * len(left))) for _ in range(min(number, len(left)))]


def generate(n: int, seed: int, split: str = "train", exclude: Iterable[Example] = ()) -> list[Example]:
    """`n` examples with distinct texts and distinct queries, none of which is in `exclude`; deterministic.

    Each split of a seed has its own stream; pass one split as `exclude` of the next to keep them disjoint. A shorter list is a
    prefix of a longer one. Raises ValueError if the templates yield fewer than `n` such pairs.
    """
    dice = _Dice(stream(seed, "spider sample", split))
    texts, codes = set(), set()
    for other in exclude:
        texts.add(other.text)
        codes.add(other.code)
    examples: list[Example] = []
    for _ in range(PATIENCE * n):
        if len(examples) == n:
            break
        db_id = dice.pick(tuple(SCHEMA))
        text, code = _question(SCHEMA[db_id], dice)
        text = f"For db_id:[{db_id}]\n\n{text}"
        if text not in texts and code not in codes:
            texts.add(text)
            codes.add(code)
            examples.append(Example(f"spider-{split}:{len(examples) + 1}", SYSTEM, text, code, {"db_id": db_id}))
    if len(examples) < n:
        raise ValueError(
            f"the built-in spider templates gave {len(examples):,} of the {n:,} distinct pairs of the {split} split "
            f"in {PATIENCE * n:,} draws: lower data.num_train, data.num_val or data.num_test, or give a file in data.train"
        )
    return examples


def _question(tables: Mapping[str, Table], dice: _Dice) -> tuple[str, str]:
    """One question about one database, and its query."""
    table = dice.pick(tuple(tables.values()))
    key = dice.pick(table.keys) if table.keys and dice.chance(0.4) else None
    witness = dice.pick(table.rows)
    things, alias = f"{table.name}s", "T1." if key else ""
    source = table.name
    if key:
        parent = tables[key.removesuffix("_id")]
        source = f"{table.name} AS T1 JOIN {parent.name} AS T2 ON T1.{key} = T2.id"

    if (table.labels or key) and dice.chance(0.2):
        return _grouped(table, parent if key else None, source, witness, dice)
    kind = dice.pick(("columns", "columns", "columns", "count", "aggregate"))
    if kind == "columns":
        used = dice.some(table.columns, dice.pick((1, 1, 2)))
        different = len(used) == 1 and used[0] in table.labels and dice.chance(0.3)
        what = f"the {'different ' if different else ''}{' and '.join(used)} of {things}"
        selected = ("DISTINCT " if different else "") + ", ".join(alias + column for column in used)
    elif kind == "count":
        used, what, selected = [], f"the number of {things}", "count(*)"
    else:
        used, name = dice.some(table.numbers, 1), dice.pick(tuple(AGGREGATES))
        what, selected = f"the {name} {used[0]} of {things}", f"{AGGREGATES[name]}({alias}{used[0]})"

    free = [column for column in table.columns if column not in used]
    if key:
        which, where = _conditions(table, free, witness, dice, alias, dice.pick((0, 0, 1)))
        parent_witness = parent.rows[int(witness[key]) - 1]
        of_parent, where_parent = _conditions(parent, parent.columns, parent_witness, dice, "T2.", 1)
        which, where = f"{which} of {parent.name}s{of_parent}", where + where_parent
    else:
        which, where = _which(tables, table, free, witness, dice)
    text, code = what + which, f"SELECT {selected} FROM {source}" + _where(where)
    if kind == "columns" and dice.chance(0.35):
        column, descending, limit = dice.pick(table.numbers), dice.chance(0.5), dice.pick((0, 1, 2, 3))
        text += f" by {'descending ' if descending else ''}{column}" + (f", first {limit}" if limit else "")
        code += f" ORDER BY {alias}{column}{' DESC' if descending else ''}" + (f" LIMIT {limit}" if limit else "")
    if kind == "count" and dice.chance(0.5):
        return f"How many {text.removeprefix('the number of ')} are there?", code
    return dice.pick(OPENINGS).format(text), code


def _grouped(table: Table, parent: Table | None, source: str, witness: Row, dice: _Dice) -> tuple[str, str]:
    """One value per group of rows, by a column of the table itself or of its parent; or the most or least common group."""
    by = dice.pick(parent.labels or parent.columns if parent else table.labels)
    alias, group = ("T1.", f"T2.{by}") if parent else ("", by)
    which, where = _conditions(table, [c for c in table.columns if parent or c != by], witness, dice, alias, dice.pick((0, 1)))
    things = f"{table.name}s{which}"
    grouped = f"FROM {source}{_where(where)} GROUP BY {group}"
    each = f"{by} of {parent.name}s" if parent else by
    draw = dice.pick(("count", "count", "aggregate", "common"))
    if draw == "common":
        least = dice.chance(0.5)
        text = f"the {'least' if least else 'most'} common {each} {'over' if parent else 'of'} {things}"
        return dice.pick(OPENINGS).format(text), f"SELECT {group} {grouped} ORDER BY count(*){'' if least else ' DESC'} LIMIT 1"
    if draw == "count":
        text, value = f"the number of {things}", "count(*)"
    else:
        name, column = dice.pick(tuple(AGGREGATES)), dice.pick(table.numbers)
        text, value = f"the {name} {column} of {things}", f"{AGGREGATES[name]}({alias}{column})"
    return dice.pick(OPENINGS).format(f"{text} for each {each}"), f"SELECT {group}, {value} {grouped}"


def _which(tables: Mapping[str, Table], table: Table, free: Sequence[str], witness: Row, dice: _Dice) -> tuple[str, list[str]]:
    """Conditions on a table without a join: none, on some columns, on an average, or rows that nothing refers to."""
    draw = dice.pick(("none", "one", "one", "one", "two", "two", "either", "average", "alone"))
    children = [other for other in tables.values() if f"{table.name}_id" in other.keys]
    if draw == "alone" and children:
        child = dice.pick(children)
        return f" without {child.name}s", [f"id NOT IN (SELECT {table.name}_id FROM {child.name})"]
    if draw == "average":
        column, side, sign = dice.pick(table.numbers), *dice.pick((("over", ">"), ("under", "<")))
        return f" with {column} {side} average", [f"{column} {sign} (SELECT avg({column}) FROM {table.name})"]
    if draw == "either" and len(free) > 1:
        (text, where), (other, other_where) = (
            _conditions(table, [column], row, dice, "", 1)
            for column, row in zip(dice.some(free, 2), (witness, dice.pick(table.rows)), strict=True)
        )
        return f"{text} or {other.removeprefix(' with ')}", [f"{where[0]} OR {other_where[0]}"]
    return _conditions(table, free, witness, dice, "", {"none": 0, "two": 2}.get(draw, 1))


def _conditions(table: Table, free: Sequence[str], witness: Row, dice: _Dice, alias: str, number: int) -> tuple[str, list[str]]:
    """`number` conditions on different columns of `free`, all true of `witness`; `alias` precedes columns in SQL."""
    texts, where = [], []
    for column in dice.some(free, number):
        value = witness[column]
        values = sorted({row[column] for row in table.rows}, key=str)
        if column in table.numbers:
            options = [(c, other) for c in COMPARISONS for other in values if COMPARISONS[c][1](value, other)]
            comparison, bound = dice.pick(options)
            texts.append(f"{column}{comparison} {bound}")
            where.append(f"{alias}{column} {COMPARISONS[comparison][0]} {bound}")
        elif column in table.labels and dice.chance(0.25):
            other = dice.pick([other for other in values if other != value])
            texts.append(f"{column} not {other}")
            where.append(f"{alias}{column} != {quoted(other)}")
        elif column not in table.labels and dice.chance(0.5):
            texts.append(f"{column} starting with {str(value)[0]}")
            where.append(f"{alias}{column} LIKE '{str(value)[0]}%'")
        else:
            texts.append(f"{column} {value}")
            where.append(f"{alias}{column} = {quoted(value)}")
    return (f" with {' and '.join(texts)}" if texts else ""), where


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
