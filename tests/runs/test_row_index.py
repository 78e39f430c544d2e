from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.errors import InputError
from constitutional_ai.records import Completion, Failure, Message, Prompt, Response, Usage
from constitutional_ai.runs.rows import RowIndex, RowWriter, StoredRows

PROMPT = Prompt.of((Message("user", "Hi"),), "helpful", "test")


def written(path: Path, costs: dict[str, int]) -> RowIndex:
    with RowWriter(path, Response) as rows:
        for name, tokens in costs.items():
            rows.append(Response(name, PROMPT, Completion("é" * tokens, "m", "stop", tokens, 1)))
    return RowIndex(path, Response)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 9), max_size=8), st.data())
def test_a_file_is_put_into_any_order_and_counted(
    tmp_path_factory: pytest.TempPathFactory, costs: dict[str, int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("made") / "records.jsonl"
    made = written(path, costs)
    wanted = data.draw(st.permutations([*costs, "never made"]))
    wanted = wanted[: data.draw(st.integers(0, len(wanted)))]
    found = [name for name in wanted if name in costs]
    assert made.tokens == sum(costs.values()) + len(costs)
    assert made.dearest == max((cost + 1 for cost in costs.values()), default=None)
    assert made.sort_file(wanted) == Usage(sum(costs[name] for name in found), len(found))
    assert [row.id for row in StoredRows(path, Response)] == found


def test_a_file_that_is_in_order_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    made = written(path, {"a": 1, "b": 2})
    before = path.stat()
    made.sort_file(["a", "b"])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_of_two_lines_with_one_id_the_last_is_kept_and_both_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    written(path, {"a": 1, "b": 2})
    made = written(path, {"a": 5})
    assert made.tokens == (1 + 1) + (2 + 1) + (5 + 1)
    assert made.sort_file(["a", "b"]) == Usage(5 + 2, 2)
    assert [(row.id, row.completion.prompt_tokens) for row in StoredRows(path, Response)] == [
        ("a", 5),
        ("b", 2),
    ]


@pytest.mark.parametrize("line", ['["a"]', '"a"', "null", "{torn", '{"id": "c"}'])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    written(path, {"a": 1, "b": 2})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"records\.jsonl:3: "):
        RowIndex(path, Response)


def test_stored_rows_are_a_collection_that_may_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [Failure(str(n), "é\n\u2028", "x" * n) for n in range(5)]
    with RowWriter(path, Failure) as writer:
        for row in rows:
            writer.append(row)
    stored = StoredRows(path, Failure)
    assert (len(stored), list(stored), list(stored)) == (5, rows, rows)
    assert rows[3] in stored and "3" not in stored
