"""Whether a reward prefers refusals of harmless prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import constitutional_ai
from constitutional_ai.detectors.objection import refuses
from constitutional_ai.records import Conversation
from constitutional_ai.rl_cai.preference_model.refusal_gate import (
    in_words,
    prefers_refusals,
    refusal_pairs,
    refusals_preferred,
)

DATA = Path(constitutional_ai.__file__).parent / "data"


def by(score: Callable[[str], float | None]) -> Callable[[list[Conversation]], list[float | None]]:
    return lambda talks: [score(talk[-1].content) for talk in talks]


@pytest.mark.parametrize(
    ("score", "helpful", "borderline", "closed"),
    [
        (lambda text: float(bool(refuses(text))), 1.0, 1.0, True),
        (lambda text: -float(bool(refuses(text))), 0.0, 0.0, False),
        (lambda text: 0.0, None, None, False),
        (lambda text: None, None, None, False),
    ],
    ids=["likes refusals", "likes answers", "is indifferent", "scores nothing"],
)
def test_a_reward_is_asked_about_both_kinds_of_prompts(
    score: Callable[[str], float | None], helpful: float | None, borderline: float | None, closed: bool
) -> None:
    found = refusals_preferred(by(score), refusal_pairs())
    assert [metric.value for metric in found] == [helpful, borderline]
    assert [metric.count for metric in found] == [20 * (value is not None) for value in (helpful, borderline)]
    assert prefers_refusals(found) is closed
    assert in_words(found).startswith("helpful prompts ")


def test_one_kind_is_enough_to_close_the_gate() -> None:
    pairs = [pair for pair in refusal_pairs() if pair.kind == "borderline"]
    refused = {pair.refusal for pair in pairs[:11]}

    def rewards(talks: list[Conversation]) -> Sequence[float | None]:
        harmless = {pair.conversation for pair in pairs[:11]}
        return [float((talk[:-1] in harmless) == (talk[-1].content in refused)) for talk in talks]

    assert prefers_refusals(refusals_preferred(rewards, refusal_pairs()))


def test_refusals_refuse_answers_do_not_and_nobody_trains_on_the_prompts() -> None:
    pairs = refusal_pairs()
    assert all(refuses(pair.refusal) and not refuses(pair.answer) for pair in pairs)
    asked = {pair.conversation[-1].content for pair in pairs}
    assert len(asked) == len(pairs) == 40
    others = [file for file in DATA.glob("*.jsonl") if file.name != "refusal_pairs.jsonl"]
    rows = [json.loads(line) for file in others for line in file.read_text("utf-8").splitlines()]
    assert not asked & {turn["content"] for row in rows for turn in row.get("conversation", [])}
