"""Shares and means of items that fall into groups, such as several answers to one prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from cai.intervals import cluster_bootstrap, rate
from cai.records import Metric


def share(name: str, model: str, outcomes: Sequence[bool], groups: Sequence[Hashable], *, seed: int) -> Metric:
    """Share of True, with a 95 % interval that draws whole groups.

    Where all outcomes are alike a bootstrap sees no spread: the interval is then Wilson's, as if each group were one
    outcome, so that none of 60 answers to 20 prompts is known no better than none of 20.

    >>> share("objection_rate", "start", [False] * 60, [n // 3 for n in range(60)], seed=0).high < 0.17
    True
    """
    found = cluster_bootstrap(name, model, outcomes, groups, seed=seed)
    if len(set(outcomes)) != 1:
        return found
    alike = rate(name, model, [bool(outcomes[0])] * len(set(groups)))
    return replace(found, low=alike.low, high=alike.high)
