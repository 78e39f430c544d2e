"""What was watched while RL went on, on the page."""

from __future__ import annotations

import json
from typing import Any, get_args

from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Message
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.page import write_report
from constitutional_ai.report.page.rates import WATCHED, reinforcement
from constitutional_ai.rl_cai.reinforcement import monitor
from constitutional_ai.runs.run import Run
from tests.report.conftest import HOSTILE
from tests.report.page.test_page import Elements

FOLDER = "07-rl-cai-model"


def logged(run: Run, *rows: dict[str, Any]) -> None:
    lines = [json.dumps({"step": n, **row}) + "\n" for n, row in enumerate(rows, start=1)]
    (run.stage(FOLDER) / "metrics.jsonl").write_text("".join(lines))


def noted(run: Run, **notes: Any) -> None:
    path = run.stage(FOLDER) / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": notes}))


def limited(run: Run, **limits: float) -> None:
    recipe = Recipe.model_validate({"rl_cai": {"stop_above": limits}})
    (run.folder / "recipe.yaml").write_text(recipe.to_yaml())


def text_of(run: Run) -> str:
    return " ".join(Elements(write_report(run).read_text()).text.split())


def test_every_figure_of_the_monitor_is_drawn() -> None:
    talk = (Message("user", "Hi"), Message("assistant", "Hello there."))
    found = monitor.watch([talk], [0.0], ["helpful"], second=lambda talks: [0.0])
    assert {*found, *get_args(monitor.Watched)} <= {figure.key for figure in WATCHED}


def test_a_figure_is_drawn_where_it_was_logged_and_left_out_where_not(run: Run) -> None:
    logged(run, {"evasive": 0.25, "words": 12.0}, {"evasive": 0.5, "kl": float("nan"), "boilerplate": HOSTILE})
    charts = reinforcement(read_contents(run)).charts
    assert [chart.title for chart in charts] == ["Words in an answer", "Evasive"]
    assert "from 0.25 to 0.50 in 2 steps" in charts[1].svg


def test_shares_have_one_scale_whatever_they_are(run: Run) -> None:
    """A point at 0.5 lies half way up, in any company."""
    heights = []
    for rest in (0.5, 0.01):
        logged(run, {"evasive": 0.5}, {"evasive": rest})
        (chart,) = reinforcement(read_contents(run)).charts
        heights.append(next(line for line in chart.svg.splitlines() if "<use" in line and "--rl-cai" in line))
    assert heights[0] == heights[1]


def test_a_stop_is_a_sentence_and_its_limit_a_line(run: Run) -> None:
    logged(run, {"evasive": 0.9})
    limited(run, evasive=0.7)
    noted(run, stopped=f"evasive was 0.9, above its limit. {HOSTILE}")
    page = Elements(write_report(run).read_text())
    assert "Stopped early. evasive was 0.9, above its limit." in page.text
    assert "No limit was exceeded" not in page.text and "script" not in page.tags
    (chart,) = reinforcement(read_contents(run)).charts
    assert ">limit</text>" in chart.svg


def test_a_training_that_crossed_no_limit_says_what_they_were(run: Run) -> None:
    logged(run, {"evasive": 0.1})
    limited(run, evasive=0.7, kl=10)
    noted(run, stopped=None)
    assert "would have stopped with evasive above 0.7, or kl above 10." in text_of(run)
    noted(run)  # by DPO, which has no batches of answers to watch
    assert "would have stopped" not in text_of(run)


def test_snapshots_are_listed_with_the_name_that_a_recipe_takes(run: Run) -> None:
    assert "saved during training" not in text_of(run)
    for name in ("00000128", "00000064", "00000192.part"):
        (run.stage(FOLDER) / "snapshots" / name).mkdir(parents=True)
    said = text_of(run)
    folder = run.stage(FOLDER) / "snapshots"
    assert "2 snapshots saved during training" in said
    assert f"after 64 prompts: hf:{folder / '00000064'}after 128 prompts: hf:{folder / '00000128'}" in said
