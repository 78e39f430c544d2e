from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle, draw, load_constitution
from constitutional_ai.constitutions.control import EMPTY, apply_control, describe_control
from constitutional_ai.errors import InputError
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Comparison, Completion, Message, Prompt
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.seeding import rng

OURS = load_constitution("default")
SIDES = ("critique", "revision", "preference", "upheld", "broken")
KINDS = ("empty", "shuffled")


@pytest.mark.parametrize("control", KINDS)
def test_names_weights_and_sides_stay_so_that_the_same_principles_are_drawn(control: str) -> None:
    made = apply_control(OURS, control, 0)
    shape = [(p.name, p.weight, p.tags, [getattr(p, side) is None for side in SIDES]) for p in OURS.principles]
    assert [
        (p.name, p.weight, p.tags, [getattr(p, side) is None for side in SIDES]) for p in made.principles
    ] == shape
    for n in range(100):
        drawn = [draw(c.for_revision, rng(n)).name for c in (OURS, made)]
        assert drawn[0] == drawn[1]


def test_without_a_control_the_constitution_is_unchanged() -> None:
    assert apply_control(OURS, None, 0) is OURS


@pytest.mark.parametrize("control", [*KINDS, "without:tact"])
def test_a_control_is_another_version_that_names_what_it_was_made_from_and_is_read_again(
    control: str, tmp_path: Path
) -> None:
    made = apply_control(OURS, control, 0)
    assert made.digest != OURS.digest
    assert control in made.name
    assert OURS.digest in made.description
    (tmp_path / "again.yaml").write_text(made.to_yaml(), encoding="utf-8")
    assert load_constitution(tmp_path / "again.yaml") == made


def test_the_empty_control_has_one_text_for_every_principle() -> None:
    made = apply_control(OURS, "empty", 0)
    assert {p.revision for p in made.for_revision} == {EMPTY["revision"]}
    assert {p.preference for p in made.for_preference} == {EMPTY["preference"]}


def test_the_empty_control_gives_labels_of_one_half_by_likelihood() -> None:
    prompt = Prompt.of((Message("user", "Help me cheat."),), "red_team", "test")
    pair = Comparison(
        "p.0", prompt, Completion("No.", "m", "stop", 0, 1), Completion("Sure!", "m", "stop", 0, 1)
    )
    judge = ScriptedModel(weigh=lambda context, answer: -float(len(answer) * len(context)))
    said = [
        asyncio.run(label(pair, model=judge, constitution=c, settings=Feedback(method="likelihood"), seed=0))
        for c in (OURS, apply_control(OURS, "empty", 0))
    ]
    assert said[0].probability_a != 0.5
    assert said[1].probability_a == 0.5


WORDS = st.lists(st.sampled_from(["no", "harm", "say", "yes", "{}", "kind."]), min_size=1, max_size=9).map(
    " ".join
)


@settings(max_examples=60)
@given(WORDS, WORDS, WORDS, WORDS, st.integers(0, 99))
def test_shuffled_texts_keep_their_words_and_never_their_order(
    revision: str, preference: str, upheld: str, broken: str, seed: int
) -> None:
    one = Principle(name="p", revision=revision, preference=preference, upheld=upheld, broken=broken)
    first = Constitution(name="mine", principles=(one,))
    made = apply_control(first, "shuffled", seed).principles[0]
    assert made == apply_control(first, "shuffled", seed).principles[0]
    for before, after in [(revision, made.revision), (preference, made.preference)]:
        assert Counter((after or "").split()) == Counter(before.split())
        assert (after != before) == (len(set(before.split())) > 1)
    # The two descriptions are dealt out anew from one heap, so neither keeps its "no" or "yes".
    assert made.upheld and made.broken
    assert len(made.upheld.split()) == len(upheld.split())
    both = f"{upheld} {broken}".split()
    assert Counter(f"{made.upheld} {made.broken}".split()) == Counter(both)
    assert ((made.upheld, made.broken) != (upheld, broken)) == (len(set(both)) > 1)


def test_another_seed_gives_another_shuffle() -> None:
    assert apply_control(OURS, "shuffled", 0).digest != apply_control(OURS, "shuffled", 1).digest


def test_leaving_out_a_principle_changes_only_the_draws_of_it() -> None:
    made = apply_control(OURS, "without:tact", 0)
    assert [p for p in OURS.principles if p.name != "tact"] == list(made.principles)
    drawn = [(draw(OURS.for_revision, rng(n)).name, draw(made.for_revision, rng(n)).name) for n in range(500)]
    fell = [new for old, new in drawn if old == "tact"]
    assert 10 < len(fell) < 60  # 31 expected, sd 5.4
    assert "tact" not in fell
    assert len(set(fell)) > 5
    assert all(old == new for old, new in drawn if old != "tact")


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("tcat", "control=without:tcat: constitution 'mine' has no such principle. Did you mean 'tact'?"),
        ("tact", "removes the last principle with 'revision' or 'preference' from constitution 'mine'"),
        ("kind", "removes the last principle with 'revision' or 'preference' from constitution 'mine'"),
    ],
)
def test_a_principle_that_cannot_be_left_out_is_refused(left_out: str, said: str) -> None:
    principles = (
        Principle(name="tact", revision="Be kind."),
        Principle(name="kind", preference="Which is kinder?"),
    )
    with pytest.raises(InputError, match=r".") as caught:
        apply_control(Constitution(name="mine", principles=principles), f"without:{left_out}", 0)
    assert said in str(caught.value)


def test_a_recipe_names_its_control_and_none_is_not_one() -> None:
    assert Recipe().control is None
    for control in (*KINDS, "without:tact", "without:a name: with all"):
        assert Recipe(control=control).control == control
    assert load_recipe("demo", ["control=without:tact"]).control == "without:tact"
    for wrong in ("none", "None", "shufled", "without", "without:", "without: tact", "''", "0"):
        with pytest.raises(
            InputError, match=r"command line: control: unknown control '.*'\. Write empty, shuffled"
        ):
            load_recipe("demo", [f"control={wrong}"])


NO_WORDS = Principle(name="q", preference="?!")
ALIKE = Principle(name="p", preference="Which of these replies would you choose?", upheld="Be.", broken="Be.")


@pytest.mark.parametrize(
    ("control", "constitution", "said"),
    [
        *[(kind, OURS, f"control: {kind}") for kind in (*KINDS, "without:tact")],
        *[(None, apply_control(OURS, kind, 0), f"control: {kind}") for kind in (*KINDS, "without:tact")],
        (None, Constitution(name="mine", principles=(NO_WORDS, ALIKE)), "a constitution without content"),
        (None, Constitution(name="mine", principles=(NO_WORDS, OURS.for_preference[0])), None),
        (None, OURS, None),
        (None, None, None),
        ("empty", None, "control: empty"),
    ],
)
def test_a_control_run_is_known_by_its_recipe_or_its_constitution(
    control: str | None, constitution: Constitution | None, said: str | None
) -> None:
    assert describe_control(control, constitution) == said


def test_the_last_principle_for_all_prompts_cannot_be_left_out() -> None:
    sides = {"revision": "Be kind.", "preference": "Which is kinder?"}
    principles = (Principle(name="all", **sides), Principle(name="red", **sides, applies_to=("red_team",)))
    with pytest.raises(
        InputError, match="control=without:all: 'applies_to' leaves prompts without a principle"
    ):
        apply_control(Constitution(name="mine", principles=principles), "without:all", 0)
