"""No figure draws on an unfinished part, or drops a run, without a sentence that says so."""

from __future__ import annotations

import json
from pathlib import Path

import evaluation_folders as made
import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.report.figures.left_out import PARTS
from constitutional_ai.report.figures.paper_figures import FIGURES, paper_figure

STEPS = {
    "matches": "matches/1-choices",
    "hhh": "hhh",
    "revisions": "revisions/pm-harmlessness",
    "harmfulness": "harmfulness/t1",
    "harm": "harm",
}
"""A step of each part."""
WAYS = ("multiple_choice", "chain_of_thought")


def evaluated(folder: Path) -> Path:
    """A run of this name, with all parts of its evaluation."""
    models = made.candidates(made.run(folder))
    metrics = [
        *made.elos(models),
        *made.accuracies(models, "hhh_accuracy", WAYS),
        *made.accuracies(models, "hhh221_accuracy", WAYS),
        *made.accuracies(models, "harm_identification", WAYS),
        *made.accuracies(models, "harm_classification", WAYS),
        *made.revisions([folder.name]),
        *made.harmfulness(models),
    ]
    evaluation = made.evaluation(folder / "evaluation", models, metrics)
    made.answers(evaluation, [row for one in models for row in made.chosen(one.label, WAYS[0], 1.0, 40)])
    return evaluation


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return evaluated(tmp_path / "first"), evaluated(tmp_path / "second")


def halt(evaluation: Path, part: str) -> None:
    """Leave a part as a kill in the middle of a step would."""
    step = evaluation / STEPS[part]
    step.mkdir(parents=True, exist_ok=True)
    (step / "records.jsonl").touch()
    (step / "stage.json").unlink(missing_ok=True)


def spoil(evaluation: Path, keep: str = "nothing", model: str = "") -> None:
    """Take the value from every metric (of a model), but for those whose name begins with ``keep``."""
    path = evaluation / "metrics.json"
    metrics = json.loads(path.read_text())
    for metric in metrics:
        if not metric["name"].startswith(keep) and (not model or metric["model"] == model):
            metric |= {"value": None, "low": None, "high": None, "count": 0}
    path.write_text(json.dumps(metrics))


def shown(number: int, *evaluations: Path) -> set[str]:
    points = paper_figure(number, evaluations).points()
    return {point.model.partition(":")[0] for _, series, point in points if series.source == "measured"}


@pytest.mark.parametrize("number", FIGURES)
def test_nothing_is_said_of_what_is_shown(number: int, two: tuple[Path, Path]) -> None:
    figure = paper_figure(number, two)
    assert figure.left_out == ()
    assert shown(number, *two) == {"first", "second"}


@pytest.mark.parametrize("number", FIGURES)
def test_an_unfinished_part_is_left_out_and_named(number: int, two: tuple[Path, Path]) -> None:
    part = PARTS[number]
    halt(two[1], part)
    assert shown(number, *two) == {"first"}
    (said,) = paper_figure(number, two).left_out
    assert (
        said.startswith("run second is left out: part ") and f"part {part} of {two[1]} is not finished" in said
    )
    assert said in paper_figure(number, two).notes
    result = CliRunner().invoke(main, ["figure", str(number), *map(str, two)])
    assert result.exit_code == 0 and said in result.output
    other = next(name for name in STEPS if name != part)
    halt(two[0], other)
    assert shown(number, *two) == {"first"}  # another part does not matter


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_of_unfinished_parts_alone_is_refused(number: int, two: tuple[Path, Path]) -> None:
    halt(two[0], PARTS[number])
    with pytest.raises(InputError, match=rf"Part {PARTS[number]} is not finished in .*first/evaluation"):
        paper_figure(number, two[:1])


@pytest.mark.parametrize("number", FIGURES)
@pytest.mark.parametrize("absent", [True, False])
def test_a_run_without_a_number_is_named_with_the_reason(
    number: int, absent: bool, two: tuple[Path, Path]
) -> None:
    spoil(two[1])
    (two[1] / "hhh/records.jsonl").write_text("")
    if absent:
        (two[1] / "metrics.json").write_text("[]")
    assert shown(number, *two) == {"first"}
    said = paper_figure(number, two).left_out
    assert said and all(sentence.startswith("run second is left out") for sentence in said)
    reason = "no readable answer" if number == 9 else "was not measured" if absent else "has no value"
    assert all(reason in sentence for sentence in said)
    assert CliRunner().invoke(main, ["figure", str(number), *map(str, two)]).output.startswith(said[0])


@pytest.mark.parametrize("number", [2, 3, 4, 8, 10, 11, 12])
def test_a_model_that_a_run_lacks_is_named(number: int, two: tuple[Path, Path]) -> None:
    spoil(two[1], model="rl-cai")
    said = paper_figure(number, two).left_out
    assert len(said) == 1 and said[0].startswith("second: RL-CAI is left out: ") and "has no value" in said[0]


def test_a_model_that_one_panel_lacks_is_named_with_the_panel(two: tuple[Path, Path]) -> None:
    spoil(two[1], keep="elo.helpfulness")
    for number in (3, 8):
        said = paper_figure(number, two).left_out
        assert "second: RL-CAI is left out of the panel 'harmlessness': elo.harmlessness has no value." in said
    assert paper_figure(2, two).left_out == (
        "run second is left out (second: start, second: SL-CAI, second: RL-CAI, second: rl-cai@00000064, "
        "second: rl-cai@00000128, second: rl-cai@00000256): elo.harmlessness has no value.",
    )


def test_gate_questions_are_not_drawn_beside_the_papers(two: tuple[Path, Path]) -> None:
    metrics = json.loads((two[1] / "metrics.json").read_text())
    for metric in metrics:
        metric["name"] = metric["name"].replace("hhh_accuracy", "gate_accuracy")
    (two[1] / "metrics.json").write_text(json.dumps(metrics))
    (said,) = paper_figure(4, two).left_out
    assert said.endswith("hhh_accuracy was not measured and gate_accuracy is of other questions.")


def test_a_run_that_another_preference_model_scored_is_named(two: tuple[Path, Path]) -> None:
    metrics = json.loads((two[1] / "metrics.json").read_text())
    for metric in metrics:
        metric["name"] = metric["name"].replace("pm_score.harmlessness", "pm_score.other")
    (two[1] / "metrics.json").write_text(json.dumps(metrics))
    for number in (6, 7):
        said = paper_figure(number, two).left_out
        assert [sentence.partition(":")[0] for sentence in said] == ["run second is left out"]
        assert "pm_score.harmlessness was not measured" in said[0]
