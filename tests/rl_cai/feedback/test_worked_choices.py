from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Principle
from constitutional_ai.constitutions.published import import_constitution
from constitutional_ai.data.worked_examples import FEW_SHOTS
from constitutional_ai.errors import InputError
from constitutional_ai.rl_cai.feedback.questions import CHOICES
from constitutional_ai.rl_cai.feedback.worked_choices import (
    CHAIN_OF_THOUGHT,
    MULTIPLE_CHOICE,
    load_few_shots,
)
from constitutional_ai.seeding import rng
from tests.paper_files import PAPER, paper

CHOICE = {"prompt": "\n\nHuman: {Hi}\n\nAssistant:", "corrects": ["Hello {}"], "incorrects": ["Go."]}
THOUGHTS = [{"prompt": "\nHuman: {}\n (A) {x}\n"}, {"prompt": "Human: two {}"}]
FILES: dict[str, Any] = {MULTIPLE_CHOICE: [CHOICE], CHAIN_OF_THOUGHT: THOUGHTS}
WHICH = [Principle(name="p", preference="Which is {kinder}?")]
TWO_SHOTS = (
    "\n\nConsider the following conversation between a human and an assistant:\n\nHuman: {Hi}"
    "\n\n\nWhich is {kinder}? Options:\n (A) [[[Hello {}]]]\n (B) [[[Go.]]]\n\nThe answer is: (A)",
    "\n\nConsider the following conversation between a human and an assistant:\n\nHuman: {Hi}"
    "\n\n\nWhich is {kinder}? Options:\n (A) [[[Go.]]]\n (B) [[[Hello {}]]]\n\nThe answer is: (B)",
)


def written(folder: Path, **changes: object) -> Path:
    for name, content in {**FILES, **changes}.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def test_a_worked_choice_is_the_question_in_either_order_with_its_letter(tmp_path: Path) -> None:
    shots = load_few_shots(written(tmp_path))
    drawn = {shots.multiple_choice(WHICH, rng(n)) for n in range(20)}
    assert drawn == set(TWO_SHOTS)
    assert shots.multiple_choice(WHICH, rng(1)) == shots.multiple_choice(WHICH, rng(1))


def test_thoughts_are_stripped_joined_and_given_a_principle_in_one_pass(tmp_path: Path) -> None:
    """5.1.6: texts hold braces, and a principle may hold the very slot."""
    shots = load_few_shots(written(tmp_path))
    slots = [Principle(name="p", preference="Which {}?")]
    assert shots.chain_of_thought(slots, rng(0)) == (
        "\n\nHuman: \nWhich {}? Options:\n (A) {x}\n\nHuman: two \nWhich {}? Options:"
    )


def test_a_runs_digest_of_the_built_in_examples_never_changes() -> None:
    """An old run compares it: a class or a field by another name would refuse to go on with that run."""
    shots = repr(load_few_shots(FEW_SHOTS))
    assert hashlib.sha256(shots.encode()).hexdigest()[:16] == "e2c8825bb181c7db"


BAD: list[tuple[str, object, str]] = [
    (MULTIPLE_CHOICE, [{**CHOICE, "corrects": []}], "[0] must hold 'prompt', one human turn"),
    (MULTIPLE_CHOICE, [{**CHOICE, "prompt": "Hi"}], "[0] must hold 'prompt', one human turn"),
    (MULTIPLE_CHOICE, [{**CHOICE, "prompt": 2 * "\n\nHuman: Hi\n\nAssistant:"}], "one human turn"),
    (CHAIN_OF_THOUGHT, [{"prompt": "no slot"}], "[0] must hold 'prompt', a text with one '{}'"),
    (CHAIN_OF_THOUGHT, [{"prompt": "{} {}"}], "a text with one '{}'"),
]


@pytest.mark.parametrize(("name", "content", "problem"), BAD)
def test_a_file_of_another_form_is_an_input_error(
    tmp_path: Path, name: str, content: object, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_few_shots(written(tmp_path, **{name: content}))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert problem in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=MULTIPLE_CHOICE):
        load_few_shots(tmp_path)


WORDS = ["{}", "{x", "%s", "\n\nHuman:", "\n\nHuman: ", "\n\nAssistant:", " "]
TEXT = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=4).map("".join)
KEYS = st.sampled_from(["prompt", "corrects", "incorrects"])
JSON = st.recursive(st.none() | TEXT, lambda x: st.lists(x, max_size=2) | st.dictionaries(KEYS, x, max_size=3))
ITEMS = st.lists(
    JSON | st.fixed_dictionaries({k: st.lists(TEXT, max_size=2) | TEXT for k in CHOICE}), max_size=2
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(FILES)), ITEMS, TEXT.filter(str.strip))
def test_hostile_files_give_a_prefix_or_one_sentence(
    tmp_path: Path, name: str, items: object, text: str
) -> None:
    principles = [Principle(name="p", preference=text)]
    try:
        shots = load_few_shots(written(tmp_path, **{name: items}))
    except InputError as error:
        assert name in str(error)
    else:
        assert shots.multiple_choice(principles, rng(0)).count(text.strip()) >= len(shots.choices)
        assert shots.chain_of_thought(principles, rng(0)).count(text.strip()) >= len(shots.thoughts)


@paper
def test_the_papers_choices_are_five_questions_each_with_a_principle_and_an_order_of_its_own() -> None:
    known = import_constitution(PAPER).for_preference
    shots = load_few_shots(PAPER)
    drawn = [shots.multiple_choice(known, random.Random(n)) for n in range(40)]
    for text in drawn:
        assert len(parts := text.split("\n\nConsider the following")) == 6
        assert parts[0] == ""
        assert (
            text.count("\n\nHuman: ") == text.count(" Options:\n (A) [[[") == text.count("The answer is:") == 5
        )
        assert "\n\nAssistant:" not in text
        assert text.endswith(CHOICES)
    used = {p.name for p in known for text in drawn if p.preference and p.preference in text}
    assert used == {p.name for p in known}
    # 40 prefixes of 5 draws: half of the 200 answers are (A), sd 7.
    assert 70 < sum(text.count("The answer is: (A)") for text in drawn) < 130


@paper
def test_the_papers_thoughts_are_six_with_their_answers() -> None:
    known = import_constitution(PAPER).for_preference
    text = load_few_shots(PAPER).chain_of_thought(known, random.Random(0))
    assert text.startswith("\n\nHuman: Consider ")
    assert text.count("Human: Consider the following") == text.count("\n\nHuman: Consider the following") == 6
    assert text.count("\n\nAssistant: Let's think step by step:") == text.count(" Options:\n (A) [[[") == 6
    answers = [part[:4] for part in text.split("\n\nHuman:\nSo the answer is:")[1:]]
    assert answers == [" (B)", " (B)", " (A)", " (B)", " (A)", " (B)"]
    assert text.endswith("So the answer is: (B)")
    assert "{}" not in text
    assert "\n\n\n\n" not in text
