"""The log-probabilities of sampled answers, computed without padding, and each prompt once for all its answers.

TRL pads prompts on the left and answers on the right, and repeats the prompt for each answer. Axes: B answers, T
columns of answers, N tokens of a packed row, M tokens of all answers, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from constitutional_ai.training.packing import forked_mask, hidden_states

SEGMENT_TOKENS = 512
"""Most tokens of a prompt and the answers that are computed with it, if it has more than one: attention between answers
is computed and then masked, so beyond this it is cheaper to compute the prompt again."""
HEAD_TOKENS = 256
"""Tokens projected to the vocabulary at once."""

Segment = tuple[list[int], list[list[int]]]
"""A prompt and some of its answers."""


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """Prompts with their answers, and the rows of TRL's padded tensors that the answers belong to."""

    prompts: list[list[int]]
    answers: list[list[list[int]]]
    """The answers to each prompt; none is empty."""
    rows: list[list[int]]
    """The row of each answer."""
    shape: tuple[int, int]
    """(B, T) of TRL's tensors."""

    @staticmethod
    def of(ids_BX: torch.Tensor, mask_BX: torch.Tensor, columns: int) -> AnswerRows:
        """Read TRL's tensors, whose last ``columns`` are those of answers. An answer that is masked is left out."""
        groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for row, (ids, present) in enumerate(zip(ids_BX, mask_BX.bool(), strict=True)):
            prompt, answer = (
                ids[part][present[part]].tolist() for part in (slice(-columns), slice(-columns, None))
            )
            if answer:
                groups.setdefault(tuple(prompt), []).append((row, answer))
        return AnswerRows(
            [list(prompt) for prompt in groups],
            [[answer for _, answer in group] for group in groups.values()],
            [[row for row, _ in group] for group in groups.values()],
            (len(ids_BX), columns),
        )

    @property
    def tokens(self) -> torch.Tensor:
        """The tokens (M,) of all answers, one answer behind the other."""
        return torch.tensor([token for group in self.answers for answer in group for token in answer])

    def padded(self, values_M: torch.Tensor) -> torch.Tensor:
        """Return a value of each token where TRL has the token: (B, T), 0 elsewhere."""
        lengths = torch.tensor([len(answer) for group in self.answers for answer in group])
        rows = torch.tensor([row for group in self.rows for row in group]).repeat_interleave(lengths)
        columns = torch.cat([torch.arange(length) for length in lengths.tolist()])
        return values_M.new_zeros(self.shape).index_put((rows, columns), values_M)

    @property
    def before(self) -> list[int]:
        """Indices (M,), in the packed row, of what predicts each token: the one before it, or the end of its prompt."""
        indices: list[int] = []
        start = 0
        for prompt, answers in self.segments():
            first = start + len(prompt)
            for answer in answers:
                indices += [start + len(prompt) - 1, *range(first, first + len(answer) - 1)]
                first += len(answer)
            start = first
        return indices

    def segments(self) -> Iterator[Segment]:
        """Yield all answers in their order, as many of a prompt together as ``SEGMENT_TOKENS`` allows."""
        for prompt, answers in zip(self.prompts, self.answers, strict=True):
            some: list[list[int]] = []
            for answer in answers:
                if some and len(prompt) + sum(map(len, some)) + len(answer) > SEGMENT_TOKENS:
                    yield prompt, some
                    some = []
                some = [*some, answer]
            yield prompt, some


def hidden_before(causal: Any, rows: AnswerRows) -> torch.Tensor:
    """Return the last hidden state (M, D) before each token of the answers, which predicts it."""
    ids: list[int] = []
    positions: list[int] = []
    masks = []
    for prompt, answers in rows.segments():
        ids += [*prompt, *(token for answer in answers for token in answer)]
        positions += range(len(prompt))
        for answer in answers:
            positions += range(len(prompt), len(prompt) + len(answer))
        masks.append(forked_mask((len(prompt), *map(len, answers))))
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
    return hidden_states(causal, masks, **inputs)[rows.before]


def logps_and_entropies(
    causal: Any, hidden_MD: torch.Tensor, tokens_M: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's log-probability at a temperature, and the entropy there without gradients, in nats: (M,).

    Logits are computed again for the gradients, so that memory holds those of ``HEAD_TOKENS`` at once.
    """
    head = causal.get_output_embeddings()

    def project(hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logps_XV = (head(hidden).float() / temperature).log_softmax(-1)
        with torch.no_grad():
            entropies_X = -(logps_XV.exp() * logps_XV).sum(-1)
        return logps_XV.gather(-1, tokens[:, None])[:, 0], entropies_X

    parts = [
        checkpoint(project, *each, use_reentrant=False)
        for each in zip(torch.split(hidden_MD, HEAD_TOKENS), torch.split(tokens_M, HEAD_TOKENS), strict=True)
    ]
    logps, entropies = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropies)


def rescales(config: Any) -> bool:
    """Return whether a model of this configuration also rescales its logits, which is not done here."""
    names: Sequence[str] = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    return any(getattr(config, name, None) not in (None, 1, 1.0) for name in names)
