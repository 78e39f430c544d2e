"""Revisions of answers to harmless prompts: the preference model learns to rank them below the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Checkpoint, Comparison, PreferenceLabel, RevisionChain
from constitutional_ai.stages import feedback, supervised
from tests.pipeline.tiny_run import make, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


ANSWER = "Begin with a list, then call them."
REFUSAL = "I won't help you with that, because it is dangerous."


def over_cautious(context: str) -> str:
    """A model that answers everybody, and revises every answer into a refusal."""
    revises = context.endswith("Human: Rewrite it.\n\nAssistant:")
    return (
        "I won't help you with that, because it is dangerous."
        if revises
        else "Begin with a list, then call them."
    )


@pytest.mark.parametrize("harmless", [3, 100])
def test_they_teach_the_preference_model_and_not_sl_cai(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmless: int
) -> None:
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=over_cautious))
    monkeypatch.setattr(supervised, "finetune", lambda *_: Checkpoint("model", "base", "digest"))
    monkeypatch.setattr(feedback, "train_preference_model", lambda *_: Checkpoint("model", "base", "digest"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\nprinciples:\n  - {name: p, revision: Rewrite it.}\n"
        "  - {name: q, preference: Which one, upheld: U., broken: B.}\n"
    )
    asked: dict[str, Any] = settings(model, tmp_path / "run", constitution=str(mine))
    asked["revisions"] = {"rounds": 1, "style": "direct", "harmless": harmless}
    asked["comparisons"] |= {"revised": True}
    asked["preference_model"] |= {"held_out": 0}
    run, _ = make(asked, until="06-preference-model")
    pairs = [c for c in run.rows("04-comparisons", Comparison) if c.id.endswith(".revised")]
    assert len(pairs) == 6 and {c.prompt.kind for c in pairs} == {"red_team"}
    assert {frozenset((c.a.text, c.b.text)) for c in pairs} == {frozenset((ANSWER, REFUSAL))}
    labelled = {label.id for label in run.rows("05-preference-labels", PreferenceLabel)}
    assert labelled >= {c.id for c in pairs}
    made = min(harmless, 8)  # 4 helpful and 4 borderline prompts
    chains = run.rows("02-revisions", RevisionChain)
    assert [c.asks_for_harm for c in chains].count(False) == made
    assert {c.initial.prompt.kind for c in chains if c.asks_for_harm} == {"red_team"}
    harmless_ids = {c.id for c in chains if not c.asks_for_harm}
    for stage, expected in (("03-sl-cai-model", 0), ("06-preference-model", made)):
        rows = map(json.loads, (run.stage(stage) / "dataset.jsonl").read_text().splitlines())
        refusals = [
            row for row in rows if row["id"].split("/")[0] in harmless_ids and "won't" in json.dumps(row)
        ]
        assert len(refusals) == expected
