"""Count what the shards of a stage have made, lost and spent together, in a small file that each of them writes.

No shard waits for another. Each writes its own file about once a second, and reads those of the others when it matters:
when a record fails, and when the tokens that it has claimed are spent. So ``max_failures`` and ``budget.tokens`` hold
over all shards. Claims are read and written without a lock: two shards that claim in the same moment can together pass
the budget by one record each, beside the first record of each shard, whose cost nobody knows.

Shards of a remote run see no files of each other. Each then has an equal part of the tokens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from constitutional_ai.records import Usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import load_json, write_atomically
from constitutional_ai.runs.shards import Shard

EVERY_SECONDS = 1.0
"""How often a shard writes its counts while records are made."""


@dataclass
class Counts:
    """What a shard has made so far."""

    done: int = 0
    """Records that were made or have failed in this session, and records of earlier ones."""
    total: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    claimed: int = 0
    """Tokens up to which the shard may spend without asking; 0 without a budget."""

    @property
    def spent(self) -> int:
        """Tokens that must be counted against the budget."""
        return max(self.claimed, self.prompt_tokens + self.completion_tokens)


def read_counts(run: Path, stage: str, shard: Shard) -> Counts:
    """Return the counts of a shard; zeros if it has not begun."""
    return load_json(shard.folder(run) / stage / layout.COUNTS, Counts) or Counts()


class Tally:
    """The counts of one shard, and what it knows of the others."""

    def __init__(self, run: Path, stage: str, shard: Shard, *, apart: bool = False) -> None:
        """``apart`` says that shards may see no files of each other."""
        self._run, self._stage, self._shard, self._apart = run, stage, shard, apart
        self._counts, self._written = read_counts(run, stage, shard), 0.0

    # -- what the runner tells

    def start(self, done: int, total: int) -> None:
        """Note that the shard begins, or goes on. Records that failed before are tried again."""
        self._counts.done, self._counts.total, self._counts.failed = done, total, 0
        self._write()

    def advance(self, tokens: Usage, *, failed: bool) -> None:
        """Note that one more record was made, or failed, and what it cost."""
        counts = self._counts
        counts.done, counts.failed = counts.done + 1, counts.failed + failed
        counts.prompt_tokens += tokens.prompt_tokens
        counts.completion_tokens += tokens.completion_tokens
        if failed or time.monotonic() - self._written > EVERY_SECONDS:
            self._write()

    def finish(self, tokens: Usage) -> None:
        """Note that the shard is complete, and what it has cost."""
        self._counts.prompt_tokens, self._counts.completion_tokens = tokens
        self._counts.claimed = 0
        self._write()

    # -- what holds over all shards

    def failed_elsewhere(self) -> int:
        """Return the number of records that have failed in the other shards."""
        return sum(counts.failed for counts in self._others())

    def claim(self, needed: int, left: int) -> int:
        """Return the tokens up to which this shard may spend; less than ``needed`` if the budget is too small.

        ``left`` is what the budget has left for all shards together, without what they have spent. A shard takes what
        it needs and its share of the rest. One that is ``apart`` may have an equal part, and no more.
        """
        if self._apart:
            self._counts.claimed = left // self._shard.of
            self._write()
            return self._counts.claimed
        rest = left - sum(counts.spent for counts in self._others()) - needed
        if rest >= 0:
            self._counts.claimed = needed + rest // self._shard.of
            self._write()
        return self._counts.claimed

    @property
    def note(self) -> str:
        """A sentence about the budget, with a space at its end; empty where shards see each other's counts."""
        return f"Each of the {self._shard.of} shards has an equal part. " if self._apart else ""

    def _others(self) -> Iterator[Counts]:
        for shard in Shard.all_of(self._shard.of):
            if shard != self._shard:
                yield read_counts(self._run, self._stage, shard)

    def _write(self) -> None:
        path = self._shard.folder(self._run) / self._stage / layout.COUNTS
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self._counts)) + "\n")
        self._written = time.monotonic()
