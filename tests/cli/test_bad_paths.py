"""A path that cannot be used is one sentence, whichever command meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main

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


@pytest.mark.parametrize("place", [*PLACES, "folder", "circle.yaml", "/dev/zero"], ids=lambda p: ascii(p)[:16])
def test_what_cannot_be_read_is_one_sentence(place: str) -> None:
    for words in READ:
        refused([*words[:1], *([place, *words[1:]] if words[0] == "show" else [*words[1:], place])])
    for key in ("constitution", "prompts.red_team.file", "few_shots", "preference_model.helpfulness.file"):
        refused(["run", "demo", f"{key}={place}", "feedback.format=plain", "--until", "01-responses", "out=o"])


@pytest.mark.parametrize("place", PLACES, ids=lambda p: ascii(p)[:16])
def test_what_cannot_be_written_is_one_sentence(place: str) -> None:
    for words in WRITE:
        refused([*words, place])
    refused(["run", "demo", *ECHO, "--until", "01-responses", f"out={place}"])


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_sentence() -> None:
    for words in (["check"], ["judge", "scripted:echo", "--data"], ["run"]):
        Path("mine").touch(mode=0)
        refused([*words, "mine"])
