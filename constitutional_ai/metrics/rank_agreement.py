"""Measure how well scores agree with people's ratings: rank correlation and area under the ROC curve.

Intervals are percentiles of a bootstrap that draws whole clusters with replacement: answers to one prompt are not
independent (pitfall 26).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from constitutional_ai.records import Metric

DRAWS = 2000
Statistic = Callable[[Any, Any], float | None]
"""A function that returns a number from two arrays with an entry per item, or None if it is not defined."""


def spearman(scores: Any, truth: Any) -> float | None:
    """Return Spearman's rank correlation in [−1, 1], ties at their mean rank; None if either is constant.

    >>> spearman([1, 2, 3], [0, 5, 9])
    1.0
    """
    import numpy as np
    from scipy.stats import rankdata

    a, b = rankdata(scores), rankdata(truth)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def auc(scores: Any, truth: Any) -> float | None:
    """Return P(a true item scores above a false one), in [0, 1]; a tie counts half. None if all have one truth.

    >>> auc([1, 2, 3, 4], [False, True, False, True])
    0.75
    """
    import numpy as np
    from scipy.stats import rankdata

    true = np.asarray(truth, bool)
    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or not negatives:
        return None
    return float((rankdata(scores)[true].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def resampled(
    name: str,
    model: str,
    statistic: Statistic,
    scores: Sequence[Any],
    truth: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int,
) -> Metric:
    """Return a statistic with its interval. An item of ``scores`` may be a row of several numbers."""
    import numpy as np

    groups: dict[Hashable, list[int]] = {}
    for item, (_, _, cluster) in enumerate(zip(scores, truth, clusters, strict=True)):
        groups.setdefault(cluster, []).append(item)
    if not groups:
        return Metric(name, model, None, None, None, 0, clusters=0)
    given, true, members = np.asarray(scores, float), np.asarray(truth, float), list(groups.values())
    value, random, low, high = statistic(given, true), np.random.default_rng(seed), None, None
    if value is not None and len(members) > 1:
        draws = (random.integers(len(members), size=len(members)) for _ in range(DRAWS))
        drawn = (np.concatenate([members[i] for i in draw]) for draw in draws)
        defined = [one for at in drawn if (one := statistic(given[at], true[at])) is not None]
        if len(defined) >= DRAWS / 2:  # if many draws hold one kind only, the others say little
            low, high = map(float, np.percentile(defined, [2.5, 97.5]))
    return Metric(name, model, value, low, high, len(scores), clusters=len(groups))
