"""Our own worked examples: perfectly regular, because a pretrained model copies every irregularity that it is shown."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import constitutional_ai
from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.data.worked_examples import BUILT_IN, examples_in
from constitutional_ai.detectors.objection import kind_of_objection
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback import chain_of_thought
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.rl_cai.feedback.worked_choices import (
    CHAIN_OF_THOUGHT,
    MULTIPLE_CHOICE,
    load_few_shots,
)
from constitutional_ai.seeding import rng
from constitutional_ai.sl_cai.critique_requests import to_revise
from constitutional_ai.sl_cai.worked_critiques import CRITIQUE_REVISION, critique_revision
from tests.paper_files import PAPER, paper

FOLDER = Path(constitutional_ai.__file__).parent / "data" / "few_shots"
COUNTS = {CRITIQUE_REVISION: 5, MULTIPLE_CHOICE: 5, CHAIN_OF_THOUGHT: 6}
LINE = r"[^\n]+"
DIALOGUE = re.compile(
    rf"((?:\n\nHuman: {LINE}\n\nAssistant: {LINE})*\n\nHuman: {LINE})\n\nAssistant: ({LINE})"
    rf"\n\nCritiqueRequest: ({LINE})\n\nCritique: ({LINE})\n\nRevisionRequest: ({LINE})\n\nRevision: ({LINE})\n\nHuman:"
)
THOUGHT = re.compile(
    rf"\n\nHuman: Consider {LINE}((?:\n\nH: {LINE}\n\nA: {LINE})*\n\nH: {LINE})\n\n\{{\}}"
    rf"\n \(A\) \[\[\[({LINE})\]\]\]\n \(B\) \[\[\[({LINE})\]\]\]"
    rf"\n\nAssistant: Let's think step by step: (Option \(A\) {LINE} Option \(B\) {LINE} "
    r"All in all, \(([AB])\) is the better reply\.)\n\nHuman:\nSo the answer is: \(([AB])\)"
)


def read(name: str) -> list[Any]:
    data = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(data, list)
    return data


def matched(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    found = pattern.fullmatch(text)
    assert found, text
    return found.groups()


def turns(text: str) -> tuple[Message, ...]:
    roles = {"H": "user", "A": "assistant"}
    return tuple(Message(roles[turn[0]], turn.partition(": ")[2]) for turn in text.split("\n\n")[1:])


def dialogues() -> Iterator[tuple[str, ...]]:
    return (matched(DIALOGUE, text) for text in read(CRITIQUE_REVISION))


def thoughts() -> Iterator[tuple[str, ...]]:
    return (matched(THOUGHT, item["prompt"]) for item in read(CHAIN_OF_THOUGHT))


def texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    else:
        for item in data.values() if isinstance(data, dict) else data:
            yield from texts(item)


def test_our_worked_examples_are_as_many_as_the_papers_and_in_the_package() -> None:
    assert {path.name: len(read(path.name)) for path in FOLDER.glob("*.json")} == COUNTS
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["constitutional_ai"]
    assert set(FOLDER.rglob("*.json")) <= {path for glob in globs for path in FOLDER.parents[1].glob(glob)}


def test_short_examples_have_the_same_form_a_reason_and_no_words_of_inability() -> None:
    short = BUILT_IN["short"]
    texts = [text for _, text in examples_in(short, CRITIQUE_REVISION)]
    found = [matched(DIALOGUE, text) for text in texts]
    assert len(found) == 8
    assert all(re.match(r"I won't [^.,]+, because [^.]+\.", revision) for *_, revision in found)
    assert {kind_of_objection(answer) for _, answer, *_ in found} == {None}
    assert load_few_shots(short) is not None  # the other files are the built-in ones


def test_a_worked_dialogue_equals_our_own_requests_and_ends_where_the_human_speaks() -> None:
    for text, (talk, answer, *asked, revision) in zip(read(CRITIQUE_REVISION), dialogues(), strict=True):
        critique_request, critique, wanted = asked
        written = to_revise(turns(talk), answer, (critique_request, critique), wanted, "plain")
        assert text == f"{written} {revision}\n\nHuman:"


def test_one_answer_was_fine_and_its_revision_repeats_it() -> None:
    kept = [answer == revision for _, answer, *_, revision in dialogues()]
    assert kept.count(True) == 1
    assert kept[0] is kept[-1] is False


def test_some_dialogues_have_earlier_turns() -> None:
    assert {len(turns(talk)) for talk, *_ in dialogues()} == {1, 3}


def test_a_worked_chain_of_thought_equals_our_own_requests_under_any_principle() -> None:
    shown = load_few_shots(FOLDER).chain_of_thought([Principle(name="p", preference="Which {}?")], rng(0))
    rebuilt = ""
    for talk, first, second, thought, _, answer in thoughts():
        asked = chain_of_thought.question_for_reasoning(turns(talk), "Which {}?", first, second)
        rebuilt += f"{chain_of_thought.to_answer(asked, thought, 'plain')} ({answer})"
    assert shown == rebuilt


def test_thoughts_end_in_the_answer_that_they_come_to_and_each_letter_is_right_as_often() -> None:
    answers = [(concluded, answer) for *_, concluded, answer in thoughts()]
    assert all(concluded == answer for concluded, answer in answers)
    assert [answer for _, answer in answers].count("A") == len(answers) / 2


def test_the_longer_answer_is_not_always_the_better() -> None:
    pairs = [(item["corrects"][0], item["incorrects"][0]) for item in read(MULTIPLE_CHOICE)]
    assert sum(len(better) > len(worse) for better, worse in pairs) == 3
    longer = ["A" if len(first) > len(second) else "B" for _, first, second, *_ in thoughts()]
    assert 2 <= sum(a == b for a, b in zip(longer, [t[-1] for t in thoughts()], strict=True)) <= 5


@pytest.mark.parametrize("name", COUNTS)
def test_they_are_plain_text_without_a_stray_space_or_brace(name: str) -> None:
    for text in texts(read(name)):
        assert text.isascii()
        assert not re.search(r"  | \n|\t|\r|\n{3}", text)
        assert "{" not in text.replace("{}", "") and text.count("{}") == (name == CHAIN_OF_THOUGHT)


def test_they_leave_room_in_a_small_context() -> None:
    """Four characters a token: each prefix stays well below 2,048 tokens."""
    shots, principles = load_few_shots(FOLDER), [Principle(name="p", preference="?" * 150)]
    prefixes = [critique_revision(FOLDER), shots.multiple_choice(principles, rng(0))]
    assert all(len(p) < 6500 for p in [*prefixes, shots.chain_of_thought(principles, rng(0))])


def test_none_of_them_is_a_prompt_or_a_gate_question_of_ours() -> None:
    kinds = [load_prompts("built-in", kind) for kind in ("red_team", "helpful", "borderline")]
    talks = [prompt.conversation for prompts in kinds for part in prompts for prompt in part]
    ours = {m.content for talk in [*talks, *(q.conversation for q in gate_questions())] for m in talk}
    shown = [m.content for talk, *_ in (*dialogues(), *thoughts()) for m in turns(talk)]
    assert not ours & {*shown, *(choice.prompt for choice in load_few_shots(FOLDER).choices)}


def runs_of_words(text: str, length: int = 6) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[n : n + length]) for n in range(len(words) - length + 1)}


@paper
def test_no_six_words_in_a_row_are_the_papers() -> None:
    files = (PAPER / "prompts").glob("*.json")
    theirs = {
        run for file in files for text in texts(json.loads(file.read_text())) for run in runs_of_words(text)
    }
    answers = [text for name in COUNTS if name != CHAIN_OF_THOUGHT for text in texts(read(name))]
    # Of a thought, what is the format's own stays out.
    answers += [part for _, first, second, thought, *_ in thoughts() for part in (first, second, thought)]
    answers += [turn.content for talk, *_ in thoughts() for turn in turns(talk)]
    assert not {run for text in answers for run in runs_of_words(text)} & theirs
    assert runs_of_words(chain_of_thought.HEAD) <= theirs
