"""Answers in packed rows, beside TRL's padded tensors computed by a plain forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from constitutional_ai.training import answer_rows
from constitutional_ai.training.answer_rows import AnswerRows, hidden_before, logps_and_entropies, rescales

PAD = 0
TEXT = st.lists(st.integers(1, 5), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def causal() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads, pad_token_id=PAD))


def padded(pairs: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """TRL's tensors: ids, mask, and the columns of answers."""
    before, after = (max(len(pair[side]) for pair in pairs) for side in (0, 1))
    ids = [[PAD] * (before - len(p)) + p + a + [PAD] * (after - len(a)) for p, a in pairs]
    mask = [[0] * (before - len(p)) + [1] * len(p + a) + [0] * (after - len(a)) for p, a in pairs]
    return torch.tensor(ids), torch.tensor(mask), after


def by_rows(causal: Any, rows: AnswerRows, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    found = logps_and_entropies(causal, hidden_before(causal, rows), rows.tokens, temperature)
    return rows.padded(found[0]), rows.padded(found[1])


def one_by_one(
    causal: Any, pairs: list[tuple[list[int], list[int]]], columns: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logps, entropies = [], []
    for prompt, answer in pairs:
        logits = causal(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / temperature
        all_logps = logits.log_softmax(-1)
        room = torch.zeros(columns - len(answer))
        logps.append(torch.cat([all_logps.gather(-1, torch.tensor(answer)[:, None])[:, 0], room]))
        entropies.append(torch.cat([-(all_logps.exp() * all_logps).sum(-1), room]))
    return torch.stack(logps), torch.stack(entropies)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=3),
    limit=st.sampled_from([1, 9, 512]),
)
def test_log_probabilities_entropies_and_gradients_are_those_of_texts_apart(
    causal: Any, groups: list[tuple[list[int], list[list[int]]]], limit: int
) -> None:
    pairs = [(prompt, answer) for prompt, answers in groups for answer in answers]
    pairs = pairs[::2] + pairs[1::2]  # answers to one prompt need not stand together
    ids, mask, columns = padded(pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_rows, "SEGMENT_TOKENS", limit)
        patch.setattr(answer_rows, "HEAD_TOKENS", 3)
        gradients = []
        for ways in (
            by_rows(causal, AnswerRows.of(ids, mask, columns), 0.7),
            one_by_one(causal, pairs, columns, 0.7),
        ):
            causal.zero_grad()
            (ways[0] * torch.arange(1, columns + 1)).sum().backward()
            gradients.append(causal.model.layers[0].mlp.up_proj.weight.grad.clone())
            assert not ways[1].requires_grad or ways is not None
            found = torch.stack([way.detach() for way in ways])
            if len(gradients) == 1:
                first = found
        torch.testing.assert_close(first, found, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_an_answer_that_is_masked_is_left_out_and_has_zeros() -> None:
    ids, mask, columns = padded([([1, 2], [3]), ([1, 2], [4, 5]), ([3], [6])])
    mask[1, -columns:] = 0
    rows = AnswerRows.of(ids, mask, columns)
    assert (rows.prompts, rows.answers, rows.rows) == ([[1, 2], [3]], [[[3]], [[6]]], [[0], [2]])
    assert rows.padded(torch.tensor([0.5, 0.25])).tolist() == [[0.5, 0.0], [0.0, 0.0], [0.25, 0.0]]


def test_a_prompt_is_computed_again_only_where_its_answers_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_rows, "SEGMENT_TOKENS", 8)
    rows = AnswerRows([[1, 2]], [[[3] * 3, [4] * 3, [5], [6] * 20]], [[0, 1, 2, 3]], (4, 20))
    assert [list(map(len, answers)) for _, answers in rows.segments()] == [[3, 3], [1], [20]]
    assert rows.before == [1, 2, 3, 1, 5, 6, 9, 12, *range(13, 32)]


@pytest.mark.parametrize(
    ("more", "rescaled"),
    [({}, False), ({"logit_scale": 1.0}, False), ({"logit_scale": 0.5}, True), ({"logits_scaling": 8}, True)],
)
def test_models_that_rescale_their_logits_are_known(more: dict[str, Any], rescaled: bool) -> None:
    assert rescales(AutoConfig.for_model("llama", **more)) == rescaled
