from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.report.export import parquet
from constitutional_ai.report.export.parquet import KINDS, schema_of, to_parquet
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from tests.report.export.conftest import CHAIN, TALK

pq = pytest.importorskip("pyarrow.parquet")


def read(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_every_kind_of_record_becomes_a_file(run: Run, tmp_path: Path) -> None:
    made = {one.file.name: one.rows for one in to_parquet(run, tmp_path / "out")}
    assert made == {
        "responses.parquet": 1,
        "revisions.parquet": 1,
        "labels.parquet": 1,
        "answers.parquet": 3,
        "failures.parquet": 1,
        "metrics.parquet": 3,
        "principles.csv": 18,
    }


def test_a_conversation_is_a_list_of_messages(run: Run, tmp_path: Path) -> None:
    to_parquet(run, tmp_path)
    (row,) = read(tmp_path / "responses.parquet")
    assert row["prompt_conversation"] == [{"role": m.role, "content": m.content} for m in TALK]
    assert (row["stage"], row["prompt_tags"], row["completion_prompt_tokens"]) == ("01-responses", ["fraud"], 7)


def test_revisions_and_judgements_are_lists_of_records(run: Run, tmp_path: Path) -> None:
    to_parquet(run, tmp_path)
    (chain,) = read(tmp_path / "revisions.parquet")
    assert (chain["id"], chain["initial_completion_text"]) == (CHAIN.id, "Sure!")
    first, second = chain["revisions"]
    assert (first["critique"]["text"], first["fault"]) == ("Unkind.", None)
    assert (second["critique"], second["fault"], second["cut"]) == (None, "empty", "Sure: ")
    (label,) = read(tmp_path / "labels.parquet")
    assert [(j["principle"], j["probability_first"]) for j in label["judgements"]] == [
        ("kind", 0.75),
        ("wise", 0.25),
    ]


def test_every_group_of_rows_has_the_same_columns(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first group has no fault, the second no reward: neither column may lose its type."""
    monkeypatch.setattr(parquet, "GROUP", 1)
    to_parquet(run, tmp_path)
    rows = read(tmp_path / "answers.parquet")
    assert [(row["verdict_degenerate"], row["reward"]) for row in rows] == [
        (None, 0.5),
        ("empty", None),
        (None, None),
    ]


def test_what_was_not_measured_is_null_and_keeps_its_type(run: Run, tmp_path: Path) -> None:
    to_parquet(run, tmp_path)
    assert [row["value"] for row in read(tmp_path / "metrics.parquet")] == [0.5, 1.0, None]
    schema = pq.read_schema(tmp_path / "answers.parquet")
    assert str(schema.field("reward").type) == "double"
    assert str(schema.field("verdict_objects").type) == "bool"
    assert str(schema.field("verdict_degenerate").type) == "string"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_column_of_every_kind_has_a_type(kind: parquet.Kind) -> None:
    schema = schema_of(kind.row_type)
    assert str(schema.field("id").type) == "string"
    assert "null" not in str(schema)


def test_a_stage_without_records_is_a_file_with_columns_and_no_rows(run: Run, tmp_path: Path) -> None:
    (run.stage("01-responses") / "stage.json").unlink()  # not complete: its file may be changed
    (run.stage("01-responses") / "records.jsonl").write_text("")
    to_parquet(run, tmp_path)
    assert read(tmp_path / "responses.parquet") == []
    assert "prompt_conversation" in pq.read_schema(tmp_path / "responses.parquet").names


def test_rows_are_written_in_groups(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP", 2)
    to_parquet(run, tmp_path)
    assert pq.ParquetFile(tmp_path / "answers.parquet").num_row_groups == 2
    assert len(read(tmp_path / "answers.parquet")) == 3


def test_an_evaluation_exports_its_steps(evaluated: Run, tmp_path: Path) -> None:
    made = {one.file.stem for one in to_parquet(evaluated, tmp_path / "out")}
    assert made == {"answers", "answer-scores", "metrics"}
    scores = read(tmp_path / "out" / "answer-scores.parquet")
    assert [(row["stage"], row["score"]) for row in scores] == [
        ("answers/pm-kind", 1.5),
        ("answers/pm-kind", None),
    ]


def test_the_datasets_library_reads_it(run: Run, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    to_parquet(run, tmp_path / "out")
    made = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "responses.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert made[0]["prompt_conversation"][0] == {"role": "user", "content": "Hi"}


def test_a_run_without_records_says_so(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", {}, Silent()) as empty,
        pytest.raises(InputError, match="has no records yet"),
    ):
        to_parquet(empty, tmp_path / "out")


def test_the_command_says_what_it_wrote(run: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["export", str(run.folder), "--to", "parquet", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "revisions.parquet: 1 rows" in done.output
