"""``--retry-failures``: what failed in a complete stage is tried again, and later stages follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import ModelError, StageChanged
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import PIPELINE
from constitutional_ai.records import Checkpoint, Response, RevisionChain
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.run import Trained
from constitutional_ai.stages.job import Job
from tests.pipeline.tiny_run import echoing, make

CONSTITUTION = """
name: mine
principles:
  - {name: p, revision: Be kind., preference: Which is kinder., upheld: a kind one, broken: an unkind one}
"""


class Moody:
    """A model that is silent every third time that it is asked, until it is mended; it may also be gone."""

    def __init__(self) -> None:
        self.asked, self.is_mended, self.is_gone = 0, False, False

    def __call__(self, context: str) -> str:
        if self.is_gone:
            raise ModelError("cannot reach it")
        self.asked += 1
        return "" if not self.is_mended and self.asked % 3 == 0 else f"Well, {context[-40:]}"


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Moody:
    mood = Moody()
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=mood))

    def trained(job: Job) -> None:
        def train(folder: Path) -> Trained:
            (folder / "model").mkdir()
            rows = job.run.rows("02-revisions", RevisionChain)
            return Trained(Checkpoint("model", "base", f"{len(rows)} rows"), len(rows))

        inputs = job.outputs("01-responses", "02-revisions")
        job.run.make_model("03-sl-cai-model", train, config={"seed": job.recipe.seed}, inputs=inputs)

    monkeypatch.setitem(PIPELINE, "03-sl-cai-model", trained)
    return mood


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    return echoing(
        tmp_path / "run",
        prompts={"red_team": {"limit": 9}, "helpful": {"limit": 2}, "borderline": {"limit": 2}},
        responses={"per_helpful_prompt": 1},
        revisions={"rounds": 1, "style": "direct", "clean": []},
        concurrency=1,
    )


def states(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.json*")}


def test_later_stages_are_extended_or_made_again_and_said_to_be(moody: Moody, asked: dict[str, Any]) -> None:
    run, told = make(asked, until="03-sl-cai-model")
    first = {row.id: row for row in run.rows("02-revisions", RevisionChain)}
    failed = {stage: run.manifest(stage).failures for stage in ("01-responses", "02-revisions")}
    assert failed["01-responses"] > 0 < len(first)
    counts = ", ".join(f"{count} of {stage}" for stage, count in failed.items() if count)
    assert told[-1] == f"failed: {counts}. The same command with --retry-failures tries them again."
    moody.is_mended, moody.asked = True, 0
    _, said = make(asked, until="03-sl-cai-model", retry_failures=True)
    again = {row.id: row for row in run.rows("02-revisions", RevisionChain)}
    assert moody.asked == failed["01-responses"] + len(again) - len(first)
    assert first.items() <= again.items()
    assert len(run.rows("01-responses", Response)) == 13
    assert len(again) == 9
    assert run.manifest("02-revisions").inputs["01-responses"] == run.output_digest("01-responses")
    assert run.manifest("03-sl-cai-model").records == 9
    again_line = f"failed records are tried again: {failed['01-responses']} of 01-responses"
    assert any(line.startswith(again_line) for line in said)
    assert any(line.startswith("02-revisions is extended") for line in said)
    assert any(line.startswith("03-sl-cai-model is made again") for line in said)
    before = states(run.folder)
    _, said = make(asked, until="03-sl-cai-model", retry_failures=True)
    assert [line for line in said if not line.startswith("prompts.")] == [
        "no complete stage has failed records."
    ]
    make(asked, until="03-sl-cai-model")
    assert states(run.folder) == before


def test_what_still_fails_changes_no_later_stage(
    moody: Moody, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make(asked, until="02-revisions")
    later = states(run.stage("02-revisions"))
    digest = run.output_digest("01-responses")
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=lambda context: ""))
    _, said = make(asked, until="01-responses", retry_failures=True)
    assert any("01-responses: 0 of" in line for line in said)
    assert (run.output_digest("01-responses"), states(run.stage("02-revisions"))) == (digest, later)


def test_a_retry_that_cannot_start_leaves_the_run_as_it_was(moody: Moody, asked: dict[str, Any]) -> None:
    run, _ = make(asked, until="03-sl-cai-model")
    before = states(run.folder)
    moody.is_gone = True
    with pytest.raises(ModelError):
        make(asked, until="03-sl-cai-model", retry_failures=True)
    assert states(run.folder) == before


def test_stages_behind_until_are_named_and_refused_until_they_follow(
    moody: Moody, asked: dict[str, Any]
) -> None:
    run, _ = make(asked, until="03-sl-cai-model")
    moody.is_mended = True
    _, said = make(asked, until="01-responses", retry_failures=True)
    assert said[-1].startswith("02-revisions and 03-sl-cai-model on disk: made before")
    with pytest.raises(StageChanged, match="02-revisions was made from another version of 01-responses"):
        make(asked, until="03-sl-cai-model")
    make(asked, until="03-sl-cai-model", retry_failures=True)
    assert run.manifest("03-sl-cai-model").records == 9


@pytest.mark.parametrize("change", [{"seed": 1}, {"constitution": CONSTITUTION}])
def test_other_settings_are_refused_as_ever(
    moody: Moody, asked: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    run, _ = make(asked, until="02-revisions")
    if "constitution" in change:
        (tmp_path / "mine.yaml").write_text(CONSTITUTION)
        change = {"constitution": str(tmp_path / "mine.yaml")}
    before, moody.is_mended = states(run.folder), True
    with pytest.raises(StageChanged):
        make({**asked, **change}, until="02-revisions", retry_failures=True)
    assert states(run.folder) == before


def test_records_of_answers_that_are_no_longer_there_are_not_extended(
    moody: Moody, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make(asked, until="02-revisions")
    for name in ("stage.json", "records.jsonl"):
        (run.stage("01-responses") / name).unlink()
    moody.is_mended = True
    other = ScriptedModel(say=lambda context: "Quite another answer.")
    monkeypatch.setattr(load, "load_model", lambda name, **_: other)
    make(asked, until="01-responses")
    _, said = make(asked, until="02-revisions", retry_failures=True)
    assert any(line.startswith("02-revisions is made again") for line in said)
    answers = {row.id: row for row in read_run(run.folder).rows("01-responses", Response)}
    chains = run.rows("02-revisions", RevisionChain)
    assert [chain.initial for chain in chains] == [answers[chain.id] for chain in chains]
