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


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_sentence() -> None:
    for words in (["check"], ["judge", "scripted:echo", "--data"], ["run"]):
        Path("mine").touch(mode=0)
        refused([*words, "mine"])
