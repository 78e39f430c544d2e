"""Say what to type after a run."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.records import PreferenceLabel
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run

SHOWN = 8
"""Characters of an id that are shown; 16 are the whole."""


def next_steps(run: Run) -> Iterator[str]:
    """Yield three commands, which begin with the path of this program where the shell would not find it."""
    cai, folder = program(), shlex.quote(str(run.folder))
    labelled = next(iter(run.rows(layout.PREFERENCE_LABELS, PreferenceLabel)), None)
    yield "What to type next:"
    if labelled:
        shown = labelled.comparison.prompt.id[:SHOWN]
        yield f"  {cai} show {folder} {shown}   # one prompt: its answers, revisions, labels and scores"
    yield f"  {cai} chat {folder}   # ask the start, SL-CAI and RL-CAI the same thing, side by side"
    yield f"  {cai} new my-project   # start your own: a constitution, prompts and a recipe"


def program() -> str:
    """Return what starts this program in the user's shell."""
    path = Path(sys.argv[0])
    if path.suffix == ".py":  # python -m constitutional_ai
        return f"{shlex.quote(sys.executable)} -m constitutional_ai"
    there = shutil.which(path.name)
    is_on_path = there is not None and path.exists() and Path(there).samefile(path)
    return path.name if is_on_path else shlex.quote(str(path))
