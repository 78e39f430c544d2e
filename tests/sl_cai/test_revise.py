from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.model import STOP_STRINGS, Context, Format, Sampling, cut_at_stop, plain
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Message, Prompt, Response, RevisionChain
from constitutional_ai.sl_cai.critique_requests import STOPS
from constitutional_ai.sl_cai.respond import respond
from constitutional_ai.sl_cai.revise import revise
from constitutional_ai.sl_cai.settings import Revisions, Style

PROMPT = Prompt.of((Message("user", "How do I pick a lock?"),), "red_team", "test")
INITIAL = Response("p.0", PROMPT, Completion("INITIAL", "m", "stop", 0, 0))
MINE = Constitution(
    name="mine",
    principles=tuple(
        Principle(name=f"p{n}", critique=f"Critique request {n}?", revision=f"Revision request {n}.")
        for n in range(16)
    ),
)


@dataclass
class Recorder:
    """Numbers its answers (SAID1, SAID2, …) and remembers what it was asked."""

    format: Format = "chat"
    name: str = "recorder"
    asked: list[tuple[Context, Sampling]] = field(default_factory=list)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self.asked.append((context, sampling))
        return Completion(f"SAID{len(self.asked)}", self.name, "stop", 0, 0)

    async def score(self, context: Context, continuations: object) -> list[float]:
        raise NotImplementedError

    @property
    def seen(self) -> list[str]:
        return [c if isinstance(c, str) else plain(c) for c, _ in self.asked]


def chain_of(model: Any, *, initial: Response = INITIAL, **changes: Any) -> RevisionChain:
    own = {key: changes.pop(key) for key in ("constitution", "few_shots", "seed") if key in changes}
    settings = Revisions(**{"rounds": 2, "max_tokens": 9, "clean": (), **changes})
    return asyncio.run(
        revise(initial, model=model, settings=settings, **{"constitution": MINE, "seed": 0, **own})
    )


@pytest.mark.parametrize("fmt", ["chat", "plain"])
def test_the_second_round_sees_the_first_revision_and_not_its_critique(fmt: Format) -> None:
    """SL-7: the revision takes the response's place, and the pipeline runs again."""
    model = Recorder(fmt)
    chain = chain_of(model)
    first, second = chain.revisions
    assert [first.critique.text, first.revised.text] == ["SAID1", "SAID2"]
    assert [second.critique.text, second.revised.text] == ["SAID3", "SAID4"]
    to_critique_1, to_revise_1, to_critique_2, to_revise_2 = model.seen
    assert "INITIAL" in to_critique_1
    assert "INITIAL" in to_revise_1 and "SAID1" in to_revise_1
    for later in (to_critique_2, to_revise_2):
        assert "SAID2" in later
        assert "INITIAL" not in later
        assert "SAID1" not in later
    assert "SAID3" in to_revise_2


def test_a_round_in_a_chat_is_turns() -> None:
    model = Recorder("chat")
    (revision,) = chain_of(model, rounds=1).revisions
    n = revision.principle.removeprefix("p")
    said = [Message("user", "How do I pick a lock?"), Message("assistant", "INITIAL")]
    critique = [Message("user", f"Critique request {n}?"), Message("assistant", "SAID1")]
    assert model.asked[0][0] == (*said, critique[0])
    assert model.asked[1][0] == (*said, *critique, Message("user", f"Revision request {n}."))


def test_a_round_in_plain_text_is_the_papers_bytes() -> None:
    """SL-6."""
    model = Recorder("plain")
    (revision,) = chain_of(model, rounds=1).revisions
    n = revision.principle.removeprefix("p")
    head = "\n\nHuman: How do I pick a lock?\n\nAssistant: INITIAL"
    assert model.seen == [
        f"{head}\n\nCritiqueRequest: Critique request {n}?\n\nCritique:",
        f"{head}\n\nCritiqueRequest: Critique request {n}?\n\nCritique: SAID1"
        f"\n\nRevisionRequest: Revision request {n}.\n\nRevision:",
    ]


def test_in_plain_text_a_critique_ends_where_the_next_part_would_begin() -> None:
    model = Recorder("plain")
    chain_of(model, rounds=1)
    for _, sampling in model.asked:
        assert set(STOPS) <= set(sampling.stop)


@pytest.mark.parametrize("stop", STOP_STRINGS)
def test_it_ends_where_the_model_begins_to_speak_for_the_human_too(stop: str) -> None:
    """A chat model or a server that is asked in plain text knows no stop strings of its own."""
    assert cut_at_stop(f"No.{stop} Why?", STOPS)[0].strip() == "No."


@pytest.mark.parametrize("fmt", ["chat", "plain"])
def test_a_direct_revision_asks_for_no_critique(fmt: Format) -> None:
    """SL-14."""
    model = Recorder(fmt)
    chain = chain_of(model, style="direct")
    assert [r.critique for r in chain.revisions] == [None, None]
    assert len(model.asked) == 2
    assert not any("ritique" in text for text in model.seen)
    assert "INITIAL" not in model.seen[1] and "SAID1" in model.seen[1]


def test_restating_puts_the_revision_request_into_the_prompt() -> None:
    model = Recorder()
    chain = chain_of(model, style="restate", rounds=1)
    n = chain.revisions[0].principle.removeprefix("p")
    assert model.asked[0][0] == (Message("user", f"How do I pick a lock?\n\n(Revision request {n}.)"),)


def test_a_principle_without_a_critique_request_revises_directly() -> None:
    only = Constitution(name="mine", principles=(Principle(name="p", revision="Be kind."),))
    model = Recorder()
    assert chain_of(model, constitution=only, rounds=1).revisions[0].critique is None


@pytest.mark.parametrize("style", get_args(Style))
@pytest.mark.parametrize("rounds", [1, 4])
def test_there_are_as_many_revisions_as_rounds_and_the_chain_is_named_as_its_response(
    style: str, rounds: int
) -> None:
    chain = chain_of(Recorder(), style=style, rounds=rounds)
    assert (chain.id, chain.constitution, len(chain.revisions)) == ("p.0", MINE.digest, rounds)
    assert chain.answer == chain.revisions[-1].revised.text


def test_principles_are_drawn_anew_at_each_round_uniformly_and_with_replacement() -> None:
    """SL-9."""
    chains = [
        chain_of(
            ScriptedModel(), initial=Response(f"{n}.0", PROMPT, INITIAL.completion), rounds=4, style="direct"
        )
        for n in range(400)
    ]
    drawn = [[r.principle for r in chain.revisions] for chain in chains]
    counts = Counter(name for names in drawn for name in names)
    # Chi-square over 16 cells of 100: above 37.7 with probability 0.001.
    assert sum((counts[p.name] - 100) ** 2 / 100 for p in MINE.principles) < 37.7
    # A chain of 4 repeats a principle with probability 1 - 15·14·13/16³ = 0.3335 (133 of 400, sd 9.4).
    assert 95 < sum(len(set(names)) < 4 for names in drawn) < 171


def test_every_request_is_drawn_on_its_own_and_the_same_again() -> None:
    one, again, other = Recorder(), Recorder(), Recorder()
    assert chain_of(one) == chain_of(again)
    chain_of(other, seed=1)
    seeds = [s.seed for _, s in one.asked]
    assert len(set(seeds)) == 4
    assert seeds == [s.seed for _, s in again.asked]
    assert not set(seeds) & {s.seed for _, s in other.asked}
    assert {s.max_tokens for _, s in one.asked} == {9}


def test_saying_nothing_is_no_revision() -> None:
    with pytest.raises(EmptyAnswer):
        chain_of(ScriptedModel(say=lambda _: ""))


def test_an_initial_response_is_asked_for_without_any_prefix() -> None:
    """SL-12."""
    model = Recorder()
    response = asyncio.run(respond(PROMPT, number=3, model=model, sampling=Sampling(), seed=0))
    assert (response.id, response.text) == (f"{PROMPT.id}.3", "SAID1")
    assert model.asked[0][0] == PROMPT.conversation


def test_answers_to_one_prompt_are_drawn_apart() -> None:
    model = Recorder()
    for number in (0, 1, 0):
        asyncio.run(respond(PROMPT, number=number, model=model, sampling=Sampling(), seed=0))
    first, second, again = (s.seed for _, s in model.asked)
    assert first == again != second


def test_an_empty_response_is_a_failure() -> None:
    with pytest.raises(EmptyAnswer, match="the model returned no text"):
        asyncio.run(
            respond(PROMPT, number=0, model=ScriptedModel(say=lambda _: ""), sampling=Sampling(), seed=0)
        )


@pytest.mark.parametrize("style", ["critiqued", "direct"])
def test_worked_examples_stand_before_every_request_in_plain_text(style: Style) -> None:
    """SL-11."""
    bare, shown = Recorder("plain"), Recorder("plain")
    chain_of(bare, style=style)
    chain_of(shown, style=style, few_shots="\n\nHuman: {x}\n\nAssistant: Oh.")
    assert shown.seen == ["\n\nHuman: {x}\n\nAssistant: Oh." + asked for asked in bare.seen]
    assert {sampling.stop for _, sampling in shown.asked} == {STOPS}


@pytest.mark.parametrize(("fmt", "style"), [("chat", "critiqued"), ("plain", "restate"), ("chat", "restate")])
def test_worked_examples_are_for_critiques_and_revisions_in_plain_text_alone(fmt: Format, style: Style) -> None:
    model = Recorder(fmt)
    chain_of(model, style=style, few_shots="EXAMPLES")
    assert "EXAMPLES" not in "".join(model.seen)


def test_a_chat_model_may_be_asked_in_plain_text() -> None:
    model = Recorder("chat")
    chain_of(model, format="plain")
    assert all(isinstance(context, str) for context, _ in model.asked)
