from __future__ import annotations

from pathlib import Path

import evaluation_folders as made
import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.records import Candidate
from constitutional_ai.report.figures.measured import by_size, measured, read_evaluations, trainings
from constitutional_ai.report.figures.paper_figures import paper_figure


def test_a_training_is_ordered_by_the_prompts_that_it_had_seen(one_run: Path) -> None:
    found = [[m.candidate.label for m in one] for one in trainings(measured(read_evaluations([one_run])))]
    assert found == [
        ["start"],
        ["sl-cai"],
        ["rl-cai@00000064", "rl-cai@00000128", "rl-cai@00000256", "rl-cai"],
    ]


def test_a_line_of_rl_begins_at_its_own_runs_sl_cai(four_sizes: Path) -> None:
    """Runs share their RL's beginning in the figure, not in the data: each at its own SL-CAI."""
    panel = paper_figure(2, [four_sizes]).panels[0]
    begins = {s.name: s.after.model for s in panel.series if s.after}
    assert begins["s8B: RL-CAI"] == "s8B: SL-CAI"
    assert len(begins) == 4
    assert {s.after for s in panel.series if "start" in s.name} == {None}


def test_the_last_models_of_runs_of_several_sizes_are_joined_by_what_they_are(four_sizes: Path) -> None:
    groups = dict(by_size(measured(read_evaluations([four_sizes])), join_named=False))
    assert list(groups) == ["start", "SL-CAI", "RL-CAI"]
    assert [m.candidate.label for m in groups["RL-CAI"]][::3] == ["s135M:rl-cai", "s8B:rl-cai"]
    assert [m.candidate.parameters for m in groups["start"]] == sorted(map(int, made.SIZES))


def test_two_models_of_one_size_are_never_joined(tmp_path: Path) -> None:
    """Nothing says which of them belongs to the line."""
    models = [Candidate(f"m{n}", f"hf:m{n}", f"m{n}", None, size) for n, size in enumerate((10, 20, 20))]
    evaluation = read_evaluations([made.evaluation(tmp_path, models, [])])
    names = [name for name, _ in by_size(measured(evaluation), join_named=True)]
    assert names == ["m0", "m1", "m2"]


def test_a_figure_over_sizes_needs_a_size(tmp_path: Path) -> None:
    models = made.candidates("run", None)
    folder = made.evaluation(tmp_path, models, made.elos(models))
    with pytest.raises(
        InputError, match="number of parameters, which is known for none of start, SL-CAI, RL-CAI"
    ):
        paper_figure(3, [folder])


def test_a_figure_over_rl_needs_rl(tmp_path: Path) -> None:
    models = made.candidates("run")[:2]
    folder = made.evaluation(tmp_path, models, made.elos(models))
    with pytest.raises(InputError, match=r"which trained none of start, SL-CAI\. .* rl_cai\.snapshot_every"):
        paper_figure(8, [folder])


def test_a_panel_that_nobody_measured_is_left_out_and_named(tmp_path: Path) -> None:
    models = made.candidates("run")
    metrics = [m for m in made.elos(models) if m.name == "elo.harmlessness"]
    for number in (3, 8):
        figure = paper_figure(number, [made.evaluation(tmp_path, models, metrics)], behind=True)
        assert [panel.title for panel in figure.panels] == ["harmlessness"]
        assert "Not measured: helpfulness." in figure.notes


def test_two_evaluations_of_one_name_cannot_be_told_apart(tmp_path: Path) -> None:
    folders = [made.evaluation(tmp_path / str(n) / "same", [], []) for n in range(2)]
    with pytest.raises(InputError, match="two evaluations are called 'same'"):
        read_evaluations(folders)
