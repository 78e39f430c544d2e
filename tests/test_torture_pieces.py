"""A long measurement goes on where it was stopped, and says what it came to as a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import pieces
from benchmarks.pieces import Pieces


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pieces, "FOLDER", tmp_path / "torture")
    monkeypatch.delenv("SECONDS", raising=False)
    return tmp_path / "torture"


def test_it_goes_on_after_the_last_whole_piece(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Pieces("kills", seed=0)
    assert next(first.next_numbers()) == 0
    first.add(kills=7, left=[], megabytes=5.0)
    file = folder / "kills.jsonl"
    file.write_text(file.read_text() + '{"piece": 1, "sett')
    again = Pieces("kills", seed=0)
    assert next(again.next_numbers()) == 1
    again.add(kills=4, left=["a"], megabytes=3.0)
    last = Pieces("kills", seed=0)
    assert (last.total("kills"), last.total("left"), last.total("megabytes")) == (11, 1, 5)
    assert last.print_line("kills", 10)
    line = json.loads(capsys.readouterr().out)
    assert line | {"kills": 11, "of": 10, "pieces": 2, "complete": True, "seed": 0} == line


def test_pieces_of_other_settings_do_not_count() -> None:
    Pieces("kills", seed=0).add(kills=7)
    other = Pieces("kills", seed=1)
    assert other.figures == []
    assert not other.print_line("kills", 1)


def test_no_piece_begins_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS", "0")
    assert list(Pieces("kills").next_numbers()) == []
