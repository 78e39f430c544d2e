"""A budget that stops a run cleanly: before a record, with nothing in work, and with one sentence."""

from __future__ import annotations

import asyncio
import time

from constitutional_ai.errors import CaiError
from constitutional_ai.records import Usage


class BudgetSpent(CaiError):
    """The recipe's ``budget`` does not reach for what comes next."""


class Budget:
    """What a run may spend, and has spent; without limits unless they are given.

    A record may begin when it fits even if it, and all in work, cost as much as the stage's dearest so far. A stage's
    first record is made alone, to learn what one costs, and is the only one that may pass the limit. Tokens are those
    that ``usage`` finds in records: scores report none.
    """

    def __init__(
        self, tokens: int | None = None, hours: float | None = None, *, spent: int = 0, seconds: float = 0.0
    ) -> None:
        """``spent`` tokens and ``seconds`` are those of other stages."""
        self._tokens, self._hours = tokens, hours
        self._spent, self._began = spent, time.monotonic() - seconds
        self._most: int | None = None
        self._in_work = 0
        self._changed = asyncio.Event()

    def add_spent(self, spent: int, most: int | None = None) -> None:
        """Tokens that were spent on this stage elsewhere, as in earlier sessions, and on its dearest record."""
        self._spent += spent
        self._most = self._most if most is None else max(self._most or 0, most)

    async def reserve(self, what: str) -> None:
        """Waits until one more record fits. Raises BudgetSpent when none will."""
        while (limit := self._passed()) is not None:
            if not self._in_work:
                raise BudgetSpent(self._sentence(what, limit))
            self._changed.clear()
            await self._changed.wait()
        self._in_work += 1

    def charge(self, tokens: Usage) -> None:
        """A record that was let in has ended, and has cost so much."""
        self._spent, self._in_work = self._spent + sum(tokens), self._in_work - 1
        self._most = max(self._most or 0, sum(tokens))
        self._changed.set()

    def check(self, what: str) -> None:
        """Raises BudgetSpent once the hours are spent: of trainings, which cost no tokens."""
        if self._late():
            raise BudgetSpent(self._sentence(what, "hours"))

    def _passed(self) -> str | None:
        """The limit that one more record might pass."""
        if self._late():
            return "hours"
        if self._tokens is None:
            return None
        if self._most is None:
            return "tokens" if self._in_work or self._spent >= self._tokens else None
        return "tokens" if self._spent + (self._in_work + 1) * self._most > self._tokens else None

    def _late(self) -> bool:
        return self._hours is not None and time.monotonic() - self._began >= 3600 * self._hours

    def _sentence(self, what: str, limit: str) -> str:
        hours = (time.monotonic() - self._began) / 3600
        cap = f"budget.tokens={self._tokens}" if limit == "tokens" else f"budget.hours={self._hours}"
        return (
            f"{cap} does not reach for more of {what}: {self._spent:,} tokens and {hours:.2f} hours are spent. All "
            f"that was made is kept; to go on, type the same command with a higher budget.{limit}."
        )
