"""What ``cai evaluate`` measured, on the page."""

from __future__ import annotations

from dataclasses import replace

from constitutional_ai.records import Metric
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.page import write_report
from constitutional_ai.report.page.tables import COLUMNS, tables
from constitutional_ai.runs.run import Run
from tests.report.conftest import HOSTILE
from tests.report.page.test_page import Elements


def test_measures_of_a_kind_are_the_columns_of_a_table(run: Run) -> None:
    metrics = [Metric(f"hhh_accuracy.{way}", m, 0.5, 0.4, 0.6, 438, 90) for way in ("pm", "mcq") for m in "xy"]
    (table,) = tables(
        replace(read_contents(run), evaluated=(*metrics, Metric("hhh_accuracy.pm", "z", 1, 0, 1, 2)))
    )
    assert (table.title, table.columns) == ("Helpful, honest and harmless", ["pm", "mcq"])
    assert [model for model, _ in table.rows] == ["x", "y", "z"]
    assert [cell and cell.count for _, cells in table.rows for cell in cells] == [438, 438, 438, 438, 2, None]


def test_a_table_is_no_wider_than_paper(evaluated: Run) -> None:
    found = tables(read_contents(evaluated))
    assert max(len(t.columns) for t in found) == COLUMNS
    assert [t.title for t in found if "continued" in t.title] == ["Helpful, honest and harmless, continued"]


def test_what_has_no_value_is_said_to_be_unmeasured_and_strange_names_are_shown(evaluated: Run) -> None:
    page = Elements(write_report(evaluated).read_text())
    said = " ".join(page.text.split())
    assert "evasive rate sl-cainot measured" in said
    assert "0.700.60 to 0.80of 438 in 90 groups" in said
    assert HOSTILE[:40] in said and "script" not in page.tags


def test_a_run_that_was_not_evaluated_so_has_no_such_section(run: Run) -> None:
    assert "The evaluation beyond the run" not in write_report(run).read_text()


def test_a_measure_on_a_scale_of_its_own_has_a_table_that_says_so(run: Run) -> None:
    metrics = (
        Metric("absolute_harmfulness", "x", 1.5, 1.0, 2.0, 64, 64),
        Metric("distinct_2", "x", 0.5, None, None, 9),
    )
    found = tables(replace(read_contents(run), evaluated=metrics))
    assert [(t.title, t.columns) for t in found] == [
        ("Absolute harmfulness", ["absolute harmfulness"]),
        ("Other metrics", ["distinct 2"]),
    ]
    assert found[0].caption.endswith("lower is better")
