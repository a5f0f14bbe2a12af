"""The SQL judge: which rows count as the same, what is an error, and what a query cannot do."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from jepa_ray.config import DataConfig, EvaluationConfig
from jepa_ray.data.example import Example
from jepa_ray.data.tasks.spider import generate
from jepa_ray.evaluation.metrics import Score
from jepa_ray.evaluation.sql import SQLJudge, has_order, make_judge, missing_databases, printed, same_rows, statements

SCRIPT = """
CREATE TABLE t (a INTEGER, b TEXT, c REAL, d BLOB);
INSERT INTO t VALUES (1, 'x', 1.0, x'00ff'), (2, 'y', NULL, NULL), (2, 'y', 2.5, x'41'), (3, '1', 3.0, NULL);
CREATE TABLE bad (s TEXT);
INSERT INTO bad VALUES (CAST(x'ff41' AS TEXT));
"""
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as in the public release, with one database, `tiny`; the folder's name needs quoting in a URI."""
    path = tmp_path / "data base?#%41" / "tiny" / "tiny.sqlite"
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.executescript(SCRIPT)
    connection.close()
    return path.parents[1]


@pytest.fixture
def data(folder: Path) -> DataConfig:
    return DataConfig(task="spider", train="some.jsonl", databases=str(folder))


def judge(data: DataConfig, prediction: str, reference: str, *, db_id: str = "tiny", strict: bool = False) -> Score:
    return make_judge(data, EvaluationConfig(sql_strict=strict), seconds=0.2, max_rows=100)(prediction, reference, {"db_id": db_id})


def correct(data: DataConfig, prediction: str, reference: str, strict: bool = False) -> bool:
    score = judge(data, prediction, reference, strict=strict)
    assert score.error is None
    return score.correct


def test_the_query_counts_and_not_its_text(data: DataConfig) -> None:
    score = judge(data, "select T.b from t as T where T.a=1;", "SELECT b FROM t WHERE a = 1")
    assert (score.correct, score.exact, score.prefix_correct, score.contains, score.paper_correct) == (True, False, False, False, True)
    score = judge(data, "SELECT b FROM t WHERE a = 1 AND c > 5", "SELECT b FROM t WHERE a = 1")
    assert (score.correct, score.exact, score.prefix_correct, score.contains, score.paper_correct) == (False, False, True, True, False)
    assert score.error is None


def test_a_crash_is_not_an_empty_result(data: DataConfig) -> None:
    """The reference compares the output of sqlite3, and a crash prints nothing, so it considers the two equal."""
    score = judge(data, "SELECT missing FROM t", "SELECT a FROM t WHERE a > 9")
    assert (score.correct, score.error, score.paper_correct) == (False, "no such column: missing", True)
    score = judge(data, "SELECT b FROM t WHERE a > 99", "SELECT a FROM t WHERE a > 9")
    assert (score.correct, score.error, score.paper_correct) == (True, None, True)
    assert judge(data, "SELECT missing FROM t", "SELECT a FROM t").paper_correct is False


def test_an_error_of_the_reference_is_said_so(data: DataConfig) -> None:
    score = judge(data, "SELECT a FROM t WHERE a > 9", "SELECT a FROM nowhere")
    assert (score.correct, score.error, score.paper_correct) == (False, "gold: no such table: nowhere", True)
    same = judge(data, "SELECT a FROM nowhere", "SELECT a FROM nowhere")
    assert (same.correct, same.exact, same.error) == (False, True, "gold: no such table: nowhere")


@pytest.mark.parametrize(
    ("prediction", "reference", "plain", "strict"),
    [
        ("SELECT a FROM t ORDER BY a DESC", "SELECT a FROM t", True, False),
        ("SELECT a FROM t ORDER BY a DESC", "SELECT a FROM t ORDER BY a", False, False),
        ("SELECT a FROM t ORDER BY +a", "SELECT a FROM t ORDER BY a", True, True),
        ("SELECT a FROM t ORDER BY a DESC", "SELECT a FROM (SELECT a FROM t ORDER BY a)", True, False),
        ("SELECT DISTINCT a FROM t", "SELECT a FROM t", False, False),
        ("SELECT DISTINCT a FROM t", "SELECT a FROM t GROUP BY a", True, True),
        ("SELECT a, a FROM t", "SELECT a FROM t", False, False),
        ("SELECT b, a FROM t", "SELECT a, b FROM t", False, False),
        ("SELECT a AS z FROM t", "SELECT a FROM t", True, True),
        ("SELECT NULL", "SELECT c FROM t WHERE b = 'y' AND c IS NULL", True, True),
        ("SELECT ''", "SELECT NULL", False, False),
        ("SELECT 0", "SELECT NULL", False, False),
        ("SELECT 1", "SELECT c FROM t WHERE a = 1", True, True),
        ("SELECT '1'", "SELECT 1", False, False),
        ("SELECT b FROM t WHERE a = 3", "SELECT 1", False, False),
        ("SELECT x'41'", "SELECT d FROM t WHERE c = 2.5", True, True),
        ("SELECT 'A'", "SELECT d FROM t WHERE c = 2.5", False, False),
        ("SELECT 0.1 + 0.2 + 0.3", "SELECT 0.3 + 0.2 + 0.1", True, True),
        ("SELECT 0.30001", "SELECT 0.3", False, False),
        ("SELECT 9007199254740993", "SELECT 9007199254740992", False, False),
        ("SELECT 1234567890123", "SELECT 1234567890123.0", True, True),
        ('SELECT a FROM t WHERE b = "x"', "SELECT a FROM t WHERE b = 'x'", True, True),
        ("WITH s AS (SELECT a FROM t) SELECT max(a) FROM s", "SELECT max(a) FROM t", True, True),
    ],
)
def test_what_are_the_same_rows(data: DataConfig, prediction: str, reference: str, plain: bool, strict: bool) -> None:
    assert correct(data, prediction, reference) is plain
    assert correct(data, prediction, reference, strict=True) is strict


def test_text_that_is_not_utf8(data: DataConfig) -> None:
    """The reference decodes strictly, and output that it cannot decode is wrong."""
    score = judge(data, "SELECT s FROM bad WHERE 1", "SELECT s FROM bad")
    assert (score.correct, score.error, score.paper_correct) == (True, None, False)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n -- why\n /* not */ by a", True),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM t) ORDER BY (a)", True),
        ("SELECT a FROM t UNION SELECT a FROM t ORDER BY 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 1)", False),
        ("WITH s AS (SELECT a FROM t ORDER BY a) SELECT a FROM s", False),
        ("SELECT 'x ORDER BY a' FROM t", False),
        ("SELECT 'it''s ORDER BY a' FROM t", False),
        ('SELECT "(" FROM t ORDER BY a', True),
        ("SELECT ')' FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT [order by], `order by` FROM t", False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT a FROM t /* ORDER BY a", False),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False),
        ("SELECT orders FROM t GROUP BY a", False),
    ],
)
def test_where_an_order_is_asked_for(sql: str, expected: bool) -> None:
    assert has_order(sql) is expected


def test_statements() -> None:
    assert statements("SELECT ';' ; ; -- end; of it\n") == ["SELECT ';' "]
    assert statements("SELECT 1; DROP TABLE t") == ["SELECT 1", " DROP TABLE t"]
    assert statements(" ; /* nothing; here") == statements("") == []
    assert statements("SELECT 'open; DROP") == ["SELECT 'open; DROP"]


@pytest.mark.parametrize(
    ("prediction", "error"),
    [
        ("SELECT a FROM t; DROP TABLE t", "expected one query, found 2 statements"),
        ("SELECT a FROM t; SELECT a FROM t", "expected one query, found 2 statements"),
        ("", "expected one query, found 0 statements"),
        ("DROP TABLE t", "expected a query that begins with SELECT or WITH, not 'DROP'"),
        ("DELETE FROM t", "expected a query that begins with SELECT or WITH, not 'DELETE'"),
        ("ATTACH 'OTHER' AS o", "expected a query that begins with SELECT or WITH, not 'ATTACH'"),
        ("PRAGMA writable_schema = 1", "expected a query that begins with SELECT or WITH, not 'PRAGMA'"),
        ("EXPLAIN SELECT a FROM t", "expected a query that begins with SELECT or WITH, not 'EXPLAIN'"),
        ("VACUUM INTO 'OTHER'", "expected a query that begins with SELECT or WITH, not 'VACUUM'"),
        ("WITH s AS (SELECT 1) DELETE FROM t", "not authorized"),
        ("WITH s AS (SELECT 1) INSERT INTO t (a) SELECT 5", "not authorized"),
        ("SELECT load_extension('OTHER')", "not authorized"),
        ("SELECT name FROM pragma_database_list", "not authorized"),
        ("SELECT a FROM t WHERE b = ?", "ncorrect number of bindings"),
        ("SELECT '\0'", "null character"),
        ("SELECT '\ud800'", "surrogates not allowed"),
        ("SELECT length(zeroblob(500000000))", "too big"),
        ("I can't say.", "expected a query that begins with SELECT or WITH, not 'I'"),
    ],
)
def test_nothing_but_one_reading_query_is_run(data: DataConfig, folder: Path, tmp_path: Path, prediction: str, error: str) -> None:
    file = folder / "tiny" / "tiny.sqlite"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    other = tmp_path / "other.sqlite"
    score = judge(data, prediction.replace("OTHER", str(other)), "SELECT a FROM t WHERE a > 9")
    assert not score.correct
    assert score.error is not None and error in score.error
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    assert not other.exists()
    assert [path.name for path in file.parent.iterdir()] == ["tiny.sqlite"]


def test_each_lock_holds_without_the_others(data: DataConfig, folder: Path) -> None:
    """The barriers after the check of the first word, one by one: the authorizer, query_only and the read-only file."""
    made = make_judge(data, EvaluationConfig())
    assert isinstance(made, SQLJudge)
    connection = made._connect("tiny")
    for statement in ("DELETE FROM t", "ATTACH ':memory:' AS o", "PRAGMA query_only = OFF", "CREATE TEMP TABLE u (a)", "BEGIN"):
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            connection.execute(statement)
    connection.set_authorizer(None)
    with pytest.raises(sqlite3.OperationalError, match="too many attached databases - max 0"):
        connection.execute("ATTACH ':memory:' AS o")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM t")
    connection.execute("PRAGMA query_only = OFF")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM t")


def test_the_built_in_databases_are_as_safe() -> None:
    made = make_judge(DataConfig(task="spider"), EvaluationConfig())
    count, extra = "SELECT count(*) FROM singer", {"db_id": "music"}
    assert made("SELECT count(id) FROM singer", count, extra).correct
    assert not made("SELECT 12; DELETE FROM singer", count, extra).correct
    assert made("WITH s AS (SELECT 1) DELETE FROM singer", count, extra).error == "not authorized"
    assert made("SELECT 12", count, extra).correct


def test_an_endless_query_is_cut_off(data: DataConfig) -> None:
    start = time.monotonic()
    score = judge(data, ENDLESS + "count(*) FROM n", "SELECT a FROM t WHERE a > 9")
    assert time.monotonic() - start < 5
    assert (score.correct, score.error, score.paper_correct) == (False, "took more than 0.2 s", False)
    assert judge(data, "SELECT 1", ENDLESS + "count(*) FROM n").error == "gold: took more than 0.2 s"


def test_after_a_cut_the_connection_still_works(data: DataConfig) -> None:
    made = make_judge(data, EvaluationConfig(), seconds=0.1)
    extra = {"db_id": "tiny"}
    assert made(ENDLESS + "sum(i) FROM n", "SELECT a FROM t", extra).error == "took more than 0.1 s"
    assert made("SELECT a FROM t WHERE 1", "SELECT a FROM t", extra).correct


def test_too_many_rows(data: DataConfig) -> None:
    """More rows than allowed are an error, unless the reference has as many."""
    score = judge(data, ENDLESS + "i FROM n", "SELECT a FROM t")
    assert (score.correct, score.error, score.paper_correct) == (False, "more than 100 rows", False)
    long = ENDLESS + "i FROM n LIMIT 300"
    assert correct(data, long + " ", long.replace("i FROM", "1 * i FROM"))
    assert judge(data, ENDLESS + "i FROM n LIMIT 301", long).error == "more than 300 rows"


def test_too_much_text(data: DataConfig) -> None:
    made = make_judge(data, EvaluationConfig())
    score = made(ENDLESS + "hex(zeroblob(100000)) FROM n", "SELECT a FROM t", {"db_id": "tiny"})
    assert score.error == "more than 10,000,000 characters of text"


def test_the_papers_rule_runs_what_the_command_line_would(data: DataConfig) -> None:
    """The output of all statements up to the first failure counts, which favours a model that never learnt to stop."""
    reference = "SELECT a FROM t WHERE a < 3"
    score = judge(data, reference + "; and so on", reference)
    assert (score.correct, score.paper_correct) == (False, True)
    assert not judge(data, reference + "; SELECT 1", reference).paper_correct
    assert judge(data, "SELECT a FROM t WHERE a = 1; SELECT a FROM t WHERE a = 2", reference).paper_correct
    # The command line prints 1 and '1' the same way, but not 1 and 1.0; order always counts.
    assert judge(data, "SELECT '1'", "SELECT 1").paper_correct
    assert not judge(data, "SELECT 1.0", "SELECT 1").paper_correct
    assert not judge(data, "SELECT a FROM t ORDER BY a DESC", "SELECT a FROM t").paper_correct
    assert judge(data, "", "SELECT a FROM t WHERE a > 9").paper_correct


def test_rows_as_printed_by_hand() -> None:
    assert printed([]) == ""
    assert printed([(1, None, "x"), (2.0, b"A\0B", "")]) == "1||x\n2.0|A|\n"
    assert printed([(1e20, 1e-5, 1.5e300, float("inf"), -0.5)]) == "1.0e+20|1.0e-05|1.5e+300|Inf|-0.5\n"
    assert printed([(b"\xff",)]) is None


def test_rows_are_printed_as_the_command_line_prints_them(folder: Path) -> None:
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("needs the sqlite3 command line")
    values = ["NULL", "1", "-7", "0.5", "1e15", "1e14", "123456.789", "1e-4", "1e-5", "9e999", "-9e999", "2.0", "1e100"]
    values += ["'a|b'", "''", "x'4142'"]
    sql = f"SELECT {', '.join(values)} UNION ALL SELECT {', '.join(reversed(values))}"
    file = folder / "tiny" / "tiny.sqlite"
    shown = subprocess.run([program, str(file), sql], capture_output=True, text=True, check=True).stdout
    assert printed(sqlite3.connect(":memory:").execute(sql).fetchall()) == shown
    shown = subprocess.run([program, str(file), "SELECT 1; SELECT 2; SELECT missing; SELECT 3"], capture_output=True, text=True).stdout
    assert shown == "1\n2\n"


def test_same_rows_is_symmetric_and_counts() -> None:
    twice, once = [(1,), (1,), (2,)], [(1,), (2,), (2,)]
    assert not same_rows(twice, once, in_order=False) and not same_rows(once, twice, in_order=False)
    assert same_rows(twice, twice[::-1], in_order=False) and not same_rows(twice, twice[::-1], in_order=True)


def test_a_database_that_is_not_there(data: DataConfig, folder: Path) -> None:
    (folder / "pointer").mkdir()
    (folder / "pointer" / "pointer.sqlite").write_text("version https://git-lfs.github.com/spec/v1\n")
    for db_id in ("other", "pointer", "../tiny", ""):
        score = judge(data, "SELECT 1", "SELECT 1", db_id=db_id)
        assert (score.correct, score.exact, score.paper_correct) == (False, True, False)
        assert score.error is not None and score.error.startswith(f"gold: no SQLite database {db_id!r} in data.databases=")
    assert [path.name for path in folder.iterdir()].count("other") == 0


def example(db_id: str) -> Example:
    return Example(f"x:{db_id}", "", f"For db_id:[{db_id}]\n\nb", "SELECT 1", {"db_id": db_id})


def test_missing_databases_are_found_before_anything_runs(data: DataConfig) -> None:
    assert missing_databases([example("tiny")] * 3, data) == []
    (sentence,) = missing_databases([example("tiny"), *(example(f"m{i}") for i in range(7))], data)
    assert sentence.startswith(
        f"7 of the 8 databases that the examples need are missing from data.databases={data.databases}: m0, m1, m2, m3, m4, ...; "
    )
    assert "set data.databases=FOLDER to the folder `database`" in sentence and "base.evaluation.judge=text" in sentence
    built_in = DataConfig(task="spider")
    assert missing_databases(generate(100, 0), built_in) == []
    assert (
        "1 of the 1 databases that the examples need are missing from the built-in databases: tiny;"
        in missing_databases([example("tiny")], built_in)[0]
    )


def test_files_need_databases() -> None:
    remedy = r"set data\.databases=FOLDER .* or base\.evaluation\.judge=text"
    for call in (lambda data: make_judge(data, EvaluationConfig()), lambda data: missing_databases([], data)):
        with pytest.raises(ValueError, match=rf"data\.train=some\.jsonl.* data\.databases is not given: {remedy}"):
            call(DataConfig(task="spider", train="some.jsonl"))
        with pytest.raises(ValueError, match=rf"data\.databases=nowhere is not a folder: {remedy}"):
            call(DataConfig(task="spider", train="some.jsonl", databases="nowhere"))


def test_threads_share_a_judge(data: DataConfig) -> None:
    made = make_judge(data, EvaluationConfig())
    wrong: list[object] = []

    def work(number: int) -> None:
        for i in range(100):
            score = made(f"SELECT {number}, {i}, count(a) FROM t", f"SELECT {number}, {i}, 4", {"db_id": "tiny"})
            if not score.correct:
                wrong.append(score)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_reference_runs_once(data: DataConfig) -> None:
    """A reference whose result changes from run to run shows that it runs only once: random() against itself."""
    made, extra = make_judge(data, EvaluationConfig()), {"db_id": "tiny"}
    assert made("SELECT random()", "SELECT random()", extra).correct
    assert isinstance(made, SQLJudge) and len(made._references) == 1
    before = made._references["tiny", "SELECT random()"]
    assert not made("SELECT random() ;", "SELECT random()", extra).correct
    assert made._references["tiny", "SELECT random()"] is before


def test_two_thousand_judgements_take_a_moment() -> None:
    """0.3 s on a busy core; the limit is loose, so that only opening a database for each of them fails."""
    examples = generate(1000, 0)
    made = make_judge(DataConfig(task="spider"), EvaluationConfig())
    start = time.process_time()
    for one, other in zip(examples, examples[1:] + examples[:1], strict=True):
        assert made(one.code, one.code, one.extra).correct
        assert not made("SELECT 'no such', 'row'", one.code, one.extra).correct
        made(other.code, one.code, one.extra)
    assert time.process_time() - start < 5
