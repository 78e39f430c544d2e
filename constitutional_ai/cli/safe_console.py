"""A terminal on which strangers' text moves no cursor, sets no colour or title, and keeps its reading order."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from constitutional_ai.safe_text import visible


class SafeConsole(Console):
    """rich's console. Its own control codes and styles are not text, and stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything that is printed, with the control characters of their text replaced."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
