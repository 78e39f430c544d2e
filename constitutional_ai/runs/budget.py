"""Stop a run cleanly when its budget is spent: with no record in progress, and with a one-sentence error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from constitutional_ai.errors import CaiError
from constitutional_ai.records import Usage


class BudgetSpent(CaiError):
    """The rest of the recipe's ``budget`` is too small for the next record or training step."""


class TokensUnknown(CaiError):
    """The recipe has a budget of tokens, but a model does not say how many it reads and writes."""


class Budget:
    """The limits of a run in tokens and hours, and what it has spent. A limit of None is no limit.

    A record reserves what the dearest record of the stage so far has read, and wrote or was allowed to write, whichever
    is more; it may start beside others if all of them then stay within the limit, and alone if the limit would hold
    even if it cost as much as the dearest. The first record of a stage runs alone, to learn the cost, and no more run
    together than have ended before: one cheap record says little about the dear ones. So only the first record, and
    the difference between the last ones and the dearest before them, can pass the limit. Tokens are counted by
    ``records.usage``, and those of failed records, in all sessions, by their requests; scores report none.
    """

    def __init__(
        self,
        tokens: int | None = None,
        hours: float | None = None,
        *,
        spent: int = 0,
        seconds: float = 0.0,
        unknown: str | None = None,
    ) -> None:
        """Set the limits, and the ``spent`` tokens and ``seconds`` that other stages have already cost.

        ``unknown`` says what was not counted, as the subject of a sentence.
        """
        self._tokens, self._hours, self._unknown = tokens, hours, unknown
        self._spent, self._started = spent, time.monotonic() - seconds
        self._claim: Callable[[int, int], int] | None = None
        self._note = ""
        self._before, self._claimed = spent, 0
        self._dearest: int | None = None
        self._read = self._allowed = 0
        self._ended = self._in_progress = 0
        self._changed = asyncio.Event()

    def for_other_records(self) -> Budget:
        """Return a budget with what is left of this one, for records whose cost says nothing about that of these.

        What it spends is not counted here: add it with ``add_spent``.
        """
        seconds = time.monotonic() - self._started
        other = Budget(self._tokens, self._hours, spent=self._spent, seconds=seconds, unknown=self._unknown)
        other._claim, other._note, other._before = self._claim, self._note, self._before
        return other

    def shared(self, claim: Callable[[int, int], int], note: str = "") -> Budget:
        """Return this budget, shared with other shards: what is spent from now on must be claimed (``Tally.claim``).

        ``note`` is a sentence for errors, about how it is shared.
        """
        self._claim, self._note = claim, note
        return self

    def add_spent(self, tokens: int, dearest: int | None = None, records: int = 0) -> None:
        """Count tokens that earlier sessions spent on ``records``, and those of the most expensive of these."""
        self._spent, self._ended = self._spent + tokens, self._ended + records
        if dearest is not None:
            self._dearest = max(self._dearest or 0, dearest)

    def add_unknown(self, model: str) -> None:
        """Note that a model's tokens are not counted. They break a budget of tokens when the next record starts."""
        self._unknown = f"{model} does not say how many tokens it reads and writes"

    def check_counted(self) -> None:
        """Raise TokensUnknown if a budget of tokens cannot be kept, because tokens were spent without a count."""
        if self._tokens is not None and self._unknown:
            raise TokensUnknown(
                f"budget.tokens={self._tokens} cannot be kept: {self._unknown}. All finished records are kept. To "
                "continue, type the same command with budget.tokens=null, or with budget.hours instead."
            )

    async def reserve(self, stage: str) -> None:
        """Wait until one more record fits. Raises BudgetSpent when none will, and TokensUnknown."""
        self.check_counted()
        while (limit := self._passed_limit()) is not None:
            if not self._in_progress:
                raise BudgetSpent(self._message(stage, limit))
            self._changed.clear()
            await self._changed.wait()
        self._in_progress += 1

    def charge(self, tokens: Usage, *, allowed: int = 0, known: bool = True) -> None:
        """Count the cost of a record that has ended, and release its reservation.

        Its requests might have written ``allowed`` tokens. A failed record's cost may not be ``known``: it then says
        nothing about the next.
        """
        self._spent, self._in_progress = self._spent + sum(tokens), self._in_progress - 1
        if known:
            self._ended += 1
            self._dearest = max(self._dearest or 0, sum(tokens))
            self._read, self._allowed = max(self._read, tokens.prompt_tokens), max(self._allowed, allowed)
        self._changed.set()

    def check(self, stage: str) -> None:
        """Raise BudgetSpent once the hours are spent; for trainings, which cost no tokens."""
        if self._is_late():
            raise BudgetSpent(self._message(stage, "hours"))

    def _passed_limit(self) -> str | None:
        """Return the limit that one more record might exceed, or None."""
        if self._is_late():
            return "hours"
        return "tokens" if self._tokens is not None and not self._fits(self._tokens) else None

    def _fits(self, tokens: int) -> bool:
        if self._dearest is None:
            return not self._in_progress and self._has(self._spent + 1, tokens)
        if not self._in_progress:
            return self._has(self._spent + self._dearest, tokens)
        # A stage whose records cost nothing, such as scores, reserves nothing.
        reserved = max(self._dearest, self._read + self._allowed) if self._dearest else 0
        ahead = self._in_progress + 1
        return ahead <= self._ended and self._has(self._spent + ahead * reserved, tokens)

    def _has(self, needed: int, tokens: int) -> bool:
        """Return whether ``needed`` tokens are within the limit and, in a shard, are or can be claimed."""
        if self._claim and self._before + self._claimed < needed <= tokens:
            self._claimed = self._claim(needed - self._before, tokens - self._before)
        return needed <= (min(tokens, self._before + self._claimed) if self._claim else tokens)

    def _is_late(self) -> bool:
        return self._hours is not None and time.monotonic() - self._started >= 3600 * self._hours

    def _message(self, stage: str, limit: str) -> str:
        hours = (time.monotonic() - self._started) / 3600
        setting = f"budget.tokens={self._tokens}" if limit == "tokens" else f"budget.hours={self._hours}"
        note = self._note if limit == "tokens" else ""
        return (
            f"{setting} is too low to continue {stage}: {self._spent:,} tokens and {hours:.2f} hours are spent. {note}"
            f"All finished records are kept. To continue, type the same command with a higher budget.{limit}."
        )
