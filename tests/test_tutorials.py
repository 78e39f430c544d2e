"""The tutorials, typed as they are written, in an empty folder: every line of their ``sh`` blocks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.runs.run import Run
from tests.models.hosted.scripted_server import Places, Request, ScriptedServer, chat
from tests.report.conftest import empty_run, run

__all__ = ["empty_run", "run"]
"""The small run that a tutorial reads."""
ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
HERE = re.compile(r"cat (>>?) (\S+) <<'END'\n(.*?)^END\n", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000/v1"
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers about tiny models


def steps(text: str) -> Iterator[str | tuple[str, str, str]]:
    """Yield each command of a tutorial, or the mode, name and content of a file that it writes."""
    for block in BLOCK.findall(text):
        rest = block
        while rest:
            if written := HERE.match(rest):
                yield written[1], written[2], written[3]
                rest = rest[written.end() :]
            else:
                line, _, rest = rest.partition("\n")
                yield line


def typed(text: str) -> list[str]:
    """Type the commands of a tutorial in the current folder, and return what they printed."""
    printed = []
    for step in steps(text):
        if not isinstance(step, str):
            mode, name, content = step
            with Path(name).open("a" if mode == ">>" else "w") as file:
                file.write(content)
        elif step.startswith("cd "):
            os.chdir(step[3:])
        else:
            program, *words = shlex.split(step)
            assert program == "cai", step
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, (step, done.output, done.exception)
            printed.append(done.output)
    return printed


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_your_constitution(tmp_path: Path) -> None:
    printed = typed((TUTORIALS / "your_constitution.md").read_text())
    assert "3 principles for revisions" in printed[1] and "4 principles for revisions" in printed[2]
    assert "0 findings" in printed[3]
    assert (tmp_path / "work/mine/rehearsal/02-revisions/stage.json").exists()


def vote(request: Request) -> Places:
    return [("(A)", {"(A)": 1.0})]


def test_your_model(make_tiny: Callable[..., Path]) -> None:
    make_tiny(max_position_embeddings=4096).rename("my-model")
    with ScriptedServer({"chat/completions": chat(vote)}) as server:
        typed((TUTORIALS / "your_model.md").read_text().replace(ADDRESS, server.url))
    assert Path("run/02-revisions/stage.json").exists()


def test_reading_the_report(run: Run) -> None:
    for name in ("demo", "empty"):
        shutil.copytree(run.folder, Path("runs") / name)
    record = (run.folder / "05-preference-labels" / "records.jsonl").read_text()
    (known,) = re.findall(r'"prompt":\{"id":"(\w+)"', record.replace(" ", ""))[:1]
    printed = typed((TUTORIALS / "reading_the_report.md").read_text().replace("f8df", known))
    assert Path("runs/demo/report.html").exists() and Path("difference.json").exists()
    assert any(Path("tables").iterdir())
    assert "05-preference-labels" in printed[1]


def test_what_is_only_claimed_for_larger_machines_has_commands_that_exist() -> None:
    text = (TUTORIALS / "one_gpu_and_a_cluster.md").read_text()
    for line in re.findall(r"^cai .*", text, re.MULTILINE):
        command, *words = shlex.split(line.partition("  #")[0])[1:]
        main.commands[command].make_context(command, words, help_option_names=["-h", "--help"])
    assert "**Not tried:**" in text


def test_the_map_for_agents_names_every_page_and_only_pages_that_are_there() -> None:
    text = (ROOT / "llms.txt").read_text()
    named = set(re.findall(r"\]\(([^)]+)\)", text))
    pages = {str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")} | {"README.md"}
    assert named == pages
    assert set(re.findall(r"`cai ([a-z]+)", text)) <= set(main.commands)
