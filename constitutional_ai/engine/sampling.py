"""How tokens are drawn and when a completion ends: the settings of a batch, its sampler, its stopping criteria.

Axes: B sequences, S steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from constitutional_ai.engine.cpu.build import load_kernels

AT_ONCE = 8
"""Sequences drawn for at once: their probabilities stay in a processor's cache, which halves the time."""


class Decoding(NamedTuple):
    """Settings of one batch: how to continue its prompts, which differ in their seeds only."""

    seeds: list[int]
    temperature: float
    max_tokens: int
    stop: tuple[str, ...]
    """Texts that end a completion, beside the tokenizer's own end."""
    logps: bool = False
    """Whether the log-probabilities of the drawn tokens are wanted too."""
    watch: Callable[[int, list[int]], None] | None = None
    """Gets the index of a prompt and its completion so far, after every token. Plain transformers call it never."""


class Sampled(NamedTuple):
    """A completion of a prompt."""

    tokens: list[int]
    """The end token included."""
    logps: list[float]
    """Natural log-probability of each token, at the sampling temperature."""


def token_logps(logits_XV: torch.Tensor, tokens_X: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the natural log-probability (X) of a token under each row of logits, at a temperature above 0."""
    scaled_XV = logits_XV.float() if temperature == 1 else logits_XV.float() / temperature
    return scaled_XV.gather(-1, tokens_X[:, None])[:, 0] - scaled_XV.logsumexp(-1)


class Sampler:
    """Inverse transform sampling. A sequence's draws depend on its own seed, not on the batch (SL-10)."""

    def __init__(self, seeds: Sequence[int], temperature: float, steps: int) -> None:
        self._temperature = temperature
        draws = [torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._uniform_BS = torch.stack(draws)

    def __call__(self, logits_BV: torch.Tensor, sequences: Sequence[int], step: int) -> torch.Tensor:
        """Return the tokens (B,) that ``sequences``, given by their indices, draw at ``step``.

        At temperature 0 these are the likeliest ones.
        """
        if self._temperature == 0:
            return logits_BV.float().argmax(-1)
        uniform_B1 = self._uniform_BS[list(sequences), step, None].to(logits_BV.device)
        if logits_BV.device.type == "cpu" and (kernels := load_kernels(logits_BV.dtype)):
            return kernels.sample(logits_BV.contiguous(), uniform_B1, self._temperature)
        parts = [slice(at, at + AT_ONCE) for at in range(0, len(logits_BV), AT_ONCE)]
        return torch.cat([self._invert(logits_BV[part], uniform_B1[part]) for part in parts])

    def _invert(self, logits_BV: torch.Tensor, uniform_B1: torch.Tensor) -> torch.Tensor:
        scaled_BV = logits_BV if self._temperature == 1 else logits_BV.float() / self._temperature
        cumulative_BV = scaled_BV.softmax(-1, dtype=torch.float32).cumsum(-1)
        # The last cumulative value rounds to a little under or over 1: scale the draw, never fall off the end.
        tokens_B1 = torch.searchsorted(cumulative_BV, uniform_B1 * cumulative_BV[:, -1:], right=True)
        return tokens_B1[:, 0].clamp(max=logits_BV.shape[-1] - 1)


class StoppingCriteria:
    """Tells whether a completion has ended, by a token or by a text."""

    def __init__(self, tokenizer: Any, ends: set[int], stop: Sequence[str]) -> None:
        self._tokenizer, self._ends, self._stop = tokenizer, ends, [s for s in stop if s]
        # A token is at least a byte, and the first ones may be pieces of a letter: decode some to spare.
        self._tail = 8 + max((len(s.encode()) for s in self._stop), default=0)

    def __call__(self, completion: list[int]) -> bool:
        if completion[-1] in self._ends:
            return True
        if not self._stop:
            return False
        tail = self._tokenizer.decode(completion[-self._tail :], skip_special_tokens=True)
        return any(s in tail for s in self._stop)
