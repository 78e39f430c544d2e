"""Conversations with two models, over HTTP."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from constitutional_ai.errors import RecordError
from constitutional_ai.label.label_app import LONGEST_TEXT
from constitutional_ai.label.label_questions import Choice, PairQuestion
from constitutional_ai.label.settings import Settings
from constitutional_ai.label.study import Study
from constitutional_ai.models.scripted import ScriptedModel
from tests.label.study_fixtures import (
    Browser,
    Slow,
    client,
    number_in,
    prompt,
    speaker,
    talk_study,
    texts_in,
    turn_in,
)


def write(person: Browser, text: str) -> str:
    """Send a human turn and return the page with both replies."""
    person.post("/write", turn=turn_in(person.get()), text=text)
    return person.whole()


def pairs(of: Study) -> list[PairQuestion]:
    return [each.question for each in of.questions() if isinstance(each.question, PairQuestion)]


def test_a_conversation_goes_on_with_the_reply_that_was_chosen(tmp_path: Path) -> None:
    of = talk_study(tmp_path)
    with client(of) as browser:
        anna = Browser(of, browser)
        anna.post("/agree")
        page = write(anna, "Hello, <b>you</b>")
        assert "&lt;b&gt;you" in page and "Both replies are there" in page and "disabled" not in page
        texts = texts_in(page)
        assert sorted(texts) == ["0-ledom says 1", "1-ledom says 1"]
        page = anna.post("/answer", question=number_in(page), answer="second-3")
        assert texts[1] in page and texts[0] not in page
        page = write(anna, "And now?")
        assert sorted(texts_in(page)) == ["0-ledom says 2", "1-ledom says 2"]
        page = anna.post("/answer", question=number_in(page), answer="both_bad")
        anna.post("/end", question=number_in(page))
        assert "Begin a conversation" in anna.get()
    first, second = pairs(of)
    assert second.began == first.began == first.prompt.id != second.prompt.id
    assert [m.role for m in second.prompt.conversation] == ["user", "assistant", "user"]
    assert second.prompt.conversation[1].content == texts[1]
    assert [vote.answer.winner for vote in of.votes() if isinstance(vote.answer, Choice)][1] == "both_bad"


def test_the_replies_grow_by_their_places(tmp_path: Path) -> None:
    of = talk_study(tmp_path)
    with client(
        of, {"model-0": Slow(lambda _: "one two three"), "model-1": Slow(lambda _: "un deux trois")}
    ) as browser:
        anna = Browser(of, browser)
        anna.post("/agree")
        page = anna.post("/write", turn=turn_in(anna.get()), text="Count.")
        assert "The replies are being written" in page and "disabled" in page
        anna.post("/answer", 409, question=number_in(page), answer="tie")
        stream = browser.get(re.search(r'data-stream="([^"]+)"', page)[1])  # type: ignore[index]
    assert stream.headers["content-type"].startswith("text/event-stream") and "model" not in stream.text
    events = [json.loads(line.removeprefix("data: ")) for line in stream.text.split("\n\n") if line]
    assert events[-1]["state"] == "whole" and {e["state"] for e in events[:-1]} == {"writing"}
    assert len({event["first"] for event in events}) >= 3
    assert {events[-1]["first"], events[-1]["second"]} == {"one two three", "un deux trois"}


def test_a_form_that_is_sent_twice_or_late_changes_nothing(tmp_path: Path) -> None:
    of = talk_study(tmp_path)
    with client(of) as browser:
        anna = Browser(of, browser)
        anna.post("/agree")
        turn = turn_in(anna.get())
        for _ in range(2):
            anna.post("/write", turn=turn, text="Hello")
        page = anna.whole()
        for answer in ("first-1", "second-1"):
            anna.post("/answer", question=number_in(page), answer=answer)
        anna.post("/write", turn=turn, text="Hello")
        anna.post("/end", question=999)
        anna.post("/write", 400, turn=turn_in(anna.get()), text="x" * (LONGEST_TEXT + 1))
        anna.post("/write", 400, turn=turn_in(anna.get()), text=" \n ")
    assert len(pairs(of)) == len(of.votes()) == 1


def test_nobody_sees_or_answers_what_belongs_to_another(tmp_path: Path) -> None:
    of = talk_study(tmp_path, people=["anna", "ben"])
    with client(of) as browser:
        anna, ben = Browser(of, browser), Browser(of, browser, "ben")
        anna.post("/agree"), ben.post("/agree")
        number = number_in(write(anna, "A secret."))
        assert "secret" not in ben.get()
        ben.get(f"/replies/{number}", 404), ben.get(f"/question/{number}", 404)
        ben.post("/answer", 404, question=number, answer="tie")
        ben.post("/end", question=number)
        assert "secret" in anna.get()


def test_a_model_that_fails_is_not_named_and_may_try_again(tmp_path: Path) -> None:
    of, said, broken = talk_study(tmp_path), list[str](), [True]

    def reply(context: str) -> str:
        if broken[0]:
            raise RecordError("model-0 is out of words")
        return "Back."

    models = {"model-0": ScriptedModel(say=reply), "model-1": speaker("model-1")}
    with client(of, models, said) as browser:
        anna = Browser(of, browser)
        anna.post("/agree")
        page = write(anna, "Hello")
        assert (
            "A model gave no reply" in page
            and "out of words" not in page
            and 'fieldset id="choices" disabled' in page
        )
        assert said == ["model-0 gave no reply: model-0 is out of words"]
        broken[0] = False
        anna.post("/again", question=number_in(page))
        assert "Back." in anna.whole()


def test_a_new_server_shows_what_the_old_one_did(tmp_path: Path) -> None:
    of = talk_study(tmp_path)
    with client(of) as browser:
        anna = Browser(of, browser)
        anna.post("/agree")
        before = write(anna, "Hello")
    of.close()
    again = Study(tmp_path)
    with client(
        again, {label: ScriptedModel(say=lambda _: "other") for label in again.settings.names}
    ) as browser:
        assert Browser(again, browser).get() == before


def test_replies_that_a_kill_cut_off_are_written_again(tmp_path: Path) -> None:
    of = talk_study(tmp_path)
    of.agree("anna")
    of.add_turn("anna", PairQuestion("anna.1.1", prompt("Hi", "helpful"), "x", "model-0", "model-1", "Kept."))
    with client(of) as browser:
        assert sorted(texts_in(Browser(of, browser).whole())) == ["1-ledom says 1", "Kept."]


def test_all_pairs_of_models_get_as_many_conversations(tmp_path: Path) -> None:
    of = talk_study(tmp_path, models=4, people=["anna", "ben"])
    with client(of) as browser:
        people = [Browser(of, browser, name) for name in ("anna", "ben")]
        for person in people:
            person.post("/agree")
        for n in range(12):
            page = write(people[n % 2], f"Hello {n}")
            people[n % 2].post("/end", question=number_in(page))
    assert set(Counter((q.a, q.b) for q in pairs(of)).values()) == {2}


@pytest.mark.parametrize("own", [True, False])
def test_a_prompt_is_given_to_each_person_and_may_be_replaced(tmp_path: Path, own: bool) -> None:
    given = [prompt(f"Prompt {n}", "red_team") for n in range(3)]
    labels = (("a", "scripted:echo"), ("b", "scripted:echo"))
    of = Study.begin(tmp_path, Settings("compare", 7, "models", "red_team", labels), (), given)
    of.add_people(["anna", "ben"])
    with client(of) as browser:
        people = [Browser(of, browser, name) for name in ("anna", "ben")]
        pages = [person.post("/agree") for person in people]
        assert "Prompt 0" in pages[0] and "Prompt 1" in pages[1]
        page = write(people[0], "Mine" if own else "Prompt 0")
        people[0].post("/end", question=number_in(page))
        assert "Prompt 2" in people[0].get()
    (turn,) = pairs(of)
    assert turn.prompt.source == ("cai label" if own else "test") and turn.began == turn.prompt.id
