"""Show the progress of a run: a bar for each stage, with rate, tokens and time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from constitutional_ai.records import Usage
from constitutional_ai.runs import layout


class _Rate(ProgressColumn):
    """Records and tokens per second, and failures."""

    def render(self, task: Task) -> Text:
        parts = []
        if task.speed:
            parts.append(f"{task.speed:.1f}/s")
        tokens, elapsed = task.fields["tokens"], task.elapsed
        if tokens and elapsed:
            parts.append(f"{tokens:,} tokens, {tokens / elapsed:,.0f}/s")
        if task.fields["failed"]:
            parts.append(f"{task.fields['failed']} failed")
        return Text("  ".join(parts))


UNITS = {
    **dict.fromkeys((layout.SL_CAI_MODEL, layout.PREFERENCE_MODEL, layout.RL_CAI_MODEL), "steps"),
    **dict.fromkeys((layout.COMPARISONS, layout.PREFERENCE_LABELS), "pairs"),
    layout.PROMPTS: "drafts",
    layout.RESPONSES: "answers",
    layout.REVISIONS: "answers",
    layout.EVALUATION: "answers",
}
"""What is counted in a stage: optimiser steps in a training, elsewhere records."""


def unit_of(stage: str) -> str:
    """Return what is counted in a stage of a run, or in a part of an evaluation."""
    return UNITS.get(stage, "records")


class Bars:
    """Live bars in a terminal, or a line per finished stage elsewhere, such as in a log. A context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description:<21}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            _Rate(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, tokens=0, failed=0, unit=unit_of(stage))
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def advance(self, stage: str, tokens: Usage, *, failed: bool) -> None:
        task = self._bars.tasks[self._tasks[stage]]
        self._bars.update(
            task.id,
            advance=1,
            tokens=task.fields["tokens"] + tokens.completion_tokens,
            failed=task.fields["failed"] + failed,
        )

    def finish(self, stage: str) -> None:
        if not self._bars.console.is_terminal and stage in self._tasks:
            task = self._bars.tasks[self._tasks[stage]]
            failed = task.fields["failed"]
            more = f", {failed} failed" if failed else ""
            unit = task.fields["unit"]
            count = (
                f"{task.completed - failed:.0f} {unit} made" if failed else f"{task.completed:.0f} {unit} done"
            )
            self._bars.console.print(f"{stage}: {count}{more} in {task.elapsed or 0:.0f} s")

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)
