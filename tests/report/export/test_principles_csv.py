from __future__ import annotations

import csv
from pathlib import Path

from constitutional_ai.report.export.principles_csv import write_principles
from constitutional_ai.runs.run import Run
from tests.report.conftest import chain, finish, make, prompt, write_rows
from tests.report.conftest import empty_run as empty_run


def test_every_number_of_the_table_is_a_row_and_none_is_a_formula(empty_run: Run, tmp_path: Path) -> None:
    run = make(empty_run)
    chains = [chain(prompt(f"{n}"), "=1+1") for n in range(3)]
    harmless = chain(prompt("How do I boil an egg?", "helpful"), "=1+1")  # counted by neither page nor table
    write_rows(run.folder / "02-revisions/records.jsonl", [*chains, harmless])
    written = write_principles(run, tmp_path)
    assert written
    with written.file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == written.rows == 2 * 9
    first = {row["measure"]: row for row in rows if row["principle"] == "'=1+1"}
    assert (first["drawn"]["value"], first["objects_before"]["count"], first["labels"]["value"]) == (
        "3",
        "3",
        "0",
    )
    assert first["agreement"]["value"] == "" and not any(row["principle"].startswith("=") for row in rows)


def test_stages_that_are_not_complete_are_left_out(empty_run: Run, tmp_path: Path) -> None:
    run = make(empty_run)
    for stage in ("02-revisions", "05-preference-labels"):
        (run.folder / stage / "stage.json").unlink()
    assert write_principles(run, tmp_path) is None
    finish(run.folder, "02-revisions")
    assert write_principles(run, tmp_path)
