"""Write one of the paper's figures, given its number, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from constitutional_ai.report.figures.accuracy import figure_4, figure_9, figure_11, figure_12
from constitutional_ai.report.figures.elo_and_harmfulness import figure_2, figure_3, figure_8, figure_10
from constitutional_ai.report.figures.figure import PaperFigure, as_csv
from constitutional_ai.report.figures.left_out import name_left_out
from constitutional_ai.report.figures.measured import Evaluation, evaluation_folder, read_evaluations
from constitutional_ai.report.figures.revision_figures import figure_5, figure_6, figure_7

FIGURES: dict[int, Callable[[Sequence[Evaluation], bool], PaperFigure]] = {
    **{2: figure_2, 3: figure_3, 4: figure_4, 5: figure_5, 6: figure_6, 7: figure_7, 8: figure_8},
    **{9: figure_9, 10: figure_10, 11: figure_11, 12: figure_12},
}


def paper_figure(number: int, folders: Sequence[str | Path], *, behind: bool = False) -> PaperFigure:
    """Return a figure's data, with the paper's numbers if ``behind`` is true and they are known.

    Nothing is drawn of an unfinished part. What is left out is named in ``left_out``, with the reason.
    Raises InputError if a folder holds no evaluation, or the evaluations did not measure what the figure needs.
    """
    evaluations = read_evaluations(folders)
    return name_left_out(FIGURES[number](evaluations, behind), evaluations)


def write_figure(
    number: int,
    folders: Sequence[str | Path],
    *,
    out: Path | None = None,
    behind: bool = False,
    say: Callable[[str], object] = lambda sentence: None,
) -> list[Path]:
    """Write ``figure-N.svg``, ``.png`` and ``.csv`` to ``out``, by default ``figures`` in the first evaluation.

    Returns the files. ``say`` gets a sentence for everything that is left out. Raises InputError as ``paper_figure``
    does.
    """
    figure = paper_figure(number, folders, behind=behind)
    for sentence in figure.left_out:
        say(sentence)
    from constitutional_ai.report.figures.draw import draw

    folder = out or evaluation_folder(Path(folders[0])) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        folder / f"figure-{number}.{kind}": content
        for kind, content in (draw(figure) | {"csv": as_csv(figure).encode()}).items()
    }
    for path, content in files.items():
        path.write_bytes(content)
    return list(files)
