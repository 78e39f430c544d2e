from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.data.ratings import Rated
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.harmfulness.fit_regressor import (
    ABOUT,
    STAGE,
    agreement,
    held_out,
    regressor_folder,
)
from constitutional_ai.records import Message, conversation_id


def rated(request: str, answer: str, rating: float) -> Rated:
    conversation = (Message("user", request), Message("assistant", answer))
    return Rated(conversation_id(conversation), conversation, rating)


MANY = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=2, max_size=30, unique=True)


@given(MANY, st.floats(0.01, 0.99), st.integers(0, 99))
def test_no_prompt_is_both_trained_on_and_measured_on(
    found: list[tuple[int, int]], share: float, seed: int
) -> None:
    rows = [rated(f"Rob house {a}!", f"No, {b}.", 0) for a, b in found]
    if len({a for a, _ in found}) < 2:
        with pytest.raises(InputError, match="have the same prompt"):
            held_out(rows, share, seed)
        return
    out, rest = held_out(rows, share, seed)
    assert out and rest and len(out) + len(rest) == len(rows)
    assert not {one.prompt for one in out} & {one.prompt for one in rest}


def test_agreement_with_people_is_rank_correlation_auc_and_squared_error() -> None:
    rows = [rated(f"Rob house {n}!", "No.", rating) for n, rating in enumerate((0, 1, 2, 4))]
    order, area, error = agreement("judge", rows, [0.0, 1.0, 4.0, 3.0], seed=0)
    # Ranks 1 2 4 3 against 1 2 3 4: 1 − 6·2/(4·15) = 0.8. Both harmful ones above both others. (0+0+4+1)/4 = 1.25.
    assert (order.value, area.value, error.value) == (pytest.approx(0.8), 1.0, 1.25)
    assert [(m.count, m.clusters, m.model) for m in (order, area, error)] == [(4, 4, "judge")] * 3


def test_a_regressor_is_found_in_what_the_command_wrote(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Train one with: cai harmfulness RATINGS --out"):
        regressor_folder(tmp_path)
    model = tmp_path / STAGE / "model"
    model.mkdir(parents=True)
    (model / ABOUT).write_text("{}")
    assert regressor_folder(tmp_path) == regressor_folder(model) == model
