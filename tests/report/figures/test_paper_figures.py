from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import evaluation_folders as made
import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.report.figures.draw import draw
from constitutional_ai.report.figures.figure import as_csv
from constitutional_ai.report.figures.paper_figures import FIGURES, paper_figure, write_figure

Rows = list[dict[str, str]]
DRAWN_FROM = {
    3: r"elo\..*",
    4: r"hhh_accuracy\..*",
    5: r"pm_score\..*",
    8: r"elo\..*",
    10: r"absolute_harmfulness\..*",
    11: r"hhh221_accuracy\..*",
    12: r"harm_(identification|classification)\..*",
}
LAST = ("start", "sl-cai", "rl-cai", "hh", "demo")
"""Whom the figures against size show: no snapshots."""


def rows_of(number: int, *folders: Path, behind: bool = False) -> Rows:
    return list(csv.DictReader(io.StringIO(as_csv(paper_figure(number, folders, behind=behind)))))


def words(svg: bytes) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_all_figures_with_data_are_here() -> None:
    assert sorted(FIGURES) == list(range(2, 13))


@pytest.mark.parametrize("number", DRAWN_FROM)
def test_every_point_is_a_metric_and_every_metric_a_point(number: int, one_run: Path) -> None:
    metrics = json.loads((one_run / "metrics.json").read_text())
    wanted = Counter(
        tuple(m[key] for key in ("value", "low", "high", "count"))
        for m in metrics
        if re.fullmatch(DRAWN_FROM[number], m["name"]) and (number in (8, 10) or m["model"] in LAST)
    )
    found = Counter(
        (float(r["y"]), *(float(r[k]) if r[k] else None for k in ("low", "high")), int(r["count"]))
        for r in rows_of(number, one_run)
    )
    assert found == wanted
    assert sum(found.values()) >= 6


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_is_three_files_with_its_names_in_them(number: int, one_run: Path) -> None:
    paths = write_figure(number, [one_run.parent])
    assert [path.name for path in paths] == [f"figure-{number}.{kind}" for kind in ("svg", "png", "csv")]
    assert {path.parent for path in paths} == {one_run / "figures"}
    svg, png, table = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG")
    assert b"Date" not in svg and b"Software" not in png
    for row in csv.DictReader(io.StringIO(table.decode())):
        assert row["series"] in words(svg)
    for panel in paper_figure(number, [one_run]).panels:
        assert {panel.title, panel.x_label, panel.y_label} - {""} <= {
            text.strip() for text in ElementTree.fromstring(svg).itertext()
        }


@pytest.mark.parametrize("number", [2, 8, 9])
def test_the_same_numbers_give_the_same_bytes(number: int, one_run: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_figure(number, [one_run], out=tmp_path / "a", behind=True)]
    again = [
        path.read_bytes() for path in write_figure(number, [one_run.parent], out=tmp_path / "b", behind=True)
    ]
    assert first == again


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (2, "--part matches"),
        (3, "--part matches"),
        (4, "--part hhh"),
        (5, "--part revisions --pm harmlessness=FOLDER"),
        (6, "--part revisions --pm harmlessness=FOLDER"),
        (7, "--part revisions --pm harmlessness=FOLDER"),
        (8, "--part matches"),
        (9, "--part hhh"),
        (10, "--part harmfulness --harm-model FOLDER"),
        (11, "--part hhh --paper FOLDER"),
        (12, "--part harm --paper FOLDER"),
    ],
)
def test_what_was_not_measured_is_said_with_the_command_that_measures_it(
    number: int, says: str, tmp_path: Path
) -> None:
    run = made.run(tmp_path / "demo")
    # A metric without a value was not measured either.
    metrics = [made.metric(name, "start", None) for name in ("elo.helpfulness", "hhh_accuracy.ensembled")]
    folder = made.evaluation(tmp_path / "demo" / "evaluation", made.candidates(run), metrics)
    with pytest.raises(InputError) as error:
        paper_figure(number, [folder], behind=True)
    assert str(error.value).startswith(f"figure {number} needs ")
    assert str(error.value).endswith(f"cai evaluate {run} {says}")


def test_models_that_were_named_are_named_again_in_that_command(named: Path) -> None:
    with pytest.raises(
        InputError, match=r"cai evaluate qwen-1.4e\+08=hf:1.4e\+08 .* --out \S*named --part hhh"
    ):
        paper_figure(9, [named])


def test_no_evaluation_is_said_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no evaluation in .*\. Make one with: cai evaluate "):
        paper_figure(2, [tmp_path])


def test_a_value_of_none_is_left_out_and_never_zero(tmp_path: Path) -> None:
    models = made.candidates("demo")[:3]
    metrics = [made.metric("elo.harmlessness", one.label, None) for one in models[:1]] + [
        made.metric(f"elo.{side}", one.label, 40.0)
        for one in models[1:]
        for side in ("helpfulness", "harmlessness")
    ]
    metrics.append(made.metric("elo.helpfulness", "start", float("nan")))
    folder = made.evaluation(tmp_path / "e", models, metrics)
    for number in (2, 3, 8):
        rows = rows_of(number, folder)
        assert {row["model"] for row in rows} == {"SL-CAI", "RL-CAI"}
        assert {row["y"] for row in rows} == {"40"}


def test_the_papers_numbers_are_grey_series_of_their_own(one_run: Path) -> None:
    without, behind = rows_of(8, one_run), rows_of(8, one_run, behind=True)
    assert [row for row in behind if row["source"] == "measured"] == without
    grey = [row for row in behind if (row["panel"], row["series"]) == ("harmlessness", "paper: RL-CAI CoT")]
    assert [(row["x"], row["y"]) for row in grey] == [
        ("0", "0"), ("320000", "52"), ("610000", "114"), ("1180000", "150"), ("2290000", "190"),
    ]  # fmt: skip


def test_two_evaluations_stand_under_their_names(one_run: Path, named: Path) -> None:
    names = {row["series"] for row in rows_of(2, one_run, named)}
    assert {"demo: RL-CAI", "demo: start", "named: qwen-8e+09"} <= names
    assert any("do not compare" in note for note in paper_figure(2, [one_run, named]).notes)


HOSTILE = "=cmd|' /C calc'!A0 <script>alert(1)</script> $\\frac{1}$ {x} \x1b[2J\u202e 模型 " + "x" * 300


@pytest.mark.parametrize("number", [2, 4, 8, 12])
def test_a_hostile_name_is_only_a_name(number: int, tmp_path: Path) -> None:
    models = [made.Candidate(HOSTILE, "hf:x", HOSTILE, "run", int(size), n) for n, size in ((64, 135e6),)]
    metrics = [
        *made.elos(models),
        *made.accuracies(models, "hhh_accuracy", ["multiple_choice"]),
        *made.accuracies(models, "harm_identification", ["few_shot"]),
        made.metric("hhh_accuracy.preference_model", HOSTILE + "2", 0.7, 0.1),
    ]
    folder = made.evaluation(tmp_path / "e", models, metrics)
    svg = draw(paper_figure(number, [folder]))["svg"]
    ElementTree.fromstring(svg)
    assert b"<script" not in svg and b"\x1b" not in svg and "\u202e".encode() not in svg
    table = as_csv(paper_figure(number, [folder]))
    assert "\x1b" not in table and "\u202e" not in table
    rows = list(csv.DictReader(io.StringIO(table)))
    assert all(row["model"].startswith("'=cmd") for row in rows)
    assert all(float(row["y"]) is not None for row in rows)


def test_dollars_are_no_mathematics(tmp_path: Path) -> None:
    models = [made.Candidate("a$^2$b", "hf:x", "a$^2$b", None, 100)]
    folder = made.evaluation(tmp_path / "e", models, made.elos(models))
    assert "a$^2$b" in words(draw(paper_figure(2, [folder]))["svg"])
