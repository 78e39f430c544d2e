"""What is shown to be read is chosen by rule, can be chosen from, and stays small."""

from __future__ import annotations

from dataclasses import replace

from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.records import Answer
from constitutional_ai.report.page.conversations import chains, medians, pairs, talks
from constitutional_ai.report.page.page import write_report
from constitutional_ai.report.page.shelf import BUDGET, CHOICES, Pick, Shelf, shelf
from constitutional_ai.runs.run import Run
from tests.report.conftest import BENIGN, HOSTILE, NO, RED, answer, answers, chain, label, prompt
from tests.report.page.test_page import Elements

MANY = [prompt(f"{n}", tags=(f"harm {n % 4}",)) for n in range(20)]


def found(shelf: Shelf[object], text: str) -> list[object]:
    """The items of the choice that is called so."""
    (key,) = [choice.key for choice in shelf.choices if choice.label == text]
    return [pick.item for pick, classes in shelf.items if key in classes.split()]


def test_of_each_kind_of_prompt_the_extremes_and_the_median_are_shown_first() -> None:
    made = talks([a for a in answers() if a.response.prompt.kind == "red_team"])
    assert [pick.item.prompt for pick, _ in made.items] == [RED[0], RED[2], RED[3]]
    whys = [pick.why[0] for pick, _ in made.items]
    assert whys == [f"{place} score, red-team prompts" for place in ("lowest", "median", "highest")]
    assert all(
        list(pick.item.answers) == ["start", "sl-cai", "rl-cai"] and pick.first for pick, _ in made.items
    )


def test_the_score_is_that_of_the_last_model_that_has_one() -> None:
    scored = [answer(p, "sl-cai", NO, float(n)) for n, p in enumerate(RED)]
    scored += [answer(p, "rl-cai", NO, -float(n)) for n, p in enumerate(RED)]
    assert talks(scored).items[0][0].item.prompt == RED[3]


def test_of_each_kind_of_harm_three_can_be_chosen() -> None:
    scored = [answer(p, "rl-cai", NO, float(n)) for n, p in enumerate(MANY)]
    made = talks([*scored, *[answer(p, "rl-cai", NO, None) for p in BENIGN]])
    ours = [talk.prompt for talk in found(made, "harm 1")]
    assert {MANY[1], MANY[9], MANY[17]} <= set(ours)
    assert all("harm 1" in p.tags for p in ours)
    assert {c.label for c in made.choices} == {"red-team", "everyday", *[f"harm {n}" for n in range(4)]}
    assert made.first == 6 and len(found(made, "everyday")) == 3


def test_revisions_can_be_chosen_by_principle_and_by_harm() -> None:
    drawn = [chain(p, f"principle {n % 5}") for n, p in enumerate(MANY)]
    made = chains(drawn)
    for choice in made.choices:
        items = found(made, choice.label)
        assert len(items) == choice.held >= 2
        tags = [(c.revisions[0].principle, *c.initial.prompt.tags) for c in items]
        assert all(choice.label in tag for tag in tags)
    assert [pick.item.id for pick, _ in made.items if pick.first] == sorted(c.id for c in drawn)[:3]


def test_pairs_are_the_surest_and_the_nearest_to_a_toss_up() -> None:
    made = pairs([label(p, 0.5 + n / 50, principle=f"principle {n % 2}") for n, p in enumerate(MANY)])
    why = {round(pick.item.probability_a, 2): pick.why for pick, _ in made.items}
    assert why[0.88] == ("the surest of all", "the surest, principle 1")
    assert why[0.5] == ("nearest to a toss-up of all", "nearest to a toss-up, principle 0")
    assert why[0.86] == ("the surest, principle 0",)


def test_a_pair_whose_winner_flips_is_among_them() -> None:
    steady, torn = label(RED[0], 0.9), label(RED[1], 0.8)
    torn = replace(torn, judgements=tuple(replace(j, probability_first=0.8) for j in torn.judgements))
    why = {pick.item.id: pick.why for pick, _ in pairs([steady, torn]).items}
    assert "the surest whose winner changes with the order" in why[torn.id]


def test_where_several_answers_were_drawn_their_median_is_shown(evaluated: Run) -> None:
    rows = [
        MedianAnswer(f"{n}", m, "pm", p, f"{n}.0.{m}", "so", 1.0, 17)
        for n, p in enumerate(RED)
        for m in ("a", "b")
    ]
    made = medians(rows)
    assert [[row.model for row in pick.item] for pick, _ in made.items] == [["a", "b"]] * 3
    said = Elements(write_report(evaluated).read_text()).text
    assert f"median of 17 by {HOSTILE[:20]}" in said


def test_there_is_an_end_to_what_is_shown() -> None:
    texts = [Pick(n, (), n == 7, BUDGET // 4, {"by": [f"{n}"]}) for n in range(100)]
    made = shelf("x", texts, ("by",))
    assert [pick.item for pick, _ in made.items] == [7, 0, 1, 2]  # what is shown first comes first
    assert len(shelf("x", [replace_size(t) for t in texts], ("by",)).choices) == CHOICES


def replace_size(pick: Pick[int]) -> Pick[int]:
    return pick._replace(size=1)


def test_a_page_of_many_long_answers_stays_small(run: Run) -> None:
    from tests.report.conftest import write_evaluation

    long: list[Answer] = [
        answer(prompt(f"{HOSTILE} {n}", tags=(f"{n % 30}",)), role, f"<{n}> " * 5000, float(n))
        for n in range(60)
        for role in ("start", "sl-cai", "rl-cai")
    ]
    write_evaluation(run.folder, long)
    assert len(write_report(run).read_bytes()) < 2_000_000


def test_no_label_of_a_choice_is_a_class_or_stands_in_the_styles(run: Run) -> None:
    page = write_report(run).read_text()
    classes = {value or "" for name, value in Elements(page).attributes if name in ("class", "id", "name")}
    assert not any("<" in name or "{" in name for name in classes)
    assert "script" not in page[page.index("<style>") : page.index("</style>")]
