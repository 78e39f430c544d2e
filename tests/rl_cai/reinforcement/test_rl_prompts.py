"""The prompts of RL keep the share of harmless ones that the recipe names."""

from __future__ import annotations

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.records import Kind, Message, Prompt
from constitutional_ai.rl_cai.reinforcement.rl_prompts import rl_prompts


def prompts(**counts: int) -> list[Prompt]:
    kinds: dict[Kind, int] = {"red_team": 0, "helpful": 0, "borderline": 0} | counts  # type: ignore[assignment]
    return [
        Prompt.of((Message("user", f"{kind} {n}"),), kind, "test")
        for kind, count in kinds.items()
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "share", "red_team", "harmless"),
    [
        (96, 0.5, 48, 48),
        (10, 0.475, 5, 5),
        (None, 0.5, 64, 64),  # as many as there are red-team prompts
        (200, 0.5, 64, 64),
        (None, 0.9, 24, 212),  # 212 harmless prompts are nine in ten of 236
        (40, None, None, None),
        (1, 0.5, 1, 0),
    ],
)
def test_the_share_holds_to_within_a_prompt(
    count: int | None, share: float | None, red_team: int | None, harmless: int | None
) -> None:
    given = prompts(red_team=64, helpful=132, borderline=80)
    drawn = rl_prompts(given, count, share, seed=0)
    assert len({p.id for p in drawn}) == len(drawn)
    if share is None:
        assert len(drawn) == count
        return
    red = sum(p.kind == "red_team" for p in drawn)
    assert (red, len(drawn) - red) == (red_team, harmless)
    assert drawn == rl_prompts(list(reversed(given)), count, share, seed=0)
    if red > 1 < len(drawn) - red:  # in no order of kinds
        assert [p.kind == "red_team" for p in drawn] != sorted(p.kind == "red_team" for p in drawn)


def test_a_share_needs_both_kinds() -> None:
    with pytest.raises(InputError, match="there are 3 and 0"):
        rl_prompts(prompts(red_team=3), None, 0.5, seed=0)
