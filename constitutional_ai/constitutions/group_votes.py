"""Turn people's votes on statements into weights: Polis, and what builds on it.

The weight is Polis's group-aware consensus: the product, over the groups of voters, of the probability that a member
agrees, (agreed + 1) / (voted + 2). A statement that one group rejects cannot make up for it in a large other group. One
that is not likelier agreed with than not in every group is no principle of these people, and is left out.

Source: Small et al. 2021, "Polis: Scaling Deliberation by Mapping High Dimensional Opinion Spaces"; the columns of the
exports, and of Anthropic's and the Collective Intelligence Project's public constitution of 2023.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

WIDE = re.compile(r"group-(\w+)-agrees")
SHARE = re.compile(r"group[-_](\w+)[-_]consensus")
VOTES = ("1", "0", "-1")
"""Agree, pass and disagree in an export of each participant's votes; an empty cell is no vote."""


def agreement(agreed: float, voted: float) -> float:
    """Return the probability that a member of a group agrees, in (0, 1), with one vote each way added."""
    return (agreed + 1) / (voted + 2)


def consensus(groups: Iterable[float]) -> float | None:
    """Return the product of the groups' agreement, in (0, 1]; None if nobody voted, or one group does not agree.

    >>> consensus([0.9, 0.8]), consensus([0.9, 0.5]), consensus([])
    (0.7200000000000001, None, None)
    """
    shares = list(groups)
    return math.prod(shares) if shares and min(shares) > 0.5 else None


def is_of_votes(header: Sequence[str]) -> bool:
    """Return whether the columns of a table count votes."""
    return "agrees" in header or any(WIDE.fullmatch(name) or SHARE.fullmatch(name) for name in header)


def agreement_in(row: Mapping[str, str]) -> list[float]:
    """Return the agreement in each group of a row, by the most detailed columns it has.

    Raises ValueError naming a column that is no number of votes, or more votes than there were voters.
    """
    wide = [match[1] for name in row if (match := WIDE.fullmatch(name))]
    if wide:
        return [
            agreement(*_counted(row, f"group-{group}-agrees", f"group-{group}-votes"))
            for group in wide
            if _number(row, f"group-{group}-votes")
        ]
    if shares := [name for name in row if SHARE.fullmatch(name)]:
        return [_share(row, name) for name in shares if row[name]]
    agreed, others = _number(row, "agrees"), [n for n in ("disagrees", "passes") if n in row]
    return [agreement(agreed, agreed + sum(_number(row, name) for name in others))]


def agreement_by_group(header: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, list[float]]:
    """Return the agreement in each group with each statement, by the statement's id.

    ``rows`` are those of a ``participants-votes.csv``: a participant each, with a group and a vote in a column for each
    statement. A participant without a group has voted too little for one, and counts in none. Raises ValueError for a
    vote that is none.
    """
    group_at, first = header.index("group-id"), header.index("n-disagree") + 1
    agreed: dict[str, list[int]] = defaultdict(lambda: [0] * (len(header) - first))
    voted: dict[str, list[int]] = defaultdict(lambda: [0] * (len(header) - first))
    for row in rows:
        if not (group := row[group_at]):
            continue
        for at, vote in enumerate(row[first:]):
            if vote:
                if vote not in VOTES:
                    raise ValueError(f"{header[first + at]}: {vote[:20]!r} is no vote; votes are 1, 0 and -1")
                agreed[group][at] += vote == "1"
                voted[group][at] += 1
    return {
        statement: [agreement(agreed[group][at], voted[group][at]) for group in agreed if voted[group][at]]
        for at, statement in enumerate(header[first:])
    }


def _counted(row: Mapping[str, str], agrees: str, votes: str) -> tuple[float, float]:
    agreed, voted = _number(row, agrees), _number(row, votes)
    if agreed > voted:
        raise ValueError(f"{agrees}: {agreed:.0f} is more than {votes}, {voted:.0f}")
    return agreed, voted


def _number(row: Mapping[str, str], column: str) -> int:
    text = row.get(column) or ""
    if not re.fullmatch(r"\d{1,12}(?:\.0)?", text, re.ASCII):
        raise ValueError(f"{column}: {text[:20]!r} is no number of votes")
    return int(float(text))


def _share(row: Mapping[str, str], column: str) -> float:
    if not re.fullmatch(r"(?:0?\.\d{1,30}|[01](?:\.0+)?)", row[column], re.ASCII):
        raise ValueError(f"{column}: {row[column][:20]!r} is no share between 0 and 1")
    return float(row[column])
