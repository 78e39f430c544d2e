from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.metrics.rank_agreement import Statistic, auc, resampled, spearman


def test_ties_get_their_mean_rank() -> None:
    # Ranks 1 2.5 2.5 4 and 1 2 3 4: covariance 4.5, variances 4.5 and 5, so 4.5 / √22.5.
    assert spearman([1, 2, 2, 9], [0, 1, 2, 3]) == pytest.approx(4.5 / 22.5**0.5)
    # Of the four pairs, two are right and two are tied.
    assert auc([1, 2, 2, 2], [False, False, True, True]) == 0.75


@pytest.mark.parametrize("scores", [[], [1.0, 1.0], [1.0, 2.0]])
def test_what_is_not_defined_is_none_and_not_zero(scores: list[float]) -> None:
    truth = [True] * len(scores)
    for statistic in (spearman, auc):
        metric = resampled("s", "m", statistic, scores, truth, range(len(scores)), seed=0)
        assert (metric.value, metric.low, metric.high, metric.count) == (None, None, None, len(scores))


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=3, max_size=20))
def test_both_agree_with_the_libraries(items: list[tuple[int, int]]) -> None:
    from scipy.stats import mannwhitneyu, spearmanr

    scores, truth = [float(s) for s, _ in items], [float(t) for _, t in items]
    if len(set(scores)) > 1 and len(set(truth)) > 1:
        assert spearman(scores, truth) == pytest.approx(spearmanr(scores, truth).statistic)
    yes, no = [s for s, t in items if t >= 2], [s for s, t in items if t < 2]
    if yes and no:
        area = mannwhitneyu(yes, no).statistic / (len(yes) * len(no))
        assert auc(scores, [t >= 2 for t in truth]) == pytest.approx(area)


def drawn(prompts: int, each: int) -> tuple[list[float], list[float], list[int]]:
    """Answers to one prompt are nearly the same, so there is no more to learn from than prompts."""
    random_ = random.Random(1)
    found: tuple[list[float], list[float], list[int]] = ([], [], [])
    for prompt in range(prompts):
        truth = random_.random()
        score = truth + random_.gauss(0, 0.3)
        for _ in range(each):
            for values, value in zip(found, (score + random_.gauss(0, 1e-3), truth, prompt), strict=True):
                values.append(value)  # type: ignore[arg-type]
    return found


def test_an_interval_draws_whole_clusters() -> None:
    scores, truth, prompts = drawn(30, 20)
    by_prompt = resampled("s", "m", spearman, scores, truth, prompts, seed=0)
    by_item = resampled("s", "m", spearman, scores, truth, range(len(scores)), seed=0)
    assert by_prompt.clusters == 30 and by_item.clusters == 600
    assert by_prompt.value == by_item.value

    def width(metric: object) -> float:
        return metric.high - metric.low  # type: ignore[attr-defined, no-any-return]

    assert width(by_prompt) > 3 * width(by_item)
    assert resampled("s", "m", spearman, scores, truth, [0] * len(scores), seed=0).low is None


@pytest.mark.parametrize("statistic", [spearman, auc])
def test_an_item_may_have_several_scores(statistic: Statistic) -> None:
    scores, truth, prompts = drawn(30, 2)
    harmful = [t > 0.5 for t in truth]
    both = list(zip(scores, truth, strict=True))

    def first(pair: Any, true: Any) -> float | None:
        return statistic(pair[:, 0], true)

    alone = resampled("s", "m", statistic, scores, harmful, prompts, seed=0)
    assert resampled("s", "m", first, both, harmful, prompts, seed=0) == alone
