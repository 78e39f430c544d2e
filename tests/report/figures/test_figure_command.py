from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.report.figures.figure import in_units, short
from constitutional_ai.safe_text import cell


def test_the_command_says_where_the_files_are(one_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["figure", "5", str(one_run), "--out", str(tmp_path / "f"), "--paper-behind"]
    )
    assert result.exit_code == 0, result.output
    written = [Path(line) for line in result.output.split()]
    assert [path.name for path in written] == ["figure-5.svg", "figure-5.png", "figure-5.csv"]
    assert "paper: 52B" in written[2].read_text()


def test_what_is_missing_is_one_sentence(named: Path) -> None:
    result = CliRunner().invoke(main, ["figure", "9", str(named)])
    assert result.exit_code == 1
    assert result.output.startswith("cai: figure 9 needs answers to HHH questions, which was not measured")


@pytest.mark.parametrize("number", ["1", "13"])
def test_the_paper_has_no_such_figure_of_numbers(number: str) -> None:
    assert CliRunner().invoke(main, ["figure", number, "x"]).exit_code == 2


def test_help_loads_nothing_heavy() -> None:
    asked = (
        "from constitutional_ai.cli import main; main(['figure', '--help'], standalone_mode=False); import sys; "
        "heavy = ('matplotlib', 'torch', 'scipy', 'constitutional_ai.report.figures'); "
        "print('LOADED', *[m for m in heavy if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert told.rpartition("LOADED")[2].split() == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "  =1", "\t=1", "=HYPERLINK(1)"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text)[0] == "'"


@pytest.mark.parametrize(
    ("text", "shown"), [("rl-cai", "rl-cai"), ("a=b", "a=b"), ("\x1b[2J", "␛[2J"), ("\r=1", "␍=1")]
)
def test_other_cells_stay_as_they_are(text: str, shown: str) -> None:
    assert cell(text) == shown


@pytest.mark.parametrize(
    "text", ["x" * 99, "two words " * 20, "one-long-word-" * 9 + ": SL-CAI", "a\nb\tc", ""]
)
def test_a_name_is_one_short_line_with_both_its_ends(text: str) -> None:
    line = " ".join(text.split())
    assert len(short(text)) <= 34
    assert "\n" not in short(text)
    assert (short(text)[:4], short(text)[-4:]) == (line[:4], line[-4:])


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (999.6e6, "1B"), (134_515_008, "135M"), (12.6e9, "12.6B")]
)
def test_numbers_of_parameters_are_read_at_a_glance(number: float, shown: str) -> None:
    assert in_units(number) == shown
