"""Keep account of a record while it is made: the tokens that it costs, and what it has drawn.

A record that fails holds no completions, but they were paid for. What a server draws for a record is cached, so that a
kill loses none of it. It is forgotten when the record is written, which holds it from then on, and when the record
fails by it, because another try must draw anew. A step runs in its own task, and so do the requests that it sends at
once; they share the meter that was set when the step began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    forgetting: list[Callable[[], None]] = field(default_factory=list)
    """What forgets each completion that was drawn for the record."""

    def forget(self) -> None:
        """Forget all that was drawn for the record."""
        for forget in self.forgetting:
            forget()
        self.forgetting.clear()


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


def may_be_forgotten(forget: Callable[[], None]) -> bool:
    """Note how to forget a completion that was drawn for a record, and return whether there is one."""
    if meter := _METER.get():
        meter.forgetting.append(forget)
    return meter is not None
