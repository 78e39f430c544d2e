"""A run directory that an earlier version left behind is still read, and goes on where it was.

``old_run`` is a real one, cut down: its first stages were made by the last commit in which the package was called
``cai``, with scripted models; its evaluation is three answers of that commit's demo.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from constitutional_ai.cli import main
from constitutional_ai.records import Answer, RevisionChain
from constitutional_ai.report.contents import read_contents
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run


def cai(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    shutil.copytree(Path(__file__).parent / "old_run", folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("0*/*.json*"))}


def test_its_stages_are_complete_and_nothing_is_made_again(old: Path) -> None:
    before = contents(old)
    result = cai("run", old / layout.RECIPE, f"out={old}", "--until", layout.REVISIONS)
    assert result.exit_code == 0, result.output
    assert contents(old) == before


def test_a_stage_half_done_goes_on_to_the_same_bytes(old: Path) -> None:
    records = old / layout.REVISIONS / layout.RECORDS
    whole = records.read_bytes()
    records.write_bytes(whole.splitlines(keepends=True)[0])
    (old / layout.REVISIONS / layout.MANIFEST).unlink()
    result = cai("run", old / layout.RECIPE, f"out={old}", "--until", layout.REVISIONS)
    assert result.exit_code == 0, result.output
    assert records.read_bytes() == whole


def test_it_is_shown_and_reported(old: Path) -> None:
    run = read_run(old)
    chain = next(iter(run.rows(layout.REVISIONS, RevisionChain)))
    shown = cai("show", old, chain.id)
    assert shown.exit_code == 0, shown.output
    assert chain.initial.prompt.conversation[-1].content[:20] in shown.output
    assert cai("report", old).exit_code == 0
    assert {answer.model for answer in run.rows(layout.EVALUATION, Answer)} == set(layout.ROLES)
    assert any(metric.name == "objection_rate" for metric in read_contents(run).metrics)


def test_it_is_evaluated(old: Path) -> None:
    result = cai("evaluate", old, "--part", "answers", "--limit", 1)
    assert result.exit_code == 0, result.output
