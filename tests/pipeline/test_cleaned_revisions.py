"""Revisions with a fault, from the model's answer to the rows that are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Checkpoint, RevisionChain
from constitutional_ai.runs.run import Run
from constitutional_ai.stages import supervised
from tests.pipeline.tiny_run import make, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


def untidy(context: str) -> str:
    """A revision that begins with an opener, loops, is empty, repeats the first answer, or is as it should be."""
    if not context.endswith("Human: Rewrite it.\n\nAssistant:"):
        return "Take them all."
    number = sum(map(ord, context)) % 5
    return ("Here is the revised response: No.", "No. " * 20, "", "Take them all.", "Ask a doctor.")[number]


def revised(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **revisions: Any
) -> tuple[Run, list[str], list[dict[str, Any]]]:
    """A run until SL-CAI with an untidy model: the run, what was told, and the rows that were to be trained on."""
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=untidy))
    monkeypatch.setattr(supervised, "finetune", lambda *_: Checkpoint("model", "base", "digest"))
    mine = folder / "mine.yaml"
    mine.write_text(
        "name: mine\nprinciples:\n  - {name: p, revision: Rewrite it.}\n"
        "  - {name: q, preference: Which one, upheld: U., broken: B.}\n"
    )
    asked = settings(model, folder / "run", constitution=str(mine), prompts={"red_team": {"limit": 30}})
    asked["revisions"] = {"rounds": 2, "style": "direct", **revisions}
    run, told = make(asked, until="03-sl-cai-model")
    lines = (run.stage("03-sl-cai-model") / "dataset.jsonl").read_text().splitlines()
    return run, told, [row for row in map(json.loads, lines) if "/r" in row["id"]]


def test_what_is_cleaned_away_is_counted_told_and_not_trained_on(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told, rows = revised(model, tmp_path, monkeypatch)
    revisions = [r for c in run.rows("02-revisions", RevisionChain) for r in c.revisions]
    found = run.manifest("02-revisions").notes["cleaned"]
    assert found == {
        "opener": sum(r.cut is not None for r in revisions),
        **{why: sum(r.fault == why for r in revisions) for why in ("empty", "identical", "repetition")},
    }
    assert all(found.values()) and len(revisions) == 60
    assert [line for line in told if line.startswith("02-revisions: 60 revisions; ")]
    sound = [r.revised.text for r in revisions if r.fault is None]
    assert [row["completion"][0]["content"] for row in rows] == sound
    assert {"No.", "Ask a doctor."} < set(sound)


def test_without_cleaning_every_revision_is_trained_on_as_it_came_back(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told, rows = revised(model, tmp_path, monkeypatch, clean=[])
    chains = run.rows("02-revisions", RevisionChain)
    revisions = [r.revised.text for c in chains for r in c.revisions]
    assert [row["completion"][0]["content"] for row in rows] == revisions
    assert {"Here is the revised response: No.", "Take them all."} < set(revisions)
    assert run.manifest("02-revisions").notes == {"cleaned": {}}
    assert run.manifest("02-revisions").failures > 0  # nothing said is no record, as there is no rule for it
    assert not [line for line in told if line.startswith("02-revisions")]
