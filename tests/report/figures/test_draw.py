from __future__ import annotations

from itertools import combinations

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from constitutional_ai.errors import InputError
from constitutional_ai.report.figures.draw import draw, laid_out, styled
from constitutional_ai.report.figures.figure import Panel, PaperFigure, Point, Series
from constitutional_ai.report.figures.paper_figures import FIGURES, paper_figure


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """What is written, and where."""
    figure.draw_without_rendering()
    every = [each for axes in figure.axes for each in (axes, *axes.child_axes)]
    hidden = {id(t) for axes in every for axis in (axes.xaxis, axes.yaxis) for t in undrawn(axes, axis)}
    written = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent()) for t in written if id(t) not in hidden]


def undrawn(axes: Axes, axis: Axis) -> list[Text]:
    """Marks beyond the end of their axis, and those of an axis that is off, are made and not drawn."""
    drawn = axis._update_ticks() if axes.axison else []
    gone = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if tick not in drawn]
    return [label for tick in gone for label in (tick.label1, tick.label2)]


def faults(figure: Figure) -> list[str]:
    """Texts upon each other, and texts that leave the page."""
    found, page = texts(figure), figure.bbox
    upon = [f"{a} and {b}" for (a, one), (b, other) in combinations(found, 2) if one.overlaps(other)]
    beyond = [t for t, b in found if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]
    return upon + beyond


@pytest.mark.parametrize(
    ("measured", "behind"), [("one_run", False), ("one_run", True), ("four_sizes", True), ("named", False)]
)
def test_no_text_lies_upon_another_or_leaves_the_page(
    measured: str, behind: bool, request: pytest.FixtureRequest
) -> None:
    folder, drawn = request.getfixturevalue(measured), 0
    for number in FIGURES:
        try:
            made = paper_figure(number, [folder], behind=behind)
        except InputError:
            continue  # this one was not measured there
        with styled():
            assert (number, faults(laid_out(made))) == (number, [])
        drawn += 1
    assert drawn >= 4


def test_texts_upon_each_other_would_be_found() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    figure.text(0.99, 0.9, "beyond the edge")
    assert faults(figure) == ["one and two", "beyond the edge"]


def simple(*points: Point, **how: object) -> PaperFigure:
    panel = Panel("", "x", "y", (Series("line", points),), **how)  # type: ignore[arg-type]
    return PaperFigure(2, (panel,), ())


@pytest.mark.parametrize("x_scale", ["plain", "rounds", "counts", "sequences", "parameters"])
@pytest.mark.parametrize("errors", ["bars", "band"])
def test_one_point_without_an_interval_can_be_drawn_on_every_axis(x_scale: str, errors: str) -> None:
    assert draw(simple(Point(64, 0.0), x_scale=x_scale, errors=errors))["png"]


def test_what_has_no_place_on_the_axis_is_a_level() -> None:
    with styled():
        axes = laid_out(simple(Point(1e9, 0.5), Point(None, 0.7, 0.6, 0.8), x_scale="parameters")).axes[0]
    across = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert [list(line.get_ydata()) for line in across] == [[0.7, 0.7]]


def test_the_papers_trainings_end_where_the_longest_of_ours_does() -> None:
    ours, paper = Series("ours", (Point(50, 0.0),)), Series("paper", (Point(0, 0.0), Point(2e5, 1.0)), "paper")
    panel = Panel("", "prompts", "y", (ours, paper), x_scale="sequences")
    with styled():
        axes = laid_out(PaperFigure(8, (panel,), ())).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2] == [[0, 50]]
    assert axes.get_xlabel() == "prompts (paper: times 4k)"


def test_what_is_taken_off_is_taken_off_values_and_intervals() -> None:
    with styled():
        axes = laid_out(simple(Point(0, 5.0, 4.0, 7.0), x_scale="rounds", zero=5.0)).axes[0]
    assert [0.0] in [list(line.get_ydata()) for line in axes.lines]
    bars = [bar for drawn in axes.collections for bar in drawn.get_segments()]
    assert [[y for _, y in bar] for bar in bars if len(bar)] == [[-1.0, 2.0]]


def test_a_readers_own_settings_change_nothing() -> None:
    figure = simple(Point(1, 1.0), Point(2, 2.0))
    before = draw(figure)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        assert draw(figure) == before
