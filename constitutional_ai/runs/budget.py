"""Stop a run cleanly when its budget is spent: with no record in progress, and with a one-sentence error."""

from __future__ import annotations

import asyncio
import time

from constitutional_ai.errors import CaiError
from constitutional_ai.records import Usage


class BudgetSpent(CaiError):
    """The rest of the recipe's ``budget`` is too small for the next record or training step."""


class Budget:
    """The limits of a run in tokens and hours, and what it has spent. A limit of None is no limit.

    A record may start if the limit would hold even if this record, and each one in progress, cost as much as the most
    expensive of the stage so far. The first record of a stage runs alone, to learn the cost; only it may exceed the
    limit. Tokens are counted by ``records.usage``; scores report none.
    """

    def __init__(
        self, tokens: int | None = None, hours: float | None = None, *, spent: int = 0, seconds: float = 0.0
    ) -> None:
        """Set the limits, and the ``spent`` tokens and ``seconds`` that other stages have already cost."""
        self._tokens, self._hours = tokens, hours
        self._spent, self._started = spent, time.monotonic() - seconds
        self._dearest: int | None = None
        self._in_progress = 0
        self._changed = asyncio.Event()

    def add_spent(self, tokens: int, dearest: int | None = None) -> None:
        """Count tokens that an earlier session spent, and those of its most expensive record."""
        self._spent += tokens
        if dearest is not None:
            self._dearest = max(self._dearest or 0, dearest)

    async def reserve(self, stage: str) -> None:
        """Wait until one more record fits. Raises BudgetSpent when none will."""
        while (limit := self._passed_limit()) is not None:
            if not self._in_progress:
                raise BudgetSpent(self._message(stage, limit))
            self._changed.clear()
            await self._changed.wait()
        self._in_progress += 1

    def charge(self, tokens: Usage) -> None:
        """Count the cost of a record that has ended, and release its reservation."""
        self._spent, self._in_progress = self._spent + sum(tokens), self._in_progress - 1
        self._dearest = max(self._dearest or 0, sum(tokens))
        self._changed.set()

    def check(self, stage: str) -> None:
        """Raise BudgetSpent once the hours are spent; for trainings, which cost no tokens."""
        if self._is_late():
            raise BudgetSpent(self._message(stage, "hours"))

    def _passed_limit(self) -> str | None:
        """Return the limit that one more record might exceed, or None."""
        if self._is_late():
            return "hours"
        if self._tokens is None:
            return None
        if self._dearest is None:
            return "tokens" if self._in_progress or self._spent >= self._tokens else None
        return "tokens" if self._spent + (self._in_progress + 1) * self._dearest > self._tokens else None

    def _is_late(self) -> bool:
        return self._hours is not None and time.monotonic() - self._started >= 3600 * self._hours

    def _message(self, stage: str, limit: str) -> str:
        hours = (time.monotonic() - self._started) / 3600
        setting = f"budget.tokens={self._tokens}" if limit == "tokens" else f"budget.hours={self._hours}"
        return (
            f"{setting} is too low to continue {stage}: {self._spent:,} tokens and {hours:.2f} hours are spent. "
            f"All finished records are kept. To continue, type the same command with a higher budget.{limit}."
        )
