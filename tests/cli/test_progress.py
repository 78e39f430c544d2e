from __future__ import annotations

import io

from rich.console import Console

from constitutional_ai.cli.progress import Bars
from constitutional_ai.records import Usage


def shown(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with Bars(console) as bars:
        bars.start("01-responses", 1, 3)
        bars.advance("01-responses", Usage(5, 2), failed=False)
        bars.advance("01-responses", Usage(0, 0), failed=True)
        bars.say("gate: [bold] is no markup here")
        bars.finish("01-responses")
        bars.finish("02-revisions")  # was complete before: it never started
    return out.getvalue()


def test_a_log_gets_one_line_a_stage() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "gate: [bold] is no markup here"
    assert lines[1].startswith("01-responses: 2 answers made, 1 failed in ")
    assert len([line for line in lines if line.strip()]) == 2


def test_a_terminal_gets_a_bar_with_what_failed() -> None:
    text = shown(terminal=True)
    assert "3/3" in text and " answers" in text
    assert "1 failed" in text
    assert "gate: [bold] is no markup here" in text
