"""What is shown to be read is chosen by rule, can be chosen from, and stays small."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.records import Answer
from constitutional_ai.report.page.conversations import (
    BUDGET,
    LABELS,
    Pick,
    chains,
    common,
    grouped,
    medians,
    pairs,
    talks,
)
from constitutional_ai.report.page.page import write_report
from constitutional_ai.runs.run import Run
from tests.report.conftest import BENIGN, HOSTILE, NO, RED, answer, answers, chain, label, prompt
from tests.report.page.test_page import Elements

MANY = [prompt(f"{n}", tags=(f"harm {n % 4}",)) for n in range(20)]


def test_for_each_kind_of_prompt_the_extremes_and_the_median_are_unfolded() -> None:
    groups = talks([a for a in answers() if a.response.prompt.kind == "red_team"])
    assert [pick.item.prompt for pick in groups[""]] == [RED[0], RED[2], RED[3]]
    reasons = [pick.reasons[0] for pick in groups[""]]
    assert reasons == [f"{place} score, red-team prompts" for place in ("lowest", "median", "highest")]
    assert all(list(pick.item.answers) == ["start", "sl-cai", "rl-cai"] for pick in groups[""])


def test_the_score_is_that_of_the_last_model_that_has_one() -> None:
    scored = [answer(p, "sl-cai", NO, float(n)) for n, p in enumerate(RED)]
    scored += [answer(p, "rl-cai", NO, -float(n)) for n, p in enumerate(RED)]
    assert talks(scored)[""][0].item.prompt == RED[3]


def test_for_each_kind_of_harm_three_prompts_are_shown() -> None:
    scored = [answer(p, "rl-cai", NO, float(n)) for n, p in enumerate(MANY)]
    groups = talks([*scored, *[answer(p, "rl-cai", NO, None) for p in BENIGN]])
    assert list(groups) == ["", *[f"harm {n}" for n in range(4)]]
    assert len(groups[""]) == 6
    shown = [pick.item.prompt for pick in (*groups[""], *groups["harm 1"])]
    assert {MANY[1], MANY[9], MANY[17]} <= set(shown)
    assert all("harm 1" in pick.item.prompt.tags for pick in groups["harm 1"])


def test_revisions_are_grouped_by_principle_and_by_harm() -> None:
    every = [chain(p, f"principle {n % 5}") for n, p in enumerate(MANY)]
    groups = chains(every)
    assert [pick.item.id for pick in groups[""]] == sorted(c.id for c in every)[:3]
    for group, picks in groups.items():
        for pick in picks:
            assert group in ("", pick.item.revisions[0].principle, *pick.item.initial.prompt.tags)
    shown = [pick.item for picks in groups.values() for pick in picks]
    assert len({c.id for c in shown}) == len(shown)
    assert min(Counter(c.revisions[0].principle for c in shown).values()) >= 2


def test_pairs_are_the_most_and_the_least_certain() -> None:
    groups = pairs([label(p, 0.5 + n / 50, principle=f"principle {n % 2}") for n, p in enumerate(MANY)])
    reasons = {round(p.item.probability_a, 2): p.reasons for picks in groups.values() for p in picks}
    assert reasons[0.88] == ("the most certain of all", "the most certain, principle 1")
    assert reasons[0.5] == ("the least certain of all", "the least certain, principle 0")
    assert reasons[0.86] == ("the most certain, principle 0",)


def test_a_pair_whose_winner_flips_is_among_them() -> None:
    steady, torn = label(RED[0], 0.9), label(RED[1], 0.8)
    torn = replace(torn, judgements=tuple(replace(j, probability_first=0.8) for j in torn.judgements))
    reasons = {pick.item.id: pick.reasons for pick in pairs([steady, torn])[""]}
    assert "the most certain whose winner changes with the order" in reasons[torn.id]


def test_where_several_answers_were_drawn_their_median_is_shown(evaluated: Run) -> None:
    rows = [MedianAnswer(f"{n}", m, "pm", p, "0", "so", 1.0, 17) for n, p in enumerate(RED) for m in ("a", "b")]
    shown = [pick.item for picks in medians(rows).values() for pick in picks]
    assert [[row.model for row in item] for item in shown] == [["a", "b"]] * len(shown)
    page = Elements(write_report(evaluated).read_text()).text
    assert f"median of 17 by {HOSTILE[:20]}" in page


def test_what_is_shown_has_a_limit() -> None:
    groups = grouped(Pick(f"{n} " * (BUDGET // 10), (), "" if n == 7 else f"{n:02}") for n in range(100))
    assert [pick.item[:2] for picks in groups.values() for pick in picks] == ["7 ", "0 ", "1 ", "2 ", "3 "]
    assert len(common(f"{n}" for n in range(100))) == LABELS


def test_a_page_of_many_long_answers_stays_small(run: Run) -> None:
    from tests.report.conftest import write_evaluation

    long: list[Answer] = [
        answer(prompt(f"{HOSTILE} {n}", tags=(f"{n % 30}",)), role, f"<{n}> " * 5000, float(n))
        for n in range(60)
        for role in ("start", "sl-cai", "rl-cai")
    ]
    write_evaluation(run.folder, long)
    assert len(write_report(run).read_bytes()) < 2_000_000


def test_no_name_of_a_group_is_a_class_or_stands_in_the_styles(run: Run) -> None:
    page = write_report(run).read_text()
    classes = {value or "" for name, value in Elements(page).attributes if name in ("class", "id", "name")}
    assert not any("<" in name or "{" in name for name in classes)
    assert "script" not in page[page.index("<style>") : page.index("</style>")]
