from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from constitutional_ai.training import packing
from constitutional_ai.training.packing import (
    TESTED,
    attend,
    causal_mask,
    forked_mask,
    hidden_states,
    in_one_row,
    packs,
    parts,
    scores,
)

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def config(kind: str, **more: Any) -> Any:
    none = {"sliding_window": None} if kind == "mistral" else {}
    return AutoConfig.for_model(kind, **SIZES | none | more)


def model(kind: str, auto: Any = AutoModelForCausalLM, **more: Any) -> Any:
    torch.manual_seed(0)
    return auto.from_config(config(kind, **more))


def tokens(*lengths: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(1, 64, (n,), generator=draw).tolist() for n in lengths]


def packed(causal: Any, texts: list[list[int]]) -> torch.Tensor:
    ids = torch.tensor([[token for text in texts for token in text]])
    positions = torch.cat([torch.arange(len(text)) for text in texts])[None]
    masks = [causal_mask(len(text)) for text in texts]
    return hidden_states(causal, masks, input_ids=ids, position_ids=positions)


def apart(causal: Any, texts: list[list[int]]) -> torch.Tensor:
    return torch.cat([causal.base_model(torch.tensor([text])).last_hidden_state[0] for text in texts])


@pytest.mark.parametrize("kind", TESTED)
def test_in_one_row_a_text_is_computed_as_if_it_were_alone(kind: str) -> None:
    causal, texts = model(kind), tokens(7, 1, 12, 5)
    assert packs(causal.config)
    assert torch.allclose(packed(causal, texts), apart(causal, texts), atol=1e-4)


def test_a_long_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    causal, texts = model("llama"), tokens(7, 1, 12)
    monkeypatch.setattr(packing, "LONG", 6)
    assert torch.allclose(packed(causal, texts), apart(causal, texts), atol=1e-4)


@pytest.mark.parametrize("long", [6, 100])
def test_gradients_are_those_of_the_texts_apart(monkeypatch: pytest.MonkeyPatch, long: int) -> None:
    causal, texts = model("llama"), tokens(7, 1, 12)
    monkeypatch.setattr(packing, "LONG", long)
    gradients = []
    for compute in (packed, apart):
        causal.zero_grad()
        compute(causal, texts).pow(3).sum().backward()
        gradients.append([p.grad.clone() for p in causal.base_model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * theirs.abs().max())


def test_attention_is_multiplied_in_the_type_of_the_values() -> None:
    """Autocast leaves the rotated queries and keys in float32, which is several times slower."""
    query, key, value = torch.ones(1, 4, 3, 8), torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8).bfloat16()
    out, _ = attend(None, query, key, value, None, masks=[causal_mask(3)], scaling=1.0)
    assert (out.dtype, out.shape) == (torch.bfloat16, (1, 3, 4, 8))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("gemma3_text", {}),
        ("mistral", {"sliding_window": 4096}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}),
        ("llama", {"attention_dropout": 0.1}),
    ],
)
def test_attention_of_another_kind_is_not_packed(kind: str, more: dict[str, Any]) -> None:
    assert not packs(config(kind, **more))


def test_the_model_is_itself_again_after_a_failure() -> None:
    causal = model("llama")
    with pytest.raises(RuntimeError, match="split"):
        hidden_states(causal, [causal_mask(2)], input_ids=torch.tensor([[1, 2, 3]]))
    assert causal.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3], [1, 2, 4, 5], (2, 1, 2)),
        ([1, 2], [3, 4], (0, 2, 2)),
        ([1, 2, 3], [1, 2, 3], (2, 1, 1)),  # each keeps a last token, where its score is read
        ([1, 2, 3], [1, 2], (1, 2, 1)),
        ([1], [1, 2], (0, 1, 2)),
    ],
)
def test_what_two_texts_begin_with_is_their_prompt(a: list[int], b: list[int], expected: tuple[int]) -> None:
    assert parts(a, b) == expected


def test_an_answer_sees_its_prompt_and_itself_and_not_the_other() -> None:
    seen = [[int(x == 0) for x in row] for row in forked_mask((2, 1, 2)).tolist()]
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]


@pytest.fixture(scope="module")
def judge() -> Any:
    return model("llama", AutoModelForSequenceClassification, num_labels=1)


TEXT = st.lists(st.integers(1, 4), min_size=1, max_size=9)  # of few tokens, so that many begin alike


@settings(max_examples=50)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_a_prompt_computed_once_changes_no_score_and_no_gradient(
    judge: Any, pairs: list[tuple[list[int], list[int]]]
) -> None:
    texts = [text for side in zip(*pairs, strict=True) for text in side]
    found = []
    for logits in (
        torch.cat([judge(torch.tensor([text])).logits for text in texts]),
        scores(judge, **in_one_row(pairs)).logits,
    ):
        judge.zero_grad()
        logits.pow(2).sum().backward()
        found.append(
            torch.cat([logits.detach().flatten(), judge.model.layers[0].mlp.up_proj.weight.grad.flatten()])
        )
    assert torch.allclose(*found, rtol=1e-3, atol=1e-3)
