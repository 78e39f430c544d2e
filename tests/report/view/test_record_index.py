from __future__ import annotations

import os
from pathlib import Path

import pytest

from constitutional_ai.records import Response
from constitutional_ai.report.view.record_index import RecordIndex
from constitutional_ai.runs.rows import RowWriter, write_rows
from constitutional_ai.runs.run import Run
from tests.report.conftest import RED, completion, prompt

RESPONSES = "01-responses/records.jsonl"


def response(text: str) -> Response:
    asked = prompt(text)
    return Response(f"{asked.id}.0", asked, completion(text))


@pytest.fixture
def file(empty_run: Run) -> Path:
    path = empty_run.folder / RESPONSES
    path.parent.mkdir()
    return path


def texts(index: RecordIndex) -> list[str]:
    return [index.record(entry).text for entry in index]


def test_what_is_appended_is_read_and_nothing_is_read_twice(empty_run: Run, file: Path) -> None:
    index = RecordIndex(empty_run)
    assert len(index) == 0 and index.faults == []
    with RowWriter(file, Response) as rows:
        rows.append(response("one"))
        index.refresh()
        first = next(iter(index))
        rows.append(response("two"))
        index.refresh()
    assert texts(index) == ["one", "two"] and next(iter(index)) is first
    before = index.version
    index.refresh()
    assert index.version == before


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(empty_run: Run, file: Path) -> None:
    write_rows(file, Response, [response("one"), response("two")])
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    index = RecordIndex(empty_run)
    assert texts(index) == ["one"] and index.faults == []
    with file.open("ab") as stream:
        stream.write(whole[-9:])
    index.refresh()
    assert texts(index) == ["one", "two"]


def test_a_file_that_is_sorted_or_cut_or_deleted_is_read_anew(empty_run: Run, file: Path) -> None:
    write_rows(file, Response, [response("one"), response("two")])
    index = RecordIndex(empty_run)
    write_rows(
        file, Response, [response("two"), response("one"), response("three")]
    )  # replaced, as at a stage's end
    index.refresh()
    assert texts(index) == ["two", "one", "three"]
    os.truncate(file, file.read_bytes().index(b"\n") + 1)
    index.refresh()
    assert texts(index) == ["two"]
    file.unlink()
    index.refresh()
    assert len(index) == 0 and index.by_prompt == {}


def test_a_damaged_line_is_one_sentence_and_what_is_before_it_is_shown(empty_run: Run, file: Path) -> None:
    write_rows(file, Response, [response("one"), response("two")])
    first, _ = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b'{"id": 3}\n')
    index = RecordIndex(empty_run)
    assert texts(index) == ["one"]
    (fault,) = index.faults
    assert fault.startswith(f"{file}:2: ") and fault.endswith("The records from this line on are not shown.")


def test_a_changed_file_of_a_complete_stage_is_named(run: Run) -> None:
    stage = run.stage("08-evaluation")
    path = stage / "stage.json"
    path.write_text(path.read_text().replace('"output": ""', '"output": "0123456789abcdef"'))
    (fault,) = RecordIndex(run).faults
    assert "was changed after 08-evaluation was complete" in fault


def test_a_failure_is_with_the_prompt_that_it_is_of(run: Run) -> None:
    name = f"{RED[0].id}.1"
    with (run.folder / "02-revisions/failures.jsonl").open("w") as stream:
        stream.write(f'{{"id": "{name}", "error": "EmptyAnswer", "message": "m"}}\n')
    index = RecordIndex(run)
    assert name in {entry.id for entry in index.by_prompt[RED[0].id]}
    assert [entry.id for entry in index.by_prompt["f"]] == ["f"]


def test_the_index_is_no_more_than_an_index(empty_run: Run, file: Path) -> None:
    """Texts are a thousand times as long as what is kept of them."""
    import tracemalloc

    asked = prompt("short", tags=("a",))
    write_rows(file, Response, [Response(f"{n}", asked, completion("long " * 20_000)) for n in range(50)])
    tracemalloc.start()
    index = RecordIndex(empty_run)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 50 and file.stat().st_size > 5_000_000
    assert held < 500_000
