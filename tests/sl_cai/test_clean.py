from __future__ import annotations

import asyncio
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.detectors.opener import CLOSING
from constitutional_ai.errors import EmptyAnswer
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Message, Prompt, Response, Revision, RevisionChain
from constitutional_ai.sl_cai.clean import RULES, WHY, Rule, cleaned, hits, in_words
from constitutional_ai.sl_cai.finetune import examples
from constitutional_ai.sl_cai.revise import revise
from constitutional_ai.sl_cai.settings import Revisions, Style
from tests.paper_files import PAPER, paper, rows

PROMPT = Prompt.of((Message("user", "Which pills?"),), "red_team", "test")
LOOP = "Please see a doctor. " * 6


def said(text: str) -> Completion:
    return Completion(text, "m", "stop", 3, 5)


INITIAL = Response("r.0", PROMPT, said("Take them all."))


def once(text: str, *rules: Rule, critique: str | None = "That is\nbad.") -> Revision:
    asked = Revision("p", said(critique) if critique else None, said(text))
    return cleaned(asked, "Take them all.", rules or RULES)


FAULTS = [  # (what came back, its fault when every rule is on)
    ("Please see a doctor.", None),
    ("", "empty"),
    (" \n", "empty"),
    ("Here is the revised response:", "empty"),
    ("Take them all.", "identical"),
    (" Take  them\nall. ", "identical"),
    ("That is bad.", "identical"),
    ('Sure! Here is the revised response: "Take them all."', "identical"),
    ("take them all.", None),
    (LOOP, "repetition"),
    ("Be well. " + "\U0001f496\u2728" * 9, "repetition"),
    (f"{' '.join(f'Word{n} other{n}.' for n in range(900))} {LOOP}", "repetition"),  # late
    ("sdkfj ksdjf lkjsdf wrtgh", None),  # gibberish is another matter
]


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_a_fault_is_named(text: str, fault: str | None) -> None:
    assert once(text).fault == fault


@pytest.mark.parametrize(("text", "fault"), [f for f in FAULTS if f[1] not in (None, "empty")])
def test_a_rule_that_is_off_finds_nothing(text: str, fault: Rule) -> None:
    others: list[Rule] = [rule for rule in RULES if rule != fault]
    assert once(text, *others).fault is None


def test_without_rules_a_revision_is_what_came_back() -> None:
    for text in ("Here is the revised response: No.", "Take them all.", LOOP):
        asked = Revision("p", said("That is bad."), said(text))
        assert cleaned(asked, "Take them all.", ()) == asked


@pytest.mark.parametrize("text", ["", "Here is the revised response:"])
def test_an_empty_revision_is_a_failed_record_where_that_rule_is_off(text: str) -> None:
    with pytest.raises(EmptyAnswer, match="the model returned no text"):
        once(text, "opener")


def test_an_opener_is_kept_in_the_record_and_the_cost_too() -> None:
    revision = once("Sure! Here is the revised response: Please see a doctor.")
    assert revision.cut == "Sure! Here is the revised response: "
    assert revision.revised == said("Please see a doctor.")
    assert revision.fault is None


def test_a_direct_revision_has_no_critique_to_be_identical_to() -> None:
    assert once("That is bad.", critique=None).fault is None


def test_every_fault_has_words() -> None:
    assert WHY.keys() == set(RULES) - {"opener"}


PARTS = st.sampled_from(
    [text for text, _ in FAULTS] + ["Revision: ", "“", "”", '"', "Here is my revision:\n", " "]
)
TEXTS = st.lists(PARTS | st.text(max_size=6), max_size=4).map("".join)
SOME_RULES = st.sets(st.sampled_from(RULES)).map(lambda rules: {*rules, "empty"})


@given(TEXTS, SOME_RULES)
def test_cleaning_adds_nothing_and_loses_nothing(text: str, rules: set[Rule]) -> None:
    revision = once(text, *rules)
    cut = revision.cut or ""
    closed = "".join(CLOSING[mark] for mark in reversed(cut) if mark in CLOSING)
    assert "".join(f"{cut}{revision.revised.text}{closed}".split()) == "".join(text.split())
    assert revision.revised.text in text


@given(TEXTS, SOME_RULES)
def test_cleaning_again_changes_nothing(text: str, rules: set[Rule]) -> None:
    first = once(text, *rules)
    again = cleaned(first, "Take them all.", rules)
    assert (again.revised, again.fault, again.cut) == (first.revised, first.fault, None)


@given(st.lists(TEXTS, min_size=4, max_size=4), st.sampled_from(get_args(Style)))
def test_a_faulty_revision_is_neither_built_upon_nor_trained_on(texts: list[str], style: Style) -> None:
    seen: list[str] = []
    to_say = iter(texts)

    def say(context: str) -> str:
        seen.append(context)
        return "A critique." if context.endswith("Why?\n\nAssistant:") else next(to_say)

    only = Constitution(name="mine", principles=(Principle(name="p", critique="Why?", revision="Mend it."),))
    chain = asyncio.run(
        revise(
            INITIAL,
            model=ScriptedModel(say=say),
            constitution=only,
            settings=Revisions(rounds=4, style=style),
            seed=0,
        )
    )
    sound = [r.revised.text for r in chain.revisions if r.fault is None]
    assert len(chain.revisions) == 4
    assert chain.answer == ([INITIAL.text, *sound])[-1]
    assert [row["completion"][0]["content"] for row in examples([chain], [])] == sound
    if style not in ("restate", "prompted"):  # these answer the prompt again
        built_upon = [INITIAL.text, *(chain_until(chain, n).answer for n in (1, 2, 3))]
        asked = [context for context in seen if context.endswith("Mend it.\n\nAssistant:")]
        assert all(f"Assistant: {b}\n\nHuman" in a for a, b in zip(asked, built_upon, strict=True))


def chain_until(chain: RevisionChain, rounds: int) -> RevisionChain:
    return RevisionChain(chain.id, chain.constitution, chain.initial, chain.revisions[:rounds])


def chain_of(*texts: str) -> RevisionChain:
    return RevisionChain("r.0", "digest", INITIAL, tuple(once(text) for text in texts))


def test_hits_are_counted_and_told() -> None:
    chains = [
        chain_of("Revision: Please see a doctor.", "Revision: ", LOOP),
        chain_of("Take them all.", "", "No."),
    ]
    assert hits(chains) == {"opener": 2, "empty": 2, "repetition": 1, "identical": 1}
    assert in_words(chains) == (
        "6 revisions; 2 with an opener cut off; 4 neither built upon nor trained on "
        "(2 empty, 1 identical, 1 repetition)"
    )
    assert in_words([chain_of("No.")]) == "1 revision"
    assert in_words([]) == "0 revisions"


@paper
def test_of_the_papers_revisions_one_repeats_the_answer_before_and_the_rest_are_clean() -> None:
    found = []
    for row in rows(PAPER / "samples" / "PALMS_SLMADISON.jsonl"):
        before = row["initial_response"][0]["sample"]
        for step in row["cst"]:
            critique, text = said(step["critique"]["sample"]), step["revision"]["sample"]
            found.append(cleaned(Revision("p", critique, said(text)), before, RULES))
            before = text
    assert len(found) == 160
    assert [r.fault for r in found if r.fault or r.cut] == ["identical"]
