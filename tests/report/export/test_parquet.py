from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.answers import AnswerScore
from constitutional_ai.records import (
    Answer,
    Comparison,
    Completion,
    Failure,
    Judgement,
    Message,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
    Verdict,
)
from constitutional_ai.report.export import parquet
from constitutional_ai.report.export.parquet import KINDS, columns, to_inspect, to_parquet
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import Run, open_run, read_run
from constitutional_ai.runs.runner import HasId, Pass, Silent

pq = pytest.importorskip("pyarrow.parquet")

TALK = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "=cmd|' /C calc'!A0 é\u2028"))
PROMPT = Prompt.of(TALK, "red_team", "test", ("fraud",))


def said(text: str, cut: bool = False) -> Completion:
    return Completion(text, "hf:m", "length" if cut else "stop", 7, 3)


RESPONSE = Response(f"{PROMPT.id}.0", PROMPT, said("Sure!"))
CHAIN = RevisionChain(
    RESPONSE.id,
    "c0ffee",
    RESPONSE,
    (
        Revision("kind", said("Unkind."), said("Kinder.")),
        Revision("kind", None, said(""), cut="Sure: ", fault="empty"),
    ),
)
COMPARISON = Comparison(RESPONSE.id, PROMPT, said("a"), said("b"))
LABEL = PreferenceLabel(
    RESPONSE.id,
    "c0ffee",
    COMPARISON,
    "likelihood",
    0.75,
    (Judgement("kind", "a", 0.75), Judgement("wise", "b", 0.25)),
)


def answer(model: str, number: int = 0, text: str = "No.", reward: float | None = None) -> Answer:
    response = Response(f"{PROMPT.id}.{number}", PROMPT, said(text, cut=not text))
    return Answer(f"{response.id}.{model}", model, response, Verdict(True, None if text else "empty"), reward)


METRICS = [
    Metric("objection_rate", "start", 0.5, 0.25, 0.75, 2),
    Metric("objection_rate", "sl/cai", 1.0, 0.5, 1.0, 1),
    Metric("win_rate", "start", None, None, None, 0),
]


def stage(run: Run, name: str, rows: Sequence[HasId]) -> None:
    async def passes() -> AsyncIterator[Pass[Any, Any]]:
        by_id = {row.id: row for row in rows}

        async def step(row: Any) -> Any:
            return row

        yield Pass(by_id, step)

    run.make_rows(name, type(rows[0]), passes, config={}, inputs={}, concurrency=1, max_failures=0)


def metrics(folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps([asdict(m) for m in METRICS]))


ANSWERS = [answer("start", 0, reward=0.5), answer("start", 1, text=""), answer("sl/cai", 0)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with open_run(tmp_path / "run", {}, Silent()) as opened:
        stage(opened, "01-responses", [RESPONSE])
        stage(opened, "02-revisions", [CHAIN])
        stage(opened, "05-preference-labels", [LABEL])
        stage(opened, "08-evaluation", ANSWERS)
        write_rows(
            opened.stage("02-revisions") / "failures.jsonl",
            Failure,
            [Failure("x", "EmptyAnswer", "said nothing")],
        )
        metrics(opened.stage("08-evaluation"))
    return read_run(tmp_path / "run")


@pytest.fixture
def evaluated(tmp_path: Path) -> Run:
    """The folder of an evaluation."""
    with open_run(tmp_path / "evaluation", {}, Silent()) as opened:
        stage(opened, "answers", ANSWERS)
        stage(
            opened,
            "answers/pm-kind",
            [AnswerScore(ANSWERS[0].id, 1.5), AnswerScore(ANSWERS[1].id, None, "too long")],
        )
        metrics(opened.folder)
    return read_run(tmp_path / "evaluation")


# -- Parquet


def read(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_every_kind_of_record_becomes_a_file(run: Run, tmp_path: Path) -> None:
    made = {one.file.name: one.rows for one in to_parquet(run, tmp_path / "out")}
    assert made == {
        "responses.parquet": 1,
        "revisions.parquet": 2,
        "labels.parquet": 1,
        "judgements.parquet": 2,
        "answers.parquet": 3,
        "failures.parquet": 1,
        "metrics.parquet": 3,
    }


def test_a_conversation_is_a_list_of_messages(run: Run, tmp_path: Path) -> None:
    to_parquet(run, tmp_path)
    (row,) = read(tmp_path / "responses.parquet")
    assert row["prompt_conversation"] == [{"role": m.role, "content": m.content} for m in TALK]
    assert (row["stage"], row["prompt_tags"], row["completion_prompt_tokens"]) == ("01-responses", ["fraud"], 7)


def test_revisions_are_a_row_each(run: Run, tmp_path: Path) -> None:
    to_parquet(run, tmp_path)
    first, second = read(tmp_path / "revisions.parquet")
    assert first["id"] == second["id"] == CHAIN.id
    assert (first["number"], first["revision_critique_text"], first["revision_fault"]) == (1, "Unkind.", None)
    assert (second["number"], second["revision_critique_text"], second["revision_fault"]) == (2, None, "empty")
    assert second["initial_completion_text"] == "Sure!"


def test_judgements_are_a_row_each(run: Run, tmp_path: Path) -> None:
    to_parquet(run, tmp_path)
    rows = read(tmp_path / "judgements.parquet")
    assert [(r["judgement_principle"], r["judgement_probability_first"]) for r in rows] == [
        ("kind", 0.75),
        ("wise", 0.25),
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
    found = {name: str(parquet._arrow_type(hint)) for name, hint in columns(kind.row_type, kind.each).items()}
    assert found["id"] == "string"
    assert "null" not in found.values()


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


def test_a_run_without_records_and_a_python_without_pyarrow_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        open_run(tmp_path / "run", {}, Silent()) as empty,
        pytest.raises(InputError, match="holds no records yet"),
    ):
        to_parquet(empty, tmp_path / "out")
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'constitutional-ai\[local\]'"):
        to_parquet(empty, tmp_path / "out")


# -- Inspect


def logs(run: Run, out: Path) -> dict[str, dict[str, Any]]:
    return {one.file.name: json.loads(one.file.read_text()) for one in to_inspect(run, out)}


def test_each_model_becomes_a_log(run: Run, tmp_path: Path) -> None:
    made = logs(run, tmp_path)
    assert list(made) == ["01-start.json", "02-sl_cai.json"]
    start = made["01-start.json"]
    assert (start["version"], start["status"], start["results"]["total_samples"]) == (2, "success", 2)
    first, second = start["samples"]
    assert first["input"] == [{"role": m.role, "content": m.content} for m in TALK]
    assert first["output"]["choices"][0]["message"]["content"] == "No."
    assert {name: score["value"] for name, score in first["scores"].items()} == {
        "objects": 1.0,
        "degenerate": 0.0,
        "reward": 0.5,
    }
    assert (second["epoch"], second["output"]["choices"][0]["stop_reason"]) == (2, "max_tokens")
    assert "reward" not in second["scores"]


def test_metrics_stand_in_the_results_with_their_intervals(run: Run, tmp_path: Path) -> None:
    (scores,) = logs(run, tmp_path)["01-start.json"]["results"]["scores"]
    assert scores["metrics"] == {
        "objection_rate": {
            "name": "objection_rate",
            "value": 0.5,
            "metadata": {"low": 0.25, "high": 0.75, "count": 2},
        }
    }


def test_an_evaluations_preference_models_are_scores(evaluated: Run, tmp_path: Path) -> None:
    first, second = logs(evaluated, tmp_path)["01-start.json"]["samples"]
    assert first["scores"]["pm-kind"]["value"] == 1.5
    assert "pm-kind" not in second["scores"]


def test_what_was_not_evaluated_has_no_logs(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", {}, Silent()) as run,
        pytest.raises(InputError, match="no evaluated models"),
    ):
        to_inspect(run, tmp_path / "out")


NEEDED = {
    "": ("version", "status", "eval", "plan", "results", "stats", "samples"),
    "eval": ("created", "task", "dataset", "model", "config", "run_id", "task_id", "eval_id"),
    "results": ("total_samples", "completed_samples", "scores"),
    "stats": ("started_at", "completed_at", "model_usage"),
}


def test_a_log_has_every_field_that_its_readers_ask_for(run: Run, tmp_path: Path) -> None:
    for log in logs(run, tmp_path).values():
        for part, names in NEEDED.items():
            assert set(names) <= set(log[part] if part else log)
        for sample in log["samples"]:
            assert {"id", "epoch", "input", "target", "messages", "output", "scores"} <= set(sample)


@pytest.mark.parametrize("which", ["run", "evaluated"])
def test_inspect_itself_reads_the_logs(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    for one in to_inspect(request.getfixturevalue(which), tmp_path):
        read = log.read_eval_log(str(one.file))
        assert (read.status, len(read.samples)) == ("success", one.rows)
        assert [m.text for m in read.samples[0].input] == [m.content for m in TALK]
        assert read.samples[0].output.completion == "No."
        assert read.results.scores[0].metrics["objection_rate"].value in (0.5, 1.0)
        assert log.read_eval_log(str(one.file), header_only=True).results.total_samples == one.rows


# -- the command


@pytest.mark.parametrize(
    ("form", "said"), [("parquet", "revisions.parquet: 2 rows"), ("inspect", "start.json: 2 samples")]
)
def test_the_command_says_what_it_wrote(run: Run, tmp_path: Path, form: str, said: str) -> None:
    done = CliRunner().invoke(main, ["export", str(run.folder), "--to", form, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert said in done.output
