"""A budget that stops a run cleanly: before a record starts, with none in progress, and with one sentence."""

from __future__ import annotations

import asyncio
import time

from constitutional_ai.errors import CaiError
from constitutional_ai.records import Usage


class BudgetSpent(CaiError):
    """The recipe's ``budget`` does not allow what comes next."""


class Budget:
    """The tokens and hours that a run may spend, and those it has spent. Without limits unless they are given.

    A record may start if the limit holds even when it, and each record in progress, costs as much as the dearest of
    the stage so far. The first record of a stage is made alone, to learn what one costs; only this one may pass the
    limit. Tokens are those that ``usage`` finds in records: scores report none.
    """

    def __init__(
        self, tokens: int | None = None, hours: float | None = None, *, spent: int = 0, seconds: float = 0.0
    ) -> None:
        """Set the limits. Other stages have already cost ``spent`` tokens and ``seconds``."""
        self._tokens, self._hours = tokens, hours
        self._spent, self._started = spent, time.monotonic() - seconds
        self._dearest: int | None = None
        self._in_progress = 0
        self._changed = asyncio.Event()

    def add_spent(self, tokens: int, dearest: int | None = None) -> None:
        """Count tokens that an earlier session spent, and those of its dearest record."""
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
        """End a record that ``reserve`` let start, and count its cost."""
        self._spent, self._in_progress = self._spent + sum(tokens), self._in_progress - 1
        self._dearest = max(self._dearest or 0, sum(tokens))
        self._changed.set()

    def check(self, stage: str) -> None:
        """Raise BudgetSpent once the hours are spent. For trainings, which cost no tokens."""
        if self._is_late():
            raise BudgetSpent(self._message(stage, "hours"))

    def _passed_limit(self) -> str | None:
        """Return the limit that one more record might pass, or None."""
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
            f"{setting} is too little for more of {stage}: {self._spent:,} tokens and {hours:.2f} hours are spent. "
            f"All finished records are kept. To go on, type the same command with a higher budget.{limit}."
        )
