"""Mix helpful rows into the training rows in a given proportion (SL-16, PM-1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from constitutional_ai.errors import InputError
from constitutional_ai.seeding import seed_of


def mixed(
    rows: Sequence[dict[str, Any]], share: float | None, *, helpful: Collection[str], seed: int
) -> list[dict[str, Any]]:
    """Return rows with a ``share`` of the ``helpful`` sources, to within one row; None returns all rows.

    Random rows of the overrepresented side are dropped, by ``seed``. No row is repeated, and the order is unchanged.
    Raises InputError if one side has no row.
    """
    if share is None:
        return list(rows)
    ours = [row["id"] for row in rows if row["source"] in helpful]
    others = [row["id"] for row in rows if row["source"] not in helpful]
    if not (ours and others):
        counts = dict(Counter(row["source"] for row in rows))
        raise InputError(
            f"helpful_share={share} needs rows of source {' or '.join(helpful)} and of another source, and there are "
            f"only {counts}. Set helpful_share=null, or use more prompts."
        )
    if len(ours) > share * len(rows):
        kept = {*others, *_some(ours, round(len(others) * share / (1 - share)), seed)}
    else:
        kept = {*ours, *_some(others, round(len(ours) * (1 - share) / share), seed)}
    return [row for row in rows if row["id"] in kept]


def _some(names: Sequence[str], count: int, seed: int) -> list[str]:
    return sorted(names, key=lambda name: seed_of(seed, "mixture", name))[:count]
