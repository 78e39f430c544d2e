"""A path that cannot be used is one sentence, whichever command meets it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main

ROOT = Path(__file__).parents[2]
LONG = "x" * 300
FAR = "/".join(["x" * 200] * 30)
ECHO = ["models.helpful=scripted:echo", "models.feedback=scripted:echo", "feedback.method=votes"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a file, a folder, and links to nothing and to itself."""
    monkeypatch.chdir(tmp_path)
    Path("principles.txt").write_text("Which answer is kinder to all the people that it is about?\n")
    Path("folder").mkdir()
    Path("circle.yaml").symlink_to("circle.yaml")
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "Hi", "chosen": "a", "rejected": "b"}) + "\n")


PLACES = [LONG, FAR, "/proc/x", "/dev/null/x", "principles.txt/x", "circle.yaml/x", "\udcff"]
READ = [
    *(["check"], ["constitution", "lint"], ["constitution", "diff", "default"], ["report"], ["chat"], ["run"]),
    *(
        ["estimate"],
        ["show", "ID"],
        ["compare", "folder"],
        ["figure", "2"],
        ["export", "--to", "parquet", "--out", "o"],
    ),
    *(
        ["judge", "scripted:echo", "--data"],
        ["harmfulness", "--out", "o"],
        ["constitution", "import", "--out", "o"],
    ),
    *(["evaluate", "a=scripted:echo", "--out", "o", "--prompts"], ["estimate", "demo", "--like"], ["serve"]),
    ["estimate", "demo", "--rates"],
    *(["score", "folder", "--out", "o"], ["doctor"], ["evaluate", "--out", "o"]),
]
WRITE = [
    ["constitution", "import", "principles.txt", "--out"],
    ["judge", "scripted:echo", "--data", "pairs.jsonl", "--set", "method=votes", "--out"],
    ["evaluate", "a=scripted:echo", "--part", "answers", "--limit", "1", "--out"],
    ["estimate", "demo", *ECHO, "--out"],
]


def refused(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert isinstance(result.exception, SystemExit), (words, result.exception)
    assert result.exit_code in (1, 2)
    assert any(start in result.stderr for start in ("cai: ", "Error: "))
    assert len(result.stderr) < 1600


@pytest.mark.parametrize("words", READ, ids=lambda words: " ".join(words[:2]))
def test_every_command_says_in_one_sentence_what_it_cannot_read(words: list[str]) -> None:
    refused([words[0], LONG, *words[1:]] if words[0] == "show" else [*words, LONG])


@pytest.mark.parametrize(
    "key", ["constitution", "prompts.red_team.file", "few_shots", "preference_model.helpfulness.file"]
)
def test_so_does_a_run_before_it_begins(key: str) -> None:
    words = ["run", "demo", *ECHO, "feedback.format=plain", "--until", "01-responses", "out=o"]
    refused([*words, f"{key}={LONG}"])


@pytest.mark.parametrize("place", [*PLACES, "folder", "circle.yaml", "/dev/zero"], ids=lambda p: ascii(p)[:16])
def test_what_cannot_be_read_is_one_sentence(place: str) -> None:
    for words in (["check"], ["report"], ["judge", "scripted:echo", "--data"], ["estimate"]):
        refused([*words, place])


@pytest.mark.parametrize("place", PLACES, ids=lambda p: ascii(p)[:16])
def test_what_cannot_be_written_is_one_sentence(place: str) -> None:
    for words in WRITE[: 4 if place == LONG else 1]:
        refused([*words, place])


@pytest.mark.parametrize("place", ["/proc/x", LONG], ids=lambda p: p[:8])
def test_a_run_that_cannot_be_written_is_one_sentence(place: str) -> None:
    refused(["run", "demo", *ECHO, "--until", "01-responses", f"out={place}"])


def refused_as_a_user() -> None:
    """Refuse what this process has no right to read. It holds no recipe: an empty one that is read begins a run."""
    for words in (["check"], ["judge", "scripted:echo", "--data"], ["run"]):
        result = CliRunner().invoke(main, [*words, "mine"])
        assert isinstance(result.exception, SystemExit), (words, result.exception)
        assert re.search("Permission denied|is not readable", result.stderr), (words, result.stderr)
        assert "Traceback" not in result.stderr


def test_what_may_not_be_read_is_one_sentence() -> None:
    Path("mine").write_text("no: recipe\n")
    Path("mine").chmod(0)
    if os.getuid():
        refused_as_a_user()
        return
    # Root without the right to pass modes over; another user may have no right to read Python itself.
    if not shutil.which("setpriv"):
        pytest.skip("root reads everything, and there is no setpriv")
    code = "from tests.cli.test_bad_paths import refused_as_a_user; refused_as_a_user()"
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*rights, sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
