"""Letters that are read from the likely first tokens of a chat server's answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from constitutional_ai.errors import BrokenReply, ModelError, OnlyThought, RefusedAnswer
from constitutional_ai.models.abilities import Reading
from constitutional_ai.models.hosted.letters import PROBE, Place, letter_masses, places_of
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.records import Message
from tests.models.hosted.scripted_server import Answer, Places, Request, ScriptedServer, chat

ASKED = (Message("user", "(A) or (B)?"),)
STORY: Places = [("Once", {"Once": 0.6, "The": 0.3}), (" upon", {" upon": 0.9})]


def place(token: str, **likely: float) -> Place:
    return Place(token, list(likely.items()))


def said(*places: tuple[str, dict[str, float]]) -> list[Place]:
    return [Place(token, list(likely.items())) for token, likely in places]


MASSES: list[tuple[list[Place], list[float]]] = [
    (said(("A", {"A": 0.7, "B": 0.2, "The": 0.1})), [0.7, 0.2]),
    (said(("A", {"A": 0.4, " A": 0.2, "(A": 0.1, "(B)": 0.1, "B.": 0.05, "**B**": 0.05})), [0.7, 0.2]),
    (said(("(", {"(": 0.8, "A": 0.1}), ("B", {"B": 0.75, "A": 0.25})), [0.3, 0.6]),
    (said((" ", {" ": 1.0}), ("**", {"**": 0.5}), ("(", {"(": 1.0}), ("A", {"A": 0.6, "B": 0.4})), [0.3, 0.2]),
    (said(("A", {"A": 0.5, "(": 0.5}), (")", {")": 1.0, "B": 0.5})), [0.5, 0.0]),  # the other way is not known
    (said(("The", {"The": 0.9, "A": 0.06, "B": 0.04}), (" A", {" A": 1.0})), [0.06, 0.04]),
    (said(("A", {"A": 0.6, "B": 0.2}), ("nswer", {"nswer": 1.0})), [0.0, 0.2]),  # a word
    (said(("A", {"A": 0.6, "B": 0.2}), (" good", {" good": 1.0})), [0.0, 0.2]),  # an article
    (said(("A", {"A": 0.6, "B": 0.2}), (" because", {" because": 1.0})), [0.6, 0.2]),
    (said(("A", {"A": 0.6, "a": 0.2, "b": 0.1, "AB": 0.1, "C": 0.1})), [0.6, 0.0]),
    (said(("I", {"I": 1.0})), [0.0, 0.0]),
    ([], [0.0, 0.0]),
]


@pytest.mark.parametrize(("places", "masses"), MASSES)
def test_every_form_of_a_letter_counts_and_nothing_else(places: list[Place], masses: list[float]) -> None:
    assert letter_masses(places, "AB") == pytest.approx(masses)


def reply(content: Any, **message: Any) -> Any:
    choice = SimpleNamespace(logprobs=SimpleNamespace(content=content), message=SimpleNamespace(**message))
    return SimpleNamespace(choices=[choice])


def entry(token: str, logprob: Any, top: Any = None) -> Any:
    return SimpleNamespace(token=token, logprob=logprob, top_logprobs=top)


def test_the_token_that_was_said_counts_where_it_is_not_listed() -> None:
    (first,) = places_of(reply([entry("A", -1.0, [entry("B", -0.5)])]))
    assert [token for token, _ in first.alternatives] == ["B", "A"]
    (alone,) = places_of(reply([entry("A", -1.0)]))
    assert alone.probability == pytest.approx(0.36787944)


@pytest.mark.parametrize("logprob", [None, "-1", float("nan"), 3.0])
def test_a_log_probability_that_is_none_breaks_the_reply(logprob: Any) -> None:
    with pytest.raises(BrokenReply):
        places_of(reply([entry("A", logprob)]))


@pytest.mark.parametrize("content", [None, "A", []])
def test_a_reply_may_tell_nothing(content: Any) -> None:
    assert places_of(reply(content)) == []


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<think>", "\n", "(A)"], {}),
        (["\n", "<", "think", ">", "A"], {}),
        (["<|channel|>", "analysis", "<|message|>", "A"], {}),
        (["A"], {"reasoning_content": "(A) tells how"}),
        (["A"], {"reasoning": "(A) tells how"}),
    ],
)
def test_the_first_token_of_a_thought_is_no_letter(tokens: list[str], message: dict[str, str]) -> None:
    with pytest.raises(OnlyThought):
        places_of(reply([entry(token, -0.1) for token in tokens], **message))


# -- against a server


def answering(letters: Places) -> Answer:
    """Answer the probe with a story, and all else with these letters."""
    return chat(lambda request: STORY if is_probe(request) else letters)


def is_probe(request: Request) -> bool:
    return bool(request["messages"][0]["content"] == PROBE[0].content)


def read(server: ScriptedServer) -> Reading:
    return asyncio.run(ServerModel("m", server.url).letters(ASKED, "AB"))


def test_letters_are_shares_of_the_mass_that_they_hold() -> None:
    letters: Places = [("A", {"A": 0.6, "B": 0.2, "The": 0.2}), (".", {".": 1.0})]
    with ScriptedServer({"chat/completions": answering(letters)}) as server:
        reading = read(server)
    assert reading.probabilities == pytest.approx((0.75, 0.25))
    assert reading.label_mass == pytest.approx(0.8)
    assert (reading.raw, reading.usage) == ("A.", (5, 2))
    last = server.requests[-1]
    assert (last["logprobs"], last["top_logprobs"], last["temperature"]) == (True, 20, 0.0)
    assert last["chat_template_kwargs"]["enable_thinking"] is False


def test_letters_that_hold_nothing_have_no_shares() -> None:
    with ScriptedServer({"chat/completions": answering([("I", {"I": 1.0})])}) as server:
        assert read(server).probabilities == (0.0, 0.0)


def test_a_server_that_tells_sharpened_probabilities_is_asked_at_temperature_1() -> None:
    """A greedy token whose probability is told as 1 would make every label certain."""

    def sharpened(request: Request) -> Places:
        own: Places = STORY if is_probe(request) else [("A", {"A": 0.6, "B": 0.4})]
        return own if request["temperature"] else [(own[0][0], {own[0][0]: 1.0})]

    with ScriptedServer({"chat/completions": chat(sharpened)}) as server:
        assert read(server).probabilities == pytest.approx((0.6, 0.4))


def test_a_server_may_list_five_tokens_and_no_more() -> None:
    answer = answering([("A", {"A": 0.6, "B": 0.4})])

    def few(request: Request) -> tuple[int, Any]:
        if request["top_logprobs"] > 5:
            return 400, {"error": {"message": "top_logprobs must be at most 5"}}
        return answer(request)

    with ScriptedServer({"chat/completions": few}) as server:
        assert read(server).probabilities == pytest.approx((0.6, 0.4))
    assert server.requests[-1]["top_logprobs"] == 5


def untold(request: Request) -> tuple[int, Any]:
    return chat(lambda _: STORY)({**request, "logprobs": False})


def refused(request: Request) -> tuple[int, Any]:
    return 400, {"error": {"message": "logprobs is not supported by this model"}}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (untold, r"tells no log-probabilities of what it says .*feedback\.method=votes"),
        (refused, r"not supported by this model.*feedback\.method=votes"),
        (chat(lambda _: [("Once", {"Once": 1.0})]), r"tells no log-probabilities"),  # nothing but what was said
        (
            chat(lambda _: [("<think>", {"<think>": 1.0})]),
            r"thinks before it answers.*feedback\.thinking_tokens",
        ),
    ],
)
def test_a_server_that_tells_none_is_refused_before_the_first_question(answer: Answer, message: str) -> None:
    with ScriptedServer({"chat/completions": answer}) as server, pytest.raises(ModelError, match=message):
        read(server)
    assert all(map(is_probe, server.requests))


def test_a_refusal_beside_the_content_is_a_refusal() -> None:
    def refuses(request: Request) -> tuple[int, Any]:
        status, body = answering(STORY)(request)
        if not is_probe(request):
            body["choices"][0] |= {"logprobs": None}
            body["choices"][0]["message"] |= {"content": None, "refusal": "I can't help with that."}
        return status, body

    with ScriptedServer({"chat/completions": refuses}) as server, pytest.raises(RefusedAnswer):
        read(server)
