"""Test that a counted model has the abilities of the one it wraps, and counts what each request costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from constitutional_ai.models.abilities import ReadsLetters
from constitutional_ai.models.cached import cached
from constitutional_ai.models.counted import counted
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback, MethodName
from constitutional_ai.runs.meter import metered
from tests.models.hosted.scripted_server import Answer, ScriptedServer, systemone
from tests.rl_cai.feedback.test_decision import MINE, PAIR, by_letter, kind


@pytest.mark.parametrize("file", [None, "calls.sqlite"], ids=["counted", "cached and counted"])
@pytest.mark.parametrize(
    ("method", "answers"),
    [("decision", {"systemone": systemone(kind)}), ("multiple_choice", {"chat/completions": by_letter(kind)})],
)
def test_a_run_labels_with_every_ability_of_its_feedback_model(
    tmp_path: Path, method: MethodName, answers: dict[str, Answer], file: str | None
) -> None:
    """A run wraps its models twice; a wrapper that hid an ability would refuse the method."""
    with ScriptedServer(answers) as server:
        name = f"server:m@{server.url}"
        path = tmp_path / file if file else None
        with cached(ServerModel("m", server.url), name, path, print) as inner, metered() as meter:
            settings = Feedback(method=method)
            given = asyncio.run(label(PAIR, model=counted(inner), constitution=MINE, settings=settings, seed=0))
    assert given.probability_a == pytest.approx(0.8)
    assert given.flipped is False
    assert meter.tokens == tuple(map(sum, zip(*[j.usage or (0, 0) for j in given.judgements], strict=True)))
    assert sum(meter.tokens) > 0


def test_a_model_that_reads_no_letters_gains_no_ability() -> None:
    assert not isinstance(counted(ScriptedModel()), ReadsLetters)
