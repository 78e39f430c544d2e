"""The documentation says what is so: its paths, tests, commands, requirement ids and links exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from constitutional_ai.cli import main
from constitutional_ai.records import Response
from tests.report.conftest import begin, completion, make, prompt, write_rows

ROOT = Path(__file__).parent.parent
DOCS = [
    p for p in (*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.exists()
]
PAPER = ROOT / "docs" / "paper.md"
HEADS = ("constitutional_ai/", "tests/", "docs/", "benchmarks/")
ENDS = (".py", ".md", ".toml", ".lock")
FAMILIES = {"OV": 5, "SL": 24, "FB": 15, "PM": 7, "RL": 9, "EV": 19}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
each_doc = pytest.mark.parametrize("doc", DOCS, ids=lambda p: p.name)


def spans(doc: Path) -> list[str]:
    """What stands between backticks in prose."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", doc.read_text()))


def code(doc: Path) -> list[str]:
    """Lines of code: those in fences, and the spans in prose."""
    return [line for fence in FENCE.findall(doc.read_text()) for line in fence.splitlines()] + spans(doc)


def defined(path: Path) -> set[str]:
    """Names that a file defines at its top."""
    top = re.compile(r"^(?:(?:async )?def |class )(\w+)|^(\w+)(?:: .*)? = ", re.MULTILINE)
    return {function or value for function, value in top.findall(path.read_text())}


@each_doc
def test_every_path_exists(doc: Path) -> None:
    found = [span.partition("::")[0] for span in spans(doc)]
    paths = [p for p in found if re.fullmatch(r"[\w./-]+", p) and (p.startswith(HEADS) or p.endswith(ENDS))]
    assert [
        p
        for p in paths
        if not any((base / p).exists() for base in (ROOT, ROOT / "constitutional_ai", doc.parent))
    ] == []


@each_doc
def test_every_name_in_a_file_exists(doc: Path) -> None:
    named = [re.fullmatch(r"([\w./-]+\.py)::(\w+)", span) for span in spans(doc)]
    places = [(ROOT / m[1], m[2]) for m in named if m]
    assert places or doc != PAPER
    assert [f"{path.name}::{name}" for path, name in places if name not in defined(path)] == []


@each_doc
def test_every_command_that_is_mentioned_exists(doc: Path) -> None:
    said = [m[1] for line in code(doc) if (m := re.match(r"(?:\$ )?(?:\S*/bin/)?cai ([a-z]+)", line))]
    assert set(said) <= set(main.commands)


def test_the_readme_mentions_every_command() -> None:
    said = "\n".join(code(ROOT / "README.md"))
    assert [name for name in main.commands if not re.search(rf"\bcai {name}\b", said)] == []


def test_every_command_says_what_it_does() -> None:
    assert [name for name, command in main.commands.items() if not command.help] == []


def test_every_requirement_has_one_row_in_order_and_a_status() -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in PAPER.read_text().splitlines()
        if re.match(r"\| [A-Z]{2}-", line)
    ]
    assert [row[0] for row in rows] == [f"{f}-{n}" for f, last in FAMILIES.items() for n in range(1, last + 1)]
    status = re.compile(r"(done|partly|missing|deviates|not ours)\b")
    assert [row[0] for row in rows if len(row) != 5 or not status.match(row[4])] == []


def anchors(doc: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", doc.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@each_doc
def test_every_link_leads_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", doc.read_text())):
        if not target.startswith(("http://", "https://", "mailto:")):
            path, _, anchor = target.partition("#")
            other = doc.parent / path if path else doc
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


READING = ROOT / "docs" / "reading_a_run.md"
NOT_TYPED = {"pip install 'constitutional-ai[serve]'", "cai show runs/demo 3f2a --scores"}
"""Lines that need the network, or a model."""


def typed(doc: Path) -> list[str]:
    """The lines of a document's shell blocks, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", doc.read_text(), re.MULTILINE | re.DOTALL)
    return [line for raw in "".join(blocks).splitlines() if (line := raw.partition("#")[0].strip())]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs/demo, which has a prompt whose id begins as in the documents."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    make(begin(Path("runs/demo")))
    asked = next(one for n in count() if (one := prompt(f"request {n}")).id.startswith("3f2a"))
    write_rows(
        Path("runs/demo/01-responses/records.jsonl"), [Response(f"{asked.id}.0", asked, completion("No."))]
    )
    return tmp_path


def test_what_reading_a_run_says_can_be_typed(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    seen: list[str] = []

    def load(make_app: Callable[[], TestClient], *_: object) -> None:
        seen.append(TestClient(make_app()).get("/").text)

    monkeypatch.setattr("constitutional_ai.report.view.viewer.serve_app", load)
    lines = typed(READING)
    assert set(lines) >= NOT_TYPED and len(lines) == 9
    for line in lines:
        if line not in NOT_TYPED:
            result = CliRunner().invoke(main, shlex.split(line)[1:])
            assert result.exit_code == 0, (line, result.output)
    assert len(seen) == 2 and "All records" in seen[0]
    assert (demo / "tables/principles.csv").exists() and (demo / "runs/demo/report.html").exists()
