"""In the plain format an answer of RL ends where the policy begins to speak for the human (pitfall 17).

TRL hands ``generate`` no tokenizer, without which it takes no stop strings; and an answer that stopped before others
would be filled up with padding that is learned from. So answers are cut after they are sampled, behind the token that
completes the stop string: all that is learned from was sampled. The reward is for what stands before it. To TRL such an
answer is one that was cut off.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop


def end_at_stop_strings(trainer: Any, tokenizer: Any) -> None:
    """From now on the trainer (RLOO's, GRPO's or ours) samples such answers only."""
    sample = trainer._generate_single_turn

    def sampled(*given: Any, **more: Any) -> Any:
        made = sample(*given, **more)
        if isinstance(made, tuple):  # GRPO's; the log-probabilities are vLLM's, and else None
            return [ended(ids, tokenizer) for ids in made[0]], *made[1:]
        return [ended(ids, tokenizer) for ids in made]

    trainer._generate_single_turn = sampled


def ended(tokens: list[int], tokenizer: Any) -> list[int]:
    """The tokens up to the one that completes the first stop string; all of them where there is none."""

    def stops(length: int) -> bool:
        return cut_at_stop(tokenizer.decode(tokens[:length], skip_special_tokens=True), STOP_STRINGS)[1]

    return tokens[: bisect_left(range(len(tokens)), True, key=stops)]
