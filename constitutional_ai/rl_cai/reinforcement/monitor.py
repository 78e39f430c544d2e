"""Monitor the answers for signs that the reward is being hacked (section 4.3; RL-7, pitfall 28).

The figures of each sampled batch are logged in ``metrics.jsonl``. A training can be stopped when a figure stays above
its limit. The mean over the last ``PATIENCE`` batches is compared, because a single batch is too noisy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from constitutional_ai.detectors.boilerplate import repeats_boilerplate, shares_sentences
from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.english import another_language
from constitutional_ai.detectors.objection import evades, refuses
from constitutional_ai.records import Conversation

PATIENCE = 3
"""Number of batches over which a figure is averaged."""
Watched = Literal["evasive", "refuses_harmless", "boilerplate", "shared_sentences", "degenerate", "words", "kl"]
"""The figures that can stop a training: shares of a batch's answers (of those to harmless prompts alone, for
``refuses_harmless``), the mean length in words, and the KL divergence from SL-CAI that TRL logs."""


def watch(
    talks: Sequence[Conversation],
    rewards: Sequence[float | None],
    kinds: Sequence[str],
    second: Callable[[list[Conversation]], list[float]] | None = None,
) -> dict[str, float]:
    """Return the figures of one batch; each conversation ends in the answer, and ``kinds`` are those of its prompts.

    Detectors that read English only leave out answers in other languages, and have no figure of a batch without any
    English; ``other_language`` is the share left out. ``second`` is a preference model that RL never sees: if its score
    stops rising while the reward rises, the reward is being hacked.
    """
    answers = [talk[-1].content for talk in talks]
    # Answers to the same prompt may share sentences, so only one answer per prompt is compared.
    one_each = {talk[:-1]: talk[-1].content for talk in talks}
    in_english = [(evades(a), repeats_boilerplate(a)) for a in answers if not another_language(a)]
    read = dict(zip(("evasive", "boilerplate"), map(fmean, zip(*in_english, strict=True)), strict=False))
    harmless = [refuses(a) for a, kind in zip(answers, kinds, strict=True) if kind != "red_team"]
    read |= {"refuses_harmless": fmean(known)} if (known := [x for x in harmless if x is not None]) else {}
    figures = read | {
        "shared_sentences": fmean(shares_sentences(list(one_each.values()))),
        "degenerate": fmean(degeneracy(a) is not None for a in answers),
        "other_language": fmean(map(another_language, answers)),
        "words": fmean(len(a.split()) for a in answers),
    }
    return figures | ({"second_reward": fmean(second(list(talks)))} if second else {})


def stopper(limits: Mapping[Watched, float]) -> Any:
    """Return a trainer callback that ends the training when a figure stays above its limit; ``reason`` says why."""
    from transformers import TrainerCallback

    class Stopper(TrainerCallback):  # type: ignore[misc]
        reason: str | None = None

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for name, limit in limits.items():
                # The trainer's history is part of its checkpoints, so it survives an interruption.
                history = [log[name] for log in state.log_history if math.isfinite(log.get(name, math.nan))]
                last = history[-PATIENCE:]
                if len(last) == PATIENCE and fmean(last) > limit:
                    self.reason = (
                        f"{name} was {fmean(last):.3g} over the last {PATIENCE} batches, above its limit of {limit:g}, "
                        f"after step {state.global_step}"
                    )
                    control.should_training_stop = True

    return Stopper()
