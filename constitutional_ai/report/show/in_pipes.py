"""Show one thing in a terminal, which has a width, and another in a file or a pipe, which has none."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


@dataclass(frozen=True)
class InPipes:
    """A renderable that is ``plain`` where the output is no terminal."""

    in_terminals: RenderableType
    plain: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.in_terminals if console.is_terminal else self.plain
