"""Names of files, models and values, and all texts of a run, are a stranger's: none moves the terminal."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.text import Text

from constitutional_ai.cli import main
from constitutional_ai.cli.safe_console import SafeConsole
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from tests.report.conftest import RED
from tests.test_house import MODULES, PACKAGE, tree

EVIL = "x\x1b]0;title\x07\x1b[2J\u202e\x9b31m\u2066\r[red]\x7f"
QUOTED = json.dumps(EVIL)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys: all controls but the tab and the line break, and marks of direction."""
ECHO = ["models.helpful=scripted:echo", "models.feedback=scripted:echo", "feedback.method=votes"]
FEW = [f"prompts.{kind}.limit=1" for kind in ("red_team", "helpful", "borderline")]
MINE = f"{EVIL}/{EVIL}.yaml"
ROWS = f"{EVIL}/{EVIL}.jsonl"
LABEL = f"{EVIL}=scripted:echo"


@pytest.fixture
def place(evaluated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a hostile run, ``run``, again under a hostile name, and hostile files in a hostile folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(evaluated.folder, EVIL)
    Path(MINE).write_text(f"name: {QUOTED}\nprinciples: [{{name: {QUOTED}, preference: {QUOTED}}}]\n")
    Path(ROWS).write_text(json.dumps({"prompt": EVIL, "chosen": EVIL, "rejected": "b", EVIL: 1}) + "\n")
    return tmp_path


COMMANDS = [
    ["run", "demo", f"out={QUOTED}", *ECHO, *FEW, "--until", layout.REVISIONS],
    ["run", "demo", f"out={json.dumps(EVIL + '2')}", *ECHO, *FEW, "--until", layout.REVISIONS],
    ["run", "demo", f"{EVIL}={EVIL}"],
    ["run", "demo", f"out={EVIL}"],
    ["run", "demo", f"constitution={QUOTED}"],
    ["run", "demo", f"models.helpful={QUOTED}"],
    ["run", "demo", f"engine={QUOTED}"],
    ["run", "demo", f"prompts.red_team.file={json.dumps(ROWS)}", "out=o", *ECHO, "--until", layout.RESPONSES],
    ["run", MINE],
    ["estimate", "demo", "--like", EVIL],
    ["estimate", "demo", "--rates", EVIL],
    ["estimate", "demo", "--rates", MINE],
    ["estimate", MINE],
    ["check", MINE],
    ["check", EVIL],
    ["constitution", "lint", MINE],
    ["constitution", "diff", MINE, "default"],
    ["constitution", "import", MINE, "--out", "new.yaml"],
    ["constitution", "import", ROWS, "--out", EVIL],
    ["show", EVIL, "a"],
    ["show", EVIL, EVIL],
    ["show", "run", RED[0].id],
    ["report", EVIL],
    ["compare", "run", EVIL],
    ["export", EVIL, "--to", "parquet", "--out", f"{EVIL}/out"],
    ["export", EVIL, "--to", "inspect", "--out", f"{EVIL}/logs"],
    *(["figure", str(number), EVIL, "--out", f"{EVIL}/figures"] for number in (2, 5, 9)),
    ["chat", f"{EVIL}2"],
    ["score", EVIL, ROWS, "--out", "scores"],
    ["serve", EVIL],
    ["doctor", "scripted:echo"],
    ["doctor", f"hf:{EVIL}"],
    ["doctor", EVIL],
    ["judge", "scripted:echo", "--data", ROWS, "--set", "method=votes"],
    ["judge", EVIL, "--data", EVIL],
    ["judge", "scripted:echo", "--data", ROWS, "--constitution", MINE, "--set", f"method={QUOTED}"],
    ["harmfulness", ROWS, "--out", EVIL],
    ["evaluate", LABEL, "--out", EVIL],
    ["evaluate", LABEL, "--out", f"{EVIL}3", "--limit", "1", "--part", "answers"],
    ["evaluate", f"{EVIL}=hf:{EVIL}", "--out", "new", "--pm", f"a={EVIL}"],
    ["evaluate", LABEL, "--part", EVIL],
    ["evaluate", LABEL, "--anchor", EVIL, "--out", "new"],
    ["recipe", EVIL],
    ["recipe", "demo", EVIL],
    ["new", EVIL],
    ["sweep", "demo", f"{EVIL}=1,2", f"out={EVIL}/sweep"],
    ["merge", EVIL],
    ["runs", EVIL],
    ["view", f"{EVIL}9"],
    ["label", f"{EVIL}9"],
    ["label", "results", EVIL],
    ["push", EVIL, EVIL],
    ["pull", EVIL, "--out", f"{EVIL}/pulled"],
    [EVIL],
    [f"--{EVIL}"],
    ["show", f"--{EVIL}"],
]


def test_no_command_prints_what_a_terminal_obeys(place: Path) -> None:
    outputs = {str(words): CliRunner().invoke(main, words, input=f"{EVIL}\n\n") for words in COMMANDS}
    obeyed = {words: result.output for words, result in outputs.items() if OBEYED.search(result.output)}
    assert obeyed == {}
    assert {
        words: r.exception for words, r in outputs.items() if not isinstance(r.exception, SystemExit | None)
    } == {}
    assert sum("␛" in result.output for result in outputs.values()) > 30  # the names were printed
    named = {words[0] for words in COMMANDS}
    assert set(main.commands) <= named


def test_colours_of_our_own_stay() -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=True, markup=False, highlight=False, color_system="standard")
    console.print(Text(EVIL, style="red"), EVIL)
    assert out.getvalue().count("\x1b") == 2  # the colour is set, and set back
    assert not OBEYED.search(re.sub(r"\x1b\[(31|0)m", "", out.getvalue()))


def test_all_printing_goes_through_one_file() -> None:
    """Bars of progress, which print no stranger's text, stand aside, and rows of JSON in ASCII."""
    printing = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and re.search(r"^print$|^Console$|click\.s?echo|stdout\.write|stderr\.write", ast.unparse(node.func))
    }
    assert printing == {
        "cli/app.py",
        "evaluation/judge/judge.py",
        "evaluation/principles/draft_principles.py",
        "evaluation/principles/examine.py",
        "runs/rows.py",
        "serve/score_file.py",
    }
