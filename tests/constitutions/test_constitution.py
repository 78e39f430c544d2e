from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import (
    Constitution,
    Principle,
    applying_to,
    draw,
    load_constitution,
)
from constitutional_ai.errors import InputError
from constitutional_ai.records import Kind, Message, Prompt
from constitutional_ai.seeding import rng

GOOD = """\
name: mine
principles:
  - name: kind
    critique: Was it kind?
    revision: Make it kind.
  - name: honest
    preference: Which is more honest?
"""

REFUSED = [  # (text, what the one sentence says after the file's name)
    ("", " must hold 'name:' and 'principles:'"),
    ("- a\n- b\n", " must hold 'name:' and 'principles:'"),
    ("name: [mine\n", ":2: not YAML: "),
    ("name: mine\n", ":1: principles: is missing"),
    ("name: mine\nprinciples: []\n", ":2: principles: must not be empty"),
    ("name: mine\nprincipals: []\n", "Did you mean 'principles'?"),
    (
        GOOD.replace("critique:", "critque:"),
        ":4: principles.0.critque: unknown key 'critque'. Did you mean 'critique'?",
    ),
    (GOOD.replace("    revision: Make it kind.\n", ""), "has a critique request but no revision request"),
    (
        GOOD.replace("    preference: Which is more honest?\n", ""),
        ":6: principles.1: has neither a revision request",
    ),
    (GOOD.replace("name: honest", "name: kind"), "two principles are named 'kind'"),
    (GOOD.replace("Make it kind.", "''"), ":5: principles.0.revision: must not be empty"),
    (
        GOOD.replace("Make it kind.", "'  '"),
        ":5: principles.0.revision: must not be empty",
    ),
    (GOOD.replace("Make it kind.", "3"), ":5: principles.0.revision: must be a text"),
    (GOOD + "    upheld: You are honest.\n", ":6: principles.1: has only one of 'upheld' and 'broken'"),
    (GOOD + "    weight: 0\n", ":8: principles.1.weight: must be above 0"),
    (GOOD + "    weight: .inf\n", ":8: principles.1.weight: must be a finite number"),
    (GOOD + "    weight: .nan\n", ":8: principles.1.weight: must be"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_constitution(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_constitution(path)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InputError, match=r"no constitution 'defualt': .* Did you mean 'default'\?"):
        load_constitution("defualt")


def test_a_principle_may_have_one_side_only(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    loaded = load_constitution(path)
    assert [p.name for p in loaded.for_revision] == ["kind"]
    assert [p.name for p in loaded.for_preference] == ["honest"]
    assert {p.name: p.weight for p in loaded.principles}["honest"] == 1.0


def test_ours_has_at_least_the_papers_sixteen_of_each() -> None:
    ours = load_constitution("default")
    assert len(ours.for_revision) >= 16
    assert len(ours.for_preference) >= 16
    assert all(p.critique for p in ours.for_revision)
    assert len(ours.for_likelihood) == len(ours.for_preference)


# YAML folds the three rare line breaks into blanks.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"), min_size=1
).filter(str.strip)
PRINCIPLES = st.lists(
    st.builds(
        Principle,
        name=TEXT,
        revision=TEXT,
        critique=st.none() | TEXT,
        preference=st.none() | TEXT,
        weight=st.floats(1e-6, 1e6),
        tags=st.tuples() | st.tuples(TEXT),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda p: p.name,
)


@settings(max_examples=50)
@given(PRINCIPLES)
def test_a_constitution_keeps_its_version_when_written_and_read(
    tmp_path: Path, principles: list[Principle]
) -> None:
    first = Constitution(name="mine", principles=tuple(principles))
    path = tmp_path / "again.yaml"
    path.write_text(first.to_yaml(), encoding="utf-8")
    again = load_constitution(path)
    assert again.principles == first.principles
    assert again.digest == first.digest


def version(**changes: object) -> str:
    principle = Principle(**{"name": "p", "revision": "Be kind.", **changes})
    return Constitution(name="mine", principles=(principle,)).digest


@pytest.mark.parametrize(
    "change", [{"name": "q"}, {"revision": "Be nice."}, {"weight": 2.0}, {"preference": "Which?"}]
)
def test_the_version_changes_with_what_principles_say_and_weigh(change: dict[str, object]) -> None:
    assert version(**change) != version()


def test_the_version_does_not_change_with_tags() -> None:
    assert version(tags=("harm",)) == version()


def test_draws_are_uniform_and_with_replacement() -> None:
    principles = [Principle(name=str(n), preference="Which?") for n in range(16)]
    rng = random.Random(0)
    drawn = [draw(principles, rng).name for _ in range(16_000)]
    counts = Counter(drawn)
    # Chi-square over 16 cells, 15 degrees of freedom: above 37.7 with probability 0.001.
    assert sum((counts[p.name] - 1000) ** 2 / 1000 for p in principles) < 37.7
    # With replacement, a draw repeats the one before it once in 16 (1000 of 16000, sd 31).
    assert 880 < sum(a == b for a, b in pairwise(drawn)) < 1120


def test_draws_respect_weights() -> None:
    principles = [
        Principle(name="often", preference="Which?", weight=3),
        Principle(name="seldom", preference="Which?"),
    ]
    rng = random.Random(0)
    often = sum(draw(principles, rng).name == "often" for _ in range(4000))
    assert 2890 < often < 3110  # 3000, sd 27


SCOPED = """\
name: mine
principles:
  - {name: all, preference: 'Which is kinder?'}
  - {name: red, preference: 'Which is safer?', applies_to: [red_team], weight: 3}
  - {name: sad, preference: 'Which is gentler?', applies_to: [self-harm], source: {document: a.md, line: 3}}
"""


def prompt(kind: Kind, *tags: str) -> Prompt:
    return Prompt.of((Message("user", "Hello?"),), kind, "test", tags)


def test_a_principle_is_drawn_only_for_its_prompts_and_changes_no_other_draw(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SCOPED)
    mine = load_constitution(tmp_path / "mine.yaml")
    everything, red, sad = mine.principles
    assert (
        applying_to(None, mine.for_preference)
        == applying_to(prompt("helpful"), mine.for_preference)
        == (everything,)
    )
    assert applying_to(prompt("red_team"), mine.for_preference) == (everything, red)
    assert applying_to(prompt("red_team", "self-harm"), mine.for_preference) == mine.for_preference
    for seed in range(200):
        scoped = draw(applying_to(prompt("red_team"), mine.for_preference), rng(seed))
        whole = draw(mine.for_preference, rng(seed))
        assert scoped == whole or whole == sad


def test_anchors_and_drafts_are_no_part_of_the_version_and_scopes_are(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SCOPED)
    mine = load_constitution(tmp_path / "mine.yaml")
    bare = [p.model_copy(update={"source": None, "tags": ()}) for p in mine.principles]
    everywhere = [p.model_copy(update={"applies_to": ()}) for p in mine.principles]
    assert Constitution(name="mine", principles=tuple(bare)).digest == mine.digest
    assert Constitution(name="mine", principles=tuple(everywhere)).digest != mine.digest


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{name: a, draft: true}", ":3: principles.0: 'a' is a draft"),
        (
            "{name: a, preference: 'Which?', draft: true}",
            "'a' is a draft. Edit it and delete its line 'draft: true'",
        ),
        (
            "{name: a, preference: 'Which?', applies_to: [red_team]}",
            "leaves prompts without a principle like 'a'",
        ),
        ("{name: a, preference: 'Which?', source: {dokument: x}}", "'dokument'. Did you mean 'document'?"),
        ("{name: a, preference: 'Which?', source: {document: x, line: 0}}", "must be at least 1, not 0"),
    ],
)
def test_drafts_and_prompts_without_a_principle_are_refused(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\nprinciples:\n  - {line}\n")
    with pytest.raises(InputError, match=r".") as caught:
        load_constitution(tmp_path / "mine.yaml")
    assert sentence in str(caught.value)
