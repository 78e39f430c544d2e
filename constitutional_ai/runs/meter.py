"""Count the tokens of a record while it is made, whether it is finished or fails.

A record that fails holds no completions, but they were paid for. A step runs in its own task, and so do the requests
that it sends at once; they share the meter that was set when the step began.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from constitutional_ai.records import Usage


@dataclass
class Meter:
    """The tokens of one record so far."""

    tokens: Usage = field(default_factory=lambda: Usage(0, 0))
    allowed: int = 0
    """Tokens that the requests might have written at most: the sum of their ``max_tokens``."""


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Yield a meter of the requests that are sent in the block."""
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def count(read: int, written: int, allowed: int) -> None:
    """Count a request that has ended on the meter of its record; outside a record it is not counted."""
    if meter := _METER.get():
        meter.tokens = Usage(meter.tokens.prompt_tokens + read, meter.tokens.completion_tokens + written)
        meter.allowed += allowed
