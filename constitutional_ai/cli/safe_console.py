"""A terminal on which strangers' text moves no cursor, sets no colour or title, and keeps its reading order."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from constitutional_ai.safe_text import visible

UNWRAPPED = 10_000
"""Columns of a file or a pipe, in which no line is broken."""
PADDING = re.compile(r" +(?=\n|$)")


class SafeConsole(Console):
    """rich's console. Its own control codes and styles are not text, and stay."""

    def __init__(self, *, stderr: bool = False, **settings: Any) -> None:
        """Write to standard output, or to standard error. Where that is no terminal, no line is broken or padded."""
        super().__init__(stderr=stderr, **settings)
        if not self.is_terminal:
            super().__init__(
                file=cast("IO[str]", Unpadded(stderr=stderr)), width=UNWRAPPED, color_system=None, **settings
            )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything that is printed, with the control characters of their text replaced."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class Unpadded(io.TextIOBase):
    """Standard output or error, without the spaces with which rich fills its lines."""

    def __init__(self, *, stderr: bool) -> None:
        self._name = "stderr" if stderr else "stdout"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(getattr(sys, self._name).encoding)

    def write(self, text: str) -> int:
        getattr(sys, self._name).write(PADDING.sub("", text))
        return len(text)

    def flush(self) -> None:
        getattr(sys, self._name).flush()
