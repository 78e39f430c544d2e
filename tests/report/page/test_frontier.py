"""Helpfulness against harmlessness: which points there are, in which order, and that no name stands in a drawing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from constitutional_ai.records import Candidate, Metric
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.frontier import elo_frontier, frontier
from constitutional_ai.report.page.page import write_report
from constitutional_ai.runs.run import Run
from tests.report.conftest import CANDIDATES, HOSTILE, SNAPSHOTS
from tests.report.page.test_page import Elements


def test_the_runs_own_models_and_snapshots_stand_in_their_order(evaluated: Run) -> None:
    found = frontier(read_contents(evaluated))
    assert found
    assert [label for label, _ in found.rows] == ["start", "sl-cai", *SNAPSHOTS, "rl-cai", HOSTILE]
    start, sl_cai, *_, rl_cai, _ = [values for _, values in found.rows]
    # One of three eggs is boiled in 8,000 loops: that is no answer. All object to 0, 4 and 2 of 4.
    for (helpful, harmless), objecting in ((start, 0.0), (sl_cai, 1.0), (rl_cai, 0.5)):
        assert helpful and (helpful.value, helpful.count) == (pytest.approx(2 / 3), 3)
        assert harmless and (harmless.value, harmless.count) == (objecting, 4) and harmless.low is not None


def test_a_refusal_is_no_answer_to_a_harmless_prompt(evaluated: Run) -> None:
    found = frontier(read_contents(evaluated))
    assert found and [helpful and helpful.value for _, (helpful, _) in found.rows[2:4]] == [0.0, 0.0]


def test_what_was_not_answered_has_no_frontier(empty_run: Run) -> None:
    contents = read_contents(empty_run)
    assert frontier(contents) is None and elo_frontier(contents) is None


def test_elo_scores_stand_beside_it_where_there_were_matches(run: Run, evaluated: Run) -> None:
    contents = read_contents(evaluated)
    found = elo_frontier(contents)
    assert found and found.axes == ("helpfulness, Elo", "harmlessness, Elo")
    assert [(label, harmless and harmless.value) for label, (_, harmless) in found.rows[2:4]] == [
        (name, 40.0 * [c.label for c in CANDIDATES].index(name)) for name in SNAPSHOTS
    ]
    only = tuple(m for m in contents.evaluated if m.name != "elo.harmlessness")
    assert elo_frontier(replace(contents, evaluated=only)) is None


def test_a_model_without_a_score_is_in_the_table_and_not_in_the_drawing(evaluated: Run) -> None:
    contents = read_contents(evaluated)
    unrated = tuple(
        replace(m, value=None, low=None) if m.model == "start" and m.name == "elo.helpfulness" else m
        for m in contents.evaluated
    )
    found = elo_frontier(replace(contents, evaluated=unrated))
    assert found and found.rows[0][0] == "start"
    assert ">1</text>" not in found.chart.svg and ">2</text>" in found.chart.svg


def test_models_of_two_runs_are_joined_apart(evaluated: Run) -> None:
    two = [Candidate(f"{run}:{role}", "m", role, run) for run in "ab" for role in ("sl-cai", "rl-cai")]
    metrics = [
        Metric(f"elo.{axis}", c.label, 10.0 * n, 0.0, 50.0, 9)
        for axis in ("helpfulness", "harmlessness")
        for n, c in enumerate(two)
    ]
    contents = replace(read_contents(evaluated), candidates=tuple(two), evaluated=tuple(metrics))
    found = elo_frontier(contents)
    assert found and [label for label, _ in found.rows] == ["a:sl-cai", "b:sl-cai", "a:rl-cai", "b:rl-cai"]
    assert "1: 0.00 along, 0.00 up; 3: 10.00 along" in found.chart.svg
    assert found.chart.svg.count("stroke: var(--rl-cai); stroke-width: 1.7") == 2


NAMES = [HOSTILE, r"$\frac{", "rl-cai@" + "9" * 5000, "rl-cai@①", "rl-cai@-1", "@", ":", "", "a:start@1:x"]


def test_a_strangers_name_stands_in_the_table_alone(evaluated: Run) -> None:
    contents = read_contents(evaluated)
    candidates = tuple(Candidate(name, "m", name) for name in NAMES)
    metrics = tuple(
        Metric(f"elo.{axis}", name, 1.0, 0.0, 2.0, 9)
        for axis in ("helpfulness", "harmlessness")
        for name in NAMES
    )
    found = elo_frontier(replace(contents, candidates=candidates, evaluated=metrics))
    assert found and [label for label, _ in found.rows] == NAMES
    assert all(f">{n}</text>" in found.chart.svg for n in range(1, 10))
    assert not any(text in found.chart.svg for text in ("script", "frac", "9999", "①"))


def test_the_page_shows_both_with_counts(evaluated: Run) -> None:
    page = Elements(write_report(evaluated).read_text())
    said = " ".join(page.text.split())
    assert "Harmless prompts answered" in said and "Harmlessness, Elo" in said
    assert "3 rl-cai@00000064" in said and f"6 {HOSTILE[:20]}" in said
    assert "above −60.0of 30 in 12 groups" in said  # an interval that is open at one end
