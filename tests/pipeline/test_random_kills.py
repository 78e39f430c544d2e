"""Commands that are killed at random moments end with what unbroken ones have. ``make torture`` kills trainings too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from click.testing import CliRunner

from constitutional_ai.cli import main
from tests.pipeline.kills import Kill, finishes, random_kill
from tests.pipeline.tiny_run import echoing, make
from tests.runs.power_cut import no_sync


def work(folder: Path) -> Callable[[], None]:
    """Return two stages of scripted models, then a report, an export and an evaluation of them."""

    def commands() -> None:
        os.fsync = no_sync
        run, _ = make(echoing(folder / "run", concurrency=3), until="02-revisions")
        evaluate = ["evaluate", str(run.folder), "--part", "answers", "--limit", "2"]
        for words in (["report", str(run.folder)], evaluate):
            result = CliRunner().invoke(main, words, catch_exceptions=False)
            assert result.exit_code == 0, result.output

    return commands


def outputs(folder: Path) -> dict[str, bytes]:
    files = [*folder.rglob("records.jsonl"), *folder.rglob("metrics.json"), *folder.rglob("*.yaml")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_runs_that_are_killed_at_random_end_as_an_unbroken_one(tmp_path: Path) -> None:
    log, random, kills = tmp_path / "log", Random(0), 0
    assert finishes(work(tmp_path / "whole"), tmp_path, log)
    for number in range(30):
        folder = tmp_path / "broken"
        kill = random_kill(random, changes=15, lines=4)
        if not finishes(work(folder), folder, log, kill if number < 12 else None):
            kills += 1
            continue
        assert outputs(folder).keys() == outputs(tmp_path / "whole").keys()
        break
    assert kills >= 5
    assert not [*folder.rglob("*.part")]
    whole = {name: text.replace(b"/whole/", b"/broken/") for name, text in outputs(tmp_path / "whole").items()}
    assert outputs(folder) == whole


def test_the_harness_kills_where_it_says(tmp_path: Path) -> None:
    def two_files() -> None:
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()

    log = tmp_path.with_name("log")
    assert not finishes(two_files, tmp_path, log, Kill(change=2))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert finishes(two_files, tmp_path, log, Kill(change=3))
