"""Engines for weights that a training changes, beside plain forward passes of the modules with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from constitutional_ai.engine.cpu import decoder
from constitutional_ai.engine.live_engine import WeightsOfNow
from constitutional_ai.engine.sampling import Decoding
from tests.engine.sequences import CONTINUATIONS, SEQUENCES, X86

NEAR = 5e-4
"""Rounding of a log-probability or an output in float32; processors add in different orders."""


@pytest.fixture
def adapted(model: Any) -> Any:
    """A peft model with two adapters that change what it computes."""
    torch.manual_seed(1)
    plain = copy.deepcopy(model)
    everything = LoraConfig(task_type="CAUSAL_LM", r=3, target_modules="all-linear")
    policy = get_peft_model(plain, everything)
    # Not every projection has an update here: those that are computed as one product differ.
    policy.add_adapter("some", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["k_proj", "up_proj"]))
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return policy.eval()


@contextmanager
def worn(policy: Any, adapter: str | None) -> Iterator[None]:
    if adapter is None:
        with policy.disable_adapter():
            yield
    else:
        policy.set_adapter(adapter)
        yield


def plain_logps(model: Any, context: list[int], answer: list[int], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([context + answer])).logits[0, len(context) - 1 : -1]
    logps: torch.Tensor = (logits / temperature).log_softmax(-1)
    return logps.gather(-1, torch.tensor(answer)[:, None])[:, 0]


@pytest.mark.parametrize("adapter", ["default", "some", None])
def test_each_tokens_log_probability_is_that_of_the_adapter_that_is_switched_on(
    adapted: Any, adapter: str | None
) -> None:
    live = WeightsOfNow(adapted.get_base_model(), torch.float32)
    contexts = SEQUENCES[:4]
    with worn(adapted, adapter):
        found = live.now().logps(contexts, [CONTINUATIONS] * 4, 0.7)
        for context, of_context in zip(contexts, found, strict=True):
            for answer, logps in zip(CONTINUATIONS, of_context, strict=True):
                wanted = plain_logps(adapted, context, answer, 0.7)
                torch.testing.assert_close(logps, wanted, atol=NEAR, rtol=0)


def test_what_is_drawn_comes_with_the_log_probabilities_it_was_drawn_by(adapted: Any) -> None:
    prompts = [row for row in SEQUENCES[:3] for _ in range(2)]
    live = WeightsOfNow(adapted.get_base_model(), torch.float32)
    made = live.now(ends=(7,)).sample(prompts, Decoding(list(range(6)), 0.8, 9, ()))
    assert len({tuple(each.tokens) for each in made}) == 6
    for prompt, (tokens, logps) in zip(prompts, made, strict=True):
        assert len(tokens) == 9 or tokens[-1] == 7
        wanted = plain_logps(adapted, prompt, tokens, 0.8)
        torch.testing.assert_close(torch.tensor(logps), wanted, atol=NEAR, rtol=0)


def test_a_head_reads_the_last_hidden_state_of_each_text_in_their_order(adapted: Any) -> None:
    texts = [*SEQUENCES[:5], SEQUENCES[2] + [9], [3, 4]]
    head = torch.randn(2, adapted.config.hidden_size)
    causal = adapted.get_base_model()
    found = WeightsOfNow(causal, torch.float32).now().outputs(texts, head)
    with torch.no_grad():
        wanted = [causal.model(torch.tensor([text])).last_hidden_state[0, -1] @ head.T for text in texts]
    torch.testing.assert_close(found, torch.stack(wanted), atol=NEAR * 10, rtol=0)


def test_the_weights_are_those_of_the_moment(model: Any) -> None:
    """All weights are trained here, or an adapter's: neither is seen as it was."""
    plain = copy.deepcopy(model)
    adapter = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules="all-linear"))
    for trained, causal in ((plain, plain), (adapter, adapter.get_base_model())):
        live = WeightsOfNow(causal, torch.float32)
        before = live.now().logps(SEQUENCES[:1], [[[9, 11]]], 1.0)[0][0]
        with torch.no_grad():
            for weight in trained.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.3)
        after = live.now().logps(SEQUENCES[:1], [[[9, 11]]], 1.0)[0][0]
        assert (after - before).abs().max() > 0.01
        torch.testing.assert_close(after, plain_logps(trained, SEQUENCES[0], [9, 11], 1.0), atol=NEAR, rtol=0)
        # The model itself is as it was: it goes on being trained.
        assert all(weight.isfinite().all() for weight in trained.parameters())


@pytest.mark.skipif(not X86, reason="the decoder is for x86 processors")
def test_a_frozen_base_is_packed_once(adapted: Any) -> None:
    live = WeightsOfNow(adapted.get_base_model(), torch.float32)
    first, second = (live.now().reader.model for _ in range(2))
    assert first is second and isinstance(first, decoder.Decoder)


def test_variants_of_lora_are_left_to_the_modules(model: Any) -> None:
    """DoRA also scales the weights, which the decoder would miss."""
    dora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", use_dora=True)
    policy = get_peft_model(copy.deepcopy(model), dora).eval()
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                weight.add_(torch.rand_like(weight))
    causal = policy.get_base_model()
    assert not decoder.supports_copy(causal, torch.float32)
    found = WeightsOfNow(causal, torch.float32).now().logps(SEQUENCES[:1], [[[9, 11]]], 1.0)[0][0]
    torch.testing.assert_close(found, plain_logps(policy, SEQUENCES[0], [9, 11], 1.0), atol=NEAR, rtol=0)
