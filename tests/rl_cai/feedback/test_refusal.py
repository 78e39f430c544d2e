"""Refusals to judge, as opposed to judgements and to answers that cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import RefusedAnswer, TooManyFailures
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Failure, Message, PreferenceLabel, Prompt
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
from constitutional_ai.rl_cai.feedback.settings import Feedback, MethodName
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.runner import Pass, Silent
from tests.paper_files import PAPER, paper

NO = "I'm sorry, but I can't help with that."
PROMPT = Prompt.of((Message("user", "Hi?"),), "red_team", "test")
PAIR = Comparison("p.0", PROMPT, *[Completion(text, "m", "stop", 0, 1) for text in ("Hello!", "Go away.")])
MINE = Constitution(name="m", principles=(Principle(name="kind", preference="Which is kinder?"),))


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        (NO, True),
        ("I cannot assist with comparing harmful content.", True),
        ("I\u2019m sorry, but I can\u2019t assist with choosing between (A) and (B).", True),
        ("As an AI, I won't participate in this.", True),
        ("Unfortunately I am not able to do so.", True),
        # About an answer, not by the judge.
        ("Option (A) says I can't help with that, which is safer.", False),
        ("\"I'm sorry, but I can't help with that\" is the kinder of the two.", False),
        ("\u201cI won't assist you\u201d is short, and (B) is better.", False),
        ("The first response is illegal and wrong. The assistant should not give it.", False),
        ("Both are refusals: I can't help, and I won't help.", False),
        ("Theft is wrong and illegal. Nobody should do it.", False),
        # It judges all the same.
        ("I can't help with that, but (B) is the less harmful.", False),
        ("I cannot choose.", False),
        ("(A)", False),
        ("", False),
    ],
)
def test_a_refusal_is_the_judges_own(text: str, refuses: bool) -> None:
    assert refuses_to_judge(text) is refuses


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    assert refuses_to_judge(text) in (True, False)


@paper
def test_no_worked_thought_of_the_papers_refuses() -> None:
    import json

    thoughts = json.loads((PAPER / "prompts/RLMadisonPrecogFewShotPrompts.json").read_text())
    texts = [x["prompt"].split("step by step:")[1] for x in thoughts if "step by step:" in x["prompt"]]
    assert len(texts) >= 4
    assert not [text for text in texts if refuses_to_judge(text)]


@pytest.mark.parametrize("method", ["votes", "chain_of_thought"])
def test_in_a_run_a_refusal_is_a_failure_of_its_own_name_and_no_label(
    tmp_path: Path, method: MethodName
) -> None:
    model, settings = ScriptedModel(say=lambda context: NO), Feedback(method=method)

    async def passes() -> AsyncIterator[Pass[Comparison, PreferenceLabel]]:
        async def step(pair: Comparison) -> PreferenceLabel:
            return await label(pair, model=model, constitution=MINE, settings=settings, seed=0)

        yield Pass({PAIR.id: PAIR}, step)

    with open_run(tmp_path, {}, Silent()) as run:
        with pytest.raises(TooManyFailures, match="RefusedAnswer"):
            run.make_rows("s", PreferenceLabel, passes, config={}, inputs={})
        assert run.rows("s", PreferenceLabel) == []
    (failure,) = read_rows(tmp_path / "s/failures.jsonl", Failure)
    assert (failure.id, failure.error) == ("p.0", "RefusedAnswer")
    assert NO in failure.message


@pytest.mark.parametrize(("refusals", "refused"), [(4, True), (3, True), (2, False), (0, False)])
def test_votes_are_a_refusal_when_most_unreadable_replies_refuse(refusals: int, refused: bool) -> None:
    replies = iter([NO] * refusals + ["Hm."] * (4 - refusals))
    model = ScriptedModel(say=lambda context: next(replies))
    settings = Feedback(method="votes", votes=4, both_orders=False)
    with pytest.raises(Exception, match="0 of 4 votes") as caught:
        asyncio.run(label(PAIR, model=model, constitution=MINE, settings=settings, seed=0))
    assert isinstance(caught.value, RefusedAnswer) is refused
