"""Krippendorff's alpha on examples that can be computed by hand, with intervals over clusters."""

from __future__ import annotations

import pytest

from constitutional_ai.metrics.krippendorff_alpha import Level, krippendorff_alpha
from constitutional_ai.records import Metric


def agreement(values: list[list[int]], level: Level = "nominal", groups: int = 0) -> Metric:
    by_item = {str(n): given for n, given in enumerate(values)}
    clusters = {name: int(name) % groups if groups else name for name in by_item}
    return krippendorff_alpha("agreement", dict(by_item), dict(clusters), level=level, seed=0)


def test_alpha_by_hand() -> None:
    # Two people, four items: 0 0, 1 1, 0 1, 0 0. The coincidences hold 2 of 8 off the diagonal; there are 5 zeros and 3
    # ones, so by chance 2 · 5 · 3 / 7 = 30/7 would be: alpha = 1 - 2 / (30/7) = 16/30.
    metric = agreement([[0, 0], [1, 1], [0, 1], [0, 0], [1]])
    assert metric.value == pytest.approx(16 / 30) and metric.count == 4 and metric.clusters == 4
    assert metric.low is not None and metric.high is not None and metric.low < 16 / 30 < metric.high


def test_order_matters_where_it_has_a_meaning() -> None:
    near, far = [[0, 1], [2, 3], [4, 4]] * 5, [[0, 4], [2, 0], [4, 4]] * 5
    assert (agreement(near, "ordinal").value or 0) > 0.8 > (agreement(far, "ordinal").value or 0)
    assert agreement(near).value == pytest.approx(agreement([[0, 4], [2, 3], [1, 1]] * 5).value)


@pytest.mark.parametrize("values", [[], [[1], [0]], [[2, 2], [2, 2]]])
def test_what_says_nothing_of_agreement_has_no_value(values: list[list[int]]) -> None:
    metric = agreement(values)
    assert (metric.value, metric.low, metric.high) == (None, None, None)
    assert metric.count == sum(len(given) > 1 for given in values)


def test_perfect_agreement_is_no_certainty_and_one_cluster_gives_no_interval() -> None:
    metric = agreement([[0, 0], [1, 1], [0, 0]])
    assert (metric.value, metric.low, metric.high) == (1.0, None, None)
    metric = agreement([[0, 0], [1, 1], [0, 1]], groups=1)
    assert metric.value is not None and metric.low is None and metric.clusters == 1
