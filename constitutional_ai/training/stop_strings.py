"""End RL's answers in the plain format where the policy starts to write the human's turn (pitfall 17).

TRL gives ``generate`` no tokenizer, so it accepts no stop strings; and the padding after an early stop would be trained
on. So answers are cut after sampling, after the token that completes the stop string: every token that is trained on
was sampled. The reward is for the text before the stop string. TRL treats such an answer as truncated.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop


def end_at_stop_strings(trainer: Any, tokenizer: Any) -> None:
    """Make a trainer (TRL's RLOO or GRPO, or our PPO) end its answers at stop strings."""
    sample = trainer._generate_single_turn

    def sampled(*args: Any, **kwargs: Any) -> Any:
        completions = sample(*args, **kwargs)
        if isinstance(completions, tuple):  # GRPO's also has log-probabilities, which are None without vLLM
            return [ended(ids, tokenizer) for ids in completions[0]], *completions[1:]
        return [ended(ids, tokenizer) for ids in completions]

    trainer._generate_single_turn = sampled


def ended(tokens: list[int], tokenizer: Any) -> list[int]:
    """Return the tokens up to the one that completes the first stop string; all tokens if there is none."""

    def stops(length: int) -> bool:
        return cut_at_stop(tokenizer.decode(tokens[:length], skip_special_tokens=True), STOP_STRINGS)[1]

    return tokens[: bisect_left(range(len(tokens)), True, key=stops)]
