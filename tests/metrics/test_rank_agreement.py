from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.metrics.rank_agreement import auc, difference, spearman


def test_ties_get_their_mean_rank() -> None:
    # Ranks 1 2.5 2.5 4 and 1 2 3 4: covariance 4.5, variances 4.5 and 5, so 4.5 / √22.5.
    assert spearman("s", "m", [1, 2, 2, 9], [0, 1, 2, 3], "abcd", seed=0).value == pytest.approx(
        4.5 / 22.5**0.5
    )
    # Of the four pairs, two are right and two are tied.
    assert auc("a", "m", [1, 2, 2, 2], [False, False, True, True], "abcd", seed=0).value == 0.75


@pytest.mark.parametrize("scores", [[], [1.0, 1.0], [1.0, 2.0]])
def test_what_is_not_defined_is_none_and_not_zero(scores: list[float]) -> None:
    truth = [True] * len(scores)
    for metric in (
        spearman("s", "m", scores, truth, range(len(scores)), seed=0),
        auc("a", "m", scores, truth, range(len(scores)), seed=0),
    ):
        assert (metric.value, metric.low, metric.high, metric.count) == (None, None, None, len(scores))


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=3, max_size=20))
def test_both_agree_with_the_libraries(items: list[tuple[int, int]]) -> None:
    from scipy.stats import mannwhitneyu, spearmanr

    scores, truth = [float(s) for s, _ in items], [float(t) for _, t in items]
    one_cluster = [0] * len(items)
    if len(set(scores)) > 1 and len(set(truth)) > 1:
        found = spearman("s", "m", scores, truth, one_cluster, seed=0).value
        assert found == pytest.approx(spearmanr(scores, truth).statistic)
    yes, no = [s for s, t in items if t >= 2], [s for s, t in items if t < 2]
    if yes and no:
        area = mannwhitneyu(yes, no).statistic / (len(yes) * len(no))
        found = auc("a", "m", scores, [t >= 2 for t in truth], one_cluster, seed=0).value
        assert found == pytest.approx(area)


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
    by_prompt = spearman("s", "m", scores, truth, prompts, seed=0)
    by_item = spearman("s", "m", scores, truth, range(len(scores)), seed=0)
    assert by_prompt.clusters == 30 and by_item.clusters == 600
    assert by_prompt.value == by_item.value

    def width(metric: object) -> float:
        return metric.high - metric.low  # type: ignore[attr-defined, no-any-return]

    assert width(by_prompt) > 3 * width(by_item)
    assert spearman("s", "m", scores, truth, [0] * len(scores), seed=0).low is None


def test_a_difference_is_measured_on_the_same_items() -> None:
    scores, truth, prompts = drawn(30, 2)
    same = difference("d", "m", "spearman", scores, [3 * s for s in scores], truth, prompts, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = difference("d", "m", "auc", truth, scores, [t > 0.5 for t in truth], prompts, seed=0)
    assert worse.value is not None and worse.low is not None
    assert worse.value > 0 and worse.low >= 0
