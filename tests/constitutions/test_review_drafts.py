"""Review drafts key by key, through click's runner and in a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from constitutional_ai.cli import main, review_drafts
from constitutional_ai.constitutions.clauses import Clause
from constitutional_ai.constitutions.constitution import Principle, load_constitution
from constitutional_ai.constitutions.draft_file import read_draft_file
from constitutional_ai.constitutions.drafts import drafts_file
from constitutional_ai.errors import InputError

CLAUSES = [
    Clause("Values > Kindness ¶1", 3, "Be kind to people.\x1b[2J"),
    Clause("Values > Fairness ¶1", 5, "Be fair."),
]

DECIDED = re.compile(rb"\(q\)\? (?:accept|edit|reject)")


def principle(name: str, clause: Clause, **texts: str) -> Principle:
    return Principle(name=name, draft=True, source=clause.anchor("a.md"), **texts)


DRAFTS = [
    [
        principle("kind-1", CLAUSES[0], critique="Is it rude?", revision="Make it kind: # no comment."),
        principle("kind-2", CLAUSES[0], preference="Which is\n1 of 1: accept (a)? \x1b]0;gone\x07"),
    ],
    [principle("fair-1", CLAUSES[1])],
]


@pytest.fixture
def drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(review_drafts, "is_terminal", lambda: True)
    path = tmp_path / "drafts.yaml"
    path.write_text(drafts_file("a.md", CLAUSES, DRAFTS))
    return path


def review(path: Path, keys: str) -> Result:
    return CliRunner().invoke(main, ["constitution", "review", str(path)], input=keys)


def left(path: Path) -> list[str]:
    return [p.name for p in load_constitution(path, drafts=True).principles if p.draft]


def test_each_decision_is_written_and_a_review_continues(drafts: Path) -> None:
    before = drafts.read_text()
    first = review(drafts, "xaq")
    assert first.exit_code == 0, first.output
    assert f"{drafts}: 1 accepted, 0 rejected, 2 drafts left" in first.output
    assert drafts.read_text() == before.replace("    draft: true\n", "", 1)
    second = review(drafts, "rs")
    assert "1 of 2: kind-1  (accepted)" in second.output
    assert "0 accepted, 1 rejected, 1 drafts left" in second.output
    assert "Make it kind: # no comment." in drafts.read_text() and "# Values > Fairness" in drafts.read_text()
    assert left(drafts) == ["fair-1"]
    assert [p.name for p in load_constitution(drafts, drafts=True).principles] == ["kind-1", "fair-1"]


def test_what_is_skipped_comes_again_and_no_keys_quit(drafts: Path) -> None:
    before = drafts.read_text()
    assert "0 accepted, 0 rejected, 3 drafts left" in review(drafts, "sss").output
    assert "3 drafts left" in review(drafts, "").output
    assert drafts.read_text() == before


def test_a_models_text_cannot_pose_as_a_question(drafts: Path) -> None:
    shown = review(drafts, "q").output
    assert "\x1b" not in shown and "\x07" not in shown
    assert [line for line in shown.splitlines() if line.startswith("1 of ")] == [
        "1 of 2: accept (a), edit (e), reject (r), skip (s), quit (q)? quit"
    ]
    assert "Values > Kindness ¶1 (line 3): Be kind to people." in shown


def test_an_edited_draft_stays_one_until_it_is_accepted(drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(
        ["name: fair-1\npreference: Which is fairer?\n", None, "name: kind-1\n", "- no\n", "name: [\n"]
    )
    monkeypatch.setattr("click.edit", lambda text, extension: next(texts))
    shown = review(drafts, "ssaeq").output
    assert "it has neither a revision request nor a preference question nor a proposition" in shown
    assert "preference: Which is fairer?" in shown
    assert left(drafts) == ["kind-1", "kind-2", "fair-1"]
    shown = review(drafts, "sseeeeaq").output
    assert "another principle is named 'kind-1'. Choose another name." in shown
    assert "it holds no principle" in shown and "line 2: not YAML" in shown
    assert left(drafts) == ["kind-1", "kind-2"]
    assert load_constitution(drafts, drafts=True).principles[2].preference == "Which is fairer?"


def test_the_last_principle_is_not_rejected(drafts: Path) -> None:
    shown = review(drafts, "rrrq").output
    assert f"it is the only principle that is left. Keep it, or delete {drafts}." in shown
    assert left(drafts) == ["fair-1"]


def test_a_file_that_changes_meanwhile_is_left_alone(drafts: Path) -> None:
    before = read_draft_file(drafts)
    after = before.without(0)
    drafts.write_text(drafts.read_text() + "# mine\n")
    with pytest.raises(InputError, match="was changed by another program"):
        after.save_after(before)
    assert drafts.read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    "text",
    [
        "name: a\nprinciples: [{name: b, draft: true}]\n",
        "name: a\nprinciples:\n- &x {name: b, draft: true, tags: &t [c]}\n- {name: d, draft: true, tags: *t}\n",
        "name: a\nprinciples:\n-\n  name: b\n  draft: true\n",
        "\ufeffname: a\nprinciples:\n- {name: b, draft: true}\n",
    ],
)
def test_a_file_in_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"is not in the form that .* writes\. Edit it by hand\."):
        read_draft_file(tmp_path / "a.yaml")


def test_without_a_terminal_or_a_file_there_is_no_review(drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no file" in review(drafts.with_name("none.yaml"), "a").output
    monkeypatch.undo()
    refused = review(drafts, "a")
    assert (refused.exit_code, "a review asks for keys. Type it in a terminal" in refused.output) == (1, True)
    assert len(left(drafts)) == 3


def test_keys_and_the_editor_work_in_a_terminal(drafts: Path, tmp_path: Path) -> None:
    """The editor is a script that adds a question to the draft."""
    editor = tmp_path / "editor.py"
    editor.write_text("import sys\nopen(sys.argv[1], 'a').write('preference: Which is fairer?\\n')\n")
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "constitutional_ai", "constitution", "review", str(drafts)]
    environment = os.environ | {"EDITOR": f"{sys.executable} {editor}", "VISUAL": "", "TERM": "dumb"}
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environment)
    os.close(inside)
    shown, ends = b"", time.monotonic() + 240
    while time.monotonic() < ends:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
        elif shown.endswith(
            b"(q)? "
        ):  # again, until it is seen: what is typed before it waits for a key is lost
            os.write(terminal, b"area"[len(DECIDED.findall(shown)) :][:1])
    os.close(terminal)  # what still waits for a key gets the end of the input
    assert process.wait(timeout=60) == 0, shown
    assert b"2 accepted, 1 rejected, 0 drafts left" in shown
    assert [p.name for p in load_constitution(drafts).principles] == ["kind-1", "fair-1"]
