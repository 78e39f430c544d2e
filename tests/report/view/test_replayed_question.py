"""A question is written again word for word as a spy heard it when the label was given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.model import Context, Format, Sampling
from constitutional_ai.recipes.few_shots_digest import few_shots_digest
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.records import Completion, Message, PreferenceLabel
from constitutional_ai.report.view.replayed_question import ReplayedQuestion, replayed_question
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.run import Run
from tests.rl_cai.feedback.test_label import MINE, PAIR


@dataclass
class Spy:
    """A feedback model that keeps what it hears."""

    format: Format = "chat"
    name: str = "spy"
    heard: list[Any] = field(default_factory=list)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self.heard.append((context, ()))
        return Completion("The first is kinder, so (A)", "spy", "stop", 1, 1)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        self.heard.append((context, tuple(continuations)))
        return [-1.0] * len(continuations)

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        self.heard.append((f"{state}\n\n{question.text}", question.options))
        return Reading((0.5, 0.5), None, "")


class ServerSpy(Spy):
    async def letters(self, conversation: Any, letters: Sequence[str]) -> Reading:
        self.heard.append((conversation, tuple(letters)))
        return Reading((0.5, 0.5), None, "(A)")


def labelled(folder: Path, spy: Spy, model: str, **settings: Any) -> tuple[Run, PreferenceLabel]:
    """A run whose one label the spy has given."""
    recipe = Recipe.model_validate({"feedback": settings, "seed": 7})
    shots = few_shots_folder(recipe.few_shots)
    config = {k: v for k, v in flat(recipe.model_dump(mode="json")).items() if k.startswith("feedback.")}
    config |= {"seed": 7, "models.feedback": model, "few_shots": few_shots_digest(shots)}
    stages = {"05-preference-labels": {"config": config, "inputs": {}}}
    (folder / "run.json").write_text(json.dumps({"name": "r", "stages": stages}))
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "constitution.yaml").write_text(MINE.to_yaml())
    given = label(
        PAIR,
        model=spy,
        constitution=MINE,
        settings=recipe.feedback,
        seed=7,
        few_shots=load_few_shots(shots),
    )
    return Run(folder), asyncio.run(given)


def as_heard(asked: ReplayedQuestion) -> list[Any]:
    return [(r.turns[0].content if r.raw else r.turns, r.options) for r in asked.requests]


@pytest.mark.parametrize("fmt", ["plain", "chat"])
@pytest.mark.parametrize("method", ["multiple_choice", "chain_of_thought", "votes", "likelihood", "decision"])
def test_a_question_is_what_the_model_heard(tmp_path: Path, method: str, fmt: Format) -> None:
    if (method, fmt) == ("decision", "plain"):
        return
    spy = Spy(fmt)
    run, given = labelled(tmp_path, spy, "hf:m", method=method, format=fmt, principles=2, votes=3)
    asked = [replayed_question(run, given, n) for n in range(len(given.judgements))]
    written = [request for one in asked for request in as_heard(one)]
    assert {json.dumps(w, default=repr) for w in written} == {json.dumps(h, default=repr) for h in spy.heard}
    assert len(given.judgements) == (2 if method == "likelihood" else 4)


def test_a_servers_letters_are_asked_for_in_its_own_way(tmp_path: Path) -> None:
    spy = ServerSpy()
    run, given = labelled(tmp_path, spy, "server:m@http://127.0.0.1")
    asked = replayed_question(run, given, 1)
    assert as_heard(asked) == spy.heard[1:] and "Answer with (A) or (B)" in spy.heard[1][0][0].content


def test_a_format_that_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    run, given = labelled(tmp_path, Spy(), "hf:m")
    asked = replayed_question(run, given, 0)
    assert not isinstance(asked, str) and "hf:m is not loaded here" in asked.note
    assert isinstance(asked.requests[0].turns[0], Message) and Feedback().format == "auto"


def test_what_has_changed_since_is_said_and_no_other_question_shown(tmp_path: Path) -> None:
    run, given = labelled(tmp_path, Spy(), "hf:m")
    other = replace(given, judgements=(replace(given.judgements[0], principle="another"),))
    assert "settings are no longer" in str(replayed_question(run, other, 0))
    (run.folder / "recipe.yaml").write_text(Recipe.model_validate({"few_shots": "none"}).to_yaml())
    assert "worked examples are no longer" in str(replayed_question(run, given, 0))
    (run.folder / "constitution.yaml").write_text(
        MINE.model_copy(update={"name": "x", "principles": MINE.principles[1:]}).to_yaml()
    )
    assert "constitution is no longer" in str(replayed_question(run, given, 0))
    about = json.loads((run.folder / "run.json").read_text())
    about["stages"]["05-preference-labels"]["config"]["feedback.votes"] = "many"
    (run.folder / "run.json").write_text(json.dumps(about))
    assert "cannot be read" in str(replayed_question(run, given, 0))
    (run.folder / "run.json").unlink()
    assert "does not say" in str(replayed_question(run, given, 0))
