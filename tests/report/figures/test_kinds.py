"""What is particular to one figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import evaluation_folders as made
import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.hhh_accuracy import HHHAnswer
from constitutional_ai.records import Side
from constitutional_ai.report.figures import paper_numbers as paper
from constitutional_ai.report.figures.accuracy import claim
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Series
from constitutional_ai.report.figures.paper_figures import paper_figure


def lines(panel: Panel) -> dict[str, Series]:
    return {series.name: series for series in panel.series}


def shown(figure: PaperFigure, name: str) -> list[float]:
    panel = figure.panels[0]
    return [round(p.y - panel.zero, 6) for p in lines(panel)[name].points]


# -- figures 5 to 7


def test_scores_are_centred_on_the_largest_run_before_revision_to_be_shown(four_sizes: Path) -> None:
    figure = paper_figure(5, [four_sizes])
    assert [panel.title for panel in figure.panels] == ["harmlessness", "helpfulness", "both"]
    # made.revisions: s8B begins 3 · 0.4 below s135M's 2.0; only what is shown is shifted.
    assert shown(figure, "s8B (8B)")[0] == 0
    assert shown(figure, "s135M (135M)")[0] == pytest.approx(1.2)
    assert lines(figure.panels[0])["s135M (135M)"].points[0].y == 2.0
    assert figure.notes[0] == "s8B (8B) is at 0 before revision."


def test_the_papers_scores_lie_at_their_own_zero(one_run: Path) -> None:
    figure = paper_figure(5, [one_run], behind=True)
    assert shown(figure, "paper: 52B") == [0, 1.79, 2.14, 2.27, 2.30]


def test_one_name_for_two_preference_models_gives_two_panels(tmp_path: Path) -> None:
    """PM-6: their scores cannot be compared."""
    for n, name in enumerate(("one", "two")):
        folder = made.evaluation(
            tmp_path / name, made.candidates(f"run{n}"), made.revisions([f"run{n}"], ["h"])
        )
        stage = {"inputs": {"the weights of h": f"digest {n}"}, "config": {}}
        (folder / "run.json").write_text(json.dumps({"stages": {"revisions/pm-h": stage}}))
    figure = paper_figure(5, [tmp_path / "one", tmp_path / "two"])
    assert [panel.title for panel in figure.panels] == ["h (digest 0)", "h (digest 1)"]


def test_principles_are_counted_in_the_runs_own_constitutions(four_sizes: Path) -> None:
    left, right = paper_figure(6, [four_sizes]).panels
    assert list(lines(left)) == ["1 principle", "4 principles", "16 principles", "64 principles"]
    assert [s.points[0].x for s in right.series] == [1, 4, 16, 64]
    assert [s.points[0].y for s in right.series] == [s.points[-1].y for s in left.series]


def test_direct_revisions_are_dashed_beside_critiqued_ones_of_their_size(tmp_path: Path) -> None:
    runs = [made.run(tmp_path / style, style=style) for style in ("critiqued", "direct")]
    models = [
        replace(one, label=f"{n}{one.label}") for n, run in enumerate(runs) for one in made.candidates(run)
    ]
    folder = made.evaluation(tmp_path / "both", models, made.revisions(["critiqued", "direct"]))
    critiqued, direct = paper_figure(7, [folder]).panels[0].series
    assert (critiqued.dashed, direct.dashed) == (False, True)
    assert critiqued.colour == direct.colour == "135M"


def test_a_run_that_is_gone_is_said(one_run: Path) -> None:
    (one_run.parent / "constitution.yaml").unlink()
    with pytest.raises(InputError, match=r"constitution\.yaml is missing: it says how demo was revised"):
        paper_figure(6, [one_run])
    assert paper_figure(7, [one_run]).panels


def test_a_run_that_was_moved_with_its_evaluation_is_found(one_run: Path) -> None:
    moved = one_run.parent.rename(one_run.parent.parent / "elsewhere")
    assert paper_figure(6, [moved]).panels


# -- figure 9


@pytest.mark.parametrize(
    ("better", "right", "claimed", "true"), [("a", 0.9, 0.9, 1.0), ("b", 0.9, 0.1, 0.0), ("b", 0.2, 0.8, 0.0)]
)
def test_a_question_claims_that_its_answer_a_is_better(
    better: Side, right: float, claimed: float, true: float
) -> None:
    assert claim(HHHAnswer("q", "q", "m", "multiple_choice", better, right), right) == (
        pytest.approx(claimed),
        true,
    )


def test_bins_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    said: list[tuple[Side, float]] = [
        ("a", 0.62),
        ("b", 0.32),
        ("a", 0.66),
        ("b", 0.95),
    ]  # P(a): .62 .68 .66 .05
    rows = [HHHAnswer(f"q{n}", f"q{n}", "start", "ensembled", side, p) for n, (side, p) in enumerate(said)]
    folder = made.evaluation(tmp_path, made.candidates("run"), [])
    made.answers(folder, [*rows, replace(rows[0], id="none", probability_right=None)])
    panel = paper_figure(9, [folder]).panels[0]
    found = [(round(p.x or 0, 9), p.y, p.count) for p in panel.series[0].points]
    assert (panel.title, found) == (
        "ensembled chain of thought",
        [(0.05, 0.0, 1), (pytest.approx(0.65333333), pytest.approx(2 / 3), 3)],
    )


# -- figures 4 and 10


def test_our_gate_questions_are_not_called_hhh(named: Path, one_run: Path) -> None:
    assert paper_figure(4, [named]).panels[0].y_label == "accuracy on our gate questions, not HHH"
    assert paper_figure(4, [one_run]).panels[0].y_label == "accuracy on HHH comparisons"


def test_a_preference_model_of_unknown_size_is_a_level(one_run: Path) -> None:
    points = lines(paper_figure(4, [one_run]).panels[0])["hh, preference model"].points
    assert [(p.x, p.y) for p in points] == [(None, 0.66)]


def test_temperatures_0_and_1_are_dashed_and_solid_in_one_colour(one_run: Path) -> None:
    drawn = lines(paper_figure(10, [one_run]).panels[0])
    assert [(drawn[f"RL-CAI, T={t}"].dashed, drawn[f"RL-CAI, T={t}"].colour) for t in (1, 0)] == [
        (False, "RL-CAI"),
        (True, "RL-CAI"),
    ]


# -- the paper's numbers


def test_accuracies_at_52_billion_are_whole_numbers_of_438_questions() -> None:
    """The counts of the paper's figure: 296, 317, 322 and 344 right."""
    top = [values[-1] for values in paper.HHH_ACCURACY.values()]
    assert [round(438 * value) for value in top] == [296, 317, 322, 344]
    assert all(abs(value - round(438 * value) / 438) < 0.001 for value in top)


def test_every_series_of_the_papers_has_a_number_for_every_place() -> None:
    assert {len(v) for v in paper.HHH_ACCURACY.values()} == {len(paper.HHH_SIZES)}
    assert {len(v) for by in paper.ELO_BY_SIZE.values() for v in by.values()} == {len(paper.ELO_SIZES)}
    assert {len(v) for by in paper.PM_SCORES.values() for v in by.values()} == {5}
    for name, both in paper.ABSOLUTE_HARMFULNESS.items():
        assert {len(values) for values in both} == {len(paper.ELO[name])}
    for made_by in paper.ELO.values():
        assert [s.sequences for s in made_by] == sorted(s.sequences for s in made_by)
