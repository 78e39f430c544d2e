"""Measure how far people agree: Krippendorff's alpha, with an interval that draws whole clusters of items."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

from constitutional_ai.records import Metric

DRAWS = 1000
Level = Literal["nominal", "ordinal"]


def krippendorff_alpha(
    name: str,
    values: Mapping[Hashable, Sequence[int]],
    clusters: Mapping[Hashable, Hashable],
    *,
    level: Level,
    seed: int,
) -> Metric:
    """Return the agreement about items: 1 is perfect, 0 is chance, below 0 is worse than chance.

    ``values`` holds the values that each item was given, one for each person; items with fewer than two say nothing of
    agreement and are not counted. ``clusters`` says of each item to which group it belongs. The value is None if no
    item has two values or all values are the same, where alpha is not defined. ``level`` is how far values differ:
    nominal, equal or not; ordinal, by their order. Raises ModuleNotFoundError without the package ``krippendorff``.
    """
    import numpy as np

    shared = {item: given for item, given in values.items() if len(given) > 1}
    domain = sorted({value for given in shared.values() for value in given})
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, item in enumerate(shared):
        groups[clusters[item]].append(row)
    metric = Metric(name, "people", None, None, None, len(shared), clusters=len(groups))
    if len(domain) < 2:
        return metric
    counts = np.array([[Counter(given)[value] for value in domain] for given in shared.values()])
    value = _alpha(counts, domain, level)
    members, random = list(groups.values()), np.random.default_rng(seed)
    drawn = [
        one
        for draw in (random.integers(len(members), size=len(members)) for _ in range(DRAWS))
        if (one := _alpha(counts[np.concatenate([members[i] for i in draw])], domain, level)) is not None
    ]
    if len(members) < 2 or len(drawn) < DRAWS / 2 or len(set(drawn)) < 2:
        return Metric(name, "people", value, None, None, len(shared), clusters=len(groups))
    low, high = map(float, np.percentile(drawn, [2.5, 97.5]))
    return Metric(name, "people", value, low, high, len(shared), clusters=len(groups))


def _alpha(counts: object, domain: Sequence[int], level: Level) -> float | None:
    """Return alpha of counts [items, values]; None if all values are the same."""
    import numpy as np
    from krippendorff import alpha

    table = np.asarray(counts)
    if (table.sum(0) > 0).sum() < 2:
        return None
    return float(alpha(value_counts=table, value_domain=list(domain), level_of_measurement=level))
