from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import Context, Format, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Comparison, Completion, Message, Prompt, Response, Revision, RevisionChain
from constitutional_ai.rl_cai.feedback.compare import compare, compare_revision

PROMPT = Prompt.of((Message("user", "Hi"),), "red_team", "test")


@dataclass
class SaysItsSeed:
    name: str = "seeded"
    format: Format = "chat"
    contexts: list[Context] = field(default_factory=list)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self.contexts.append(context)
        return Completion(str(sampling.seed), self.name, "stop", 0, 0)


def pair(model: object, number: int = 0, seed: int = 0) -> Comparison:
    return asyncio.run(compare(PROMPT, number=number, model=model, sampling=Sampling(), seed=seed))


def test_a_pair_is_two_draws_of_one_prompt() -> None:
    model = SaysItsSeed()
    comparison = pair(model, number=3)
    assert (comparison.id, comparison.prompt) == (f"{PROMPT.id}.3", PROMPT)
    assert comparison.a.text != comparison.b.text
    assert model.contexts == [PROMPT.conversation] * 2


def test_every_pair_has_seeds_of_its_own_and_is_reproducible() -> None:
    model = SaysItsSeed()
    pairs = [pair(model), pair(model, number=1), pair(model, seed=1)]
    assert len({c.text for comparison in pairs for c in (comparison.a, comparison.b)}) == 6
    assert pair(model) == pairs[0]


def test_two_equal_answers_are_kept() -> None:
    comparison = pair(ScriptedModel(say=lambda _: "Same."))
    assert comparison.a == comparison.b


def test_an_empty_answer_is_not_compared() -> None:
    with pytest.raises(EmptyAnswer):
        pair(ScriptedModel(say=lambda _: ""))


def test_a_response_is_compared_with_its_last_sound_revision_on_either_side() -> None:
    first, sound, empty = [Completion(text, "m", "stop", 0, 0) for text in ("Sure.", "I won't.", "")]
    revisions = (Revision("p", None, sound), Revision("p", None, empty, fault="empty"))
    chains = [
        RevisionChain(f"p{n}.0", "digest", Response(f"p{n}.0", PROMPT, first), revisions) for n in range(32)
    ]
    pairs = [asyncio.run(compare_revision(chain, seed=0)) for chain in chains]
    assert {(one.a.text, one.b.text) for one in pairs} == {("Sure.", "I won't."), ("I won't.", "Sure.")}
    assert pairs[0].id == "p0.0.revised"
    assert pairs == [asyncio.run(compare_revision(chain, seed=0)) for chain in chains]
