from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.detectors.opener import CLOSING, without_opener
from tests.paper_files import PAPER, paper, rows

CUT = (  # each before the text "Ask a doctor."
    "Here is the revised response: ",
    "Here is the revised response.\n\n",
    "Here's a revised version of the assistant's response that removes all harmful content:\n\n",
    "Here’s a revised version of the response, put more kindly: ",
    "Here is the rewritten text:\n",
    "Here is my response: ",
    "Here's a response that is free of harm:\n\n",
    "Here's a more polite version: ",
    "Here is a safer and more helpful answer: ",
    "Here is my revision: ",
    "Here's how I would rewrite the response: ",
    "Below is a rewritten answer, with the insults taken out: ",
    "This is the revised reply: ",
    "Sure, here's a rewrite: ",
    "Sure! Here is a rewrite of the response:\n",
    "Sure, I'd be happy to help. Here's an improved version of the previous answer: ",
    "Certainly! Here's a revised response without the slurs:\n\n",
    "You're right, that was unkind. Here's a better answer: ",
    "I apologise for my previous response. Here is a corrected response: ",
    "Thank you for pointing that out. Here is an updated reply: ",
    "I have rewritten my response to be kinder:\n\n",
    "I've revised the assistant's answer to remove harm.\n",
    "The revised answer is: ",
    "My revised response is as follows:\n",
    "A better response would be: \n",
    "Revised response: ",
    "**Revised Response:** ",
    "### Revised response\n\n",
    "[Revised answer]: ",
    "Revised Assistant Response (2): ",
    "REVISION: ",
    "Sure. Revision: Revised response: ",
)
KEPT = (
    "Ask a doctor.",
    "Sure! Ask a doctor.",
    "Sure, here's a recipe: mix flour and water.",
    "Here is how to bake bread: mix flour and water.",
    "Here is how to write an improved answer: be brief.",
    "Here's a list of ways to calm down: breathe.",
    "Here's a better way to answer: smile.",
    "Here's the answer: 42.",
    "Here is a revised recipe: mix flour and water.",
    "Here is a revised version of your essay: Spring is near.",
    "Here is the corrected version of the code: x = 1",
    "Here's a rewrite of Hamlet: He lives.",
    "Here is an updated response plan for earthquakes: run.",
    "Here is the revised edition of the book.",
    "This is a normal response to grief: it passes.",
    "This is a tough reply.\nTake your time.",
    "A better answer is that it depends: ask a doctor.",
    "A more common answer would be: yes.",
    "I would revise your will: ask a lawyer.",
    "I have written the reply: it is short.",
    "I apologize for my previous response. Ask a doctor.",
    "Sorry, I can't help with that. Here is a better answer: ask a doctor.",
    "You are right. Ask a doctor.",
    "The revised response of the government was swift.",
    "Revisions are hard.",
    "Updated: May 2020.",
    '"Yes" and "no"',
    '"Ask a doctor," she said.',
    "'Ask a doctor.'",
    '"',
    "",
    "  \n",
    " Ask a doctor. ",
)


@pytest.mark.parametrize("opener", CUT)
def test_an_opener_is_cut_off_verbatim(opener: str) -> None:
    assert without_opener(opener + "Ask a doctor.") == (opener, "Ask a doctor.")


@pytest.mark.parametrize("opener", CUT)
def test_nothing_is_left_of_an_opener_alone(opener: str) -> None:
    cut, left = without_opener(opener)
    assert (cut.strip(), left) == (opener.strip(), "")


@pytest.mark.parametrize("text", KEPT)
def test_an_answer_stays_as_it_is(text: str) -> None:
    assert without_opener(text) == ("", text)


@pytest.mark.parametrize(("opening", "closing"), CLOSING.items())
def test_quotation_marks_around_the_whole_are_cut_off(opening: str, closing: str) -> None:
    assert without_opener(f"{opening}Ask a doctor.{closing}\n") == (opening, "Ask a doctor.")
    opener = f"Revised response: {opening}"
    assert without_opener(f"{opener}Ask a doctor.{closing}") == (opener, "Ask a doctor.")


PARTS = st.sampled_from([*CUT, *KEPT, *CLOSING, *CLOSING.values(), " ", "\n", ":", "Sure! ", "Here is "])
TEXTS = st.lists(PARTS | st.text(max_size=5), max_size=8).map("".join)


@given(TEXTS)
def test_what_was_cut_off_and_what_is_left_are_what_there_was(text: str) -> None:
    cut, left = without_opener(text)
    closed = "".join(CLOSING[mark] for mark in reversed(cut) if mark in CLOSING)
    assert "".join((cut + left + closed).split()) == "".join(text.split())
    assert text.startswith(cut) and left in text


@given(TEXTS)
def test_cutting_twice_cuts_no_more(text: str) -> None:
    _, left = without_opener(text)
    assert without_opener(left) == ("", left)


@pytest.mark.parametrize(
    "part", [*CUT, "Here is a ", "I'd be happy to help, ", "the more a and a ", '"', "Sure! ", " ", "**", "a-"]
)
def test_a_long_text_takes_no_longer(part: str) -> None:
    text = (part * 100_000)[:100_000]
    start = time.perf_counter()
    without_opener(f"Here is a revised {text}")
    without_opener(text)
    assert time.perf_counter() - start < 2  # measured: below 0.1


@paper
def test_the_papers_revisions_have_no_openers() -> None:
    chains = rows(PAPER / "samples" / "PALMS_SLMADISON.jsonl")
    texts = [step["revision"]["sample"] for chain in chains for step in chain["cst"]]
    assert len(texts) == 160
    assert [text for text in texts if without_opener(text)[0]] == []
