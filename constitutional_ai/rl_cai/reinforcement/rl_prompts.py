"""Draw the prompts of reinforcement learning: red-team and harmless ones in a given proportion (RL-5)."""

from __future__ import annotations

from collections.abc import Sequence

from constitutional_ai.data.prompts import sample_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.records import Prompt
from constitutional_ai.seeding import seed_of


def rl_prompts(
    prompts: Sequence[Prompt], count: int | None, helpful_share: float | None, seed: int
) -> list[Prompt]:
    """Return at most ``count`` prompts (None: all), of which a ``helpful_share`` is harmless, to within one prompt.

    ``helpful_share`` None keeps the proportion of ``prompts``. Where one side has too few prompts, there are fewer of
    both. Raises InputError if one side has none.
    """
    if helpful_share is None:
        return sample_prompts(prompts, count, seed)
    red_team = sample_prompts([p for p in prompts if p.kind == "red_team"], None, seed)
    harmless = sample_prompts([p for p in prompts if p.kind != "red_team"], None, seed)
    if not (red_team and harmless):
        raise InputError(
            f"rl_cai.helpful_share={helpful_share} needs red-team prompts and harmless ones, and there are "
            f"{len(red_team)} and {len(harmless)}. Set rl_cai.helpful_share=null, or use more prompts."
        )
    most = min(len(harmless) / helpful_share, len(red_team) / (1 - helpful_share))
    total = round(min(most, count if count is not None else most))
    helpful = min(round(total * helpful_share), len(harmless))
    drawn = red_team[: total - helpful] + harmless[:helpful]
    # Not by the order that chose them: the first of many stand before the first of few.
    return sorted(drawn, key=lambda p: seed_of(seed, "rl_prompts", p.id))
