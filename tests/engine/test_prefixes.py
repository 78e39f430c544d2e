"""A shared prefix is computed once, and changes no completion: against plain transformers, in float32."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from constitutional_ai.engine import attention
from constitutional_ai.engine.architectures import supports
from constitutional_ai.engine.attention import Forward, TransformersForward
from constitutional_ai.engine.sequence_engine import SequenceEngine
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.local.padded import PaddedGenerate
from constitutional_ai.models.model import Sampling
from tests.engine.sequences import CONTINUATIONS, PREFIX, SEQUENCES, TINY, all_say, completions, greedy, llama


def test_logits_after_a_shared_prefix_are_those_of_a_plain_forward_pass(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    """The bound is 1e-5 of the largest logit, as float32 has seven digits."""
    engine, seen = SequenceEngine(forward, tokenizer, {2}), []
    prefill = engine.reader.prefill
    engine.reader.prefill = lambda *a, **k: seen.append(prefill(*a, **k)) or seen[-1]  # type: ignore[method-assign]
    completions(engine, SEQUENCES, greedy(len(SEQUENCES), steps=1))
    order = sorted(range(len(SEQUENCES)), key=lambda i: -len(SEQUENCES[i]))
    with torch.no_grad():
        plain = torch.stack([model(torch.tensor([SEQUENCES[i]])).logits[0, -1] for i in order])
    assert len(seen[0]) == 1  # the prefix, once
    assert (seen[1][:, -1] - plain).abs().max() < 1e-5 * plain.abs().max()


def test_greedy_tokens_are_those_of_transformers(model: Any, forward: Forward, tokenizer: Any) -> None:
    engine = SequenceEngine(forward, tokenizer, {2})
    # The second time from a prefix that is known by then.
    for rows in (SEQUENCES, SEQUENCES, [*SEQUENCES[3:5], [7, 8, 9]], [SEQUENCES[2]]):
        assert all_say(model, rows, completions(engine, rows))


def test_scores_are_those_of_a_plain_forward_pass(model: Any, forward: Forward, tokenizer: Any) -> None:
    engine = SequenceEngine(forward, tokenizer, {2})
    for _ in range(2):
        for row, scores in zip(
            SEQUENCES, engine.score(SEQUENCES, [CONTINUATIONS] * len(SEQUENCES)), strict=True
        ):
            for tokens, score in zip(CONTINUATIONS, scores, strict=True):
                with torch.no_grad():
                    logps = model(torch.tensor([row + tokens])).logits[0].log_softmax(-1)
                places = range(len(row) - 1, len(row) + len(tokens) - 1)
                assert score == pytest.approx(float(logps[places, tokens].sum()), rel=1e-5, abs=1e-5)


def test_sequences_with_continuations_of_their_own_are_scored_together(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    shared, padded = SequenceEngine(forward, tokenizer, {2}), PaddedGenerate(model, tokenizer, {2})
    ends = [[[n + 5] * (n % 4 + 1) for _ in range(n % 3 + 1)] for n in range(len(SEQUENCES))]
    for one, other in zip(shared.score(SEQUENCES, ends), padded.score(SEQUENCES, ends), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


# -- attention


@pytest.mark.parametrize("pieces", [1, 2**24])
@pytest.mark.parametrize(("causal", "masked"), [(True, False), (False, True), (False, False)])
def test_attention_by_hand_is_that_of_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch, pieces: int, causal: bool, masked: bool
) -> None:
    """A GPU runs the attention that is written out by hand."""
    monkeypatch.setattr(attention, "MAX_SCORES", pieces)
    query, key, value = torch.randn(3, 2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.randn(2, 1, 9, 9).where(torch.eye(9).bool(), float("-inf")) if masked else None
    one = attention.attention(query, key, value, mask, 0.3, causal)
    other = attention.attention_in_parts(query, key, value, mask, 0.3, causal)
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_models_own_attention_is_given_back_even_after_an_error(model: Any, tokenizer: Any) -> None:
    engine = SequenceEngine(TransformersForward(model), tokenizer, {2})
    with pytest.raises(IndexError):
        completions(engine, [[*PREFIX, 10**6], [*PREFIX, 5]])
    assert model.config._attn_implementation == "sdpa"
    assert all_say(model, [SEQUENCES[0]], completions(engine, [SEQUENCES[0]]))


# -- which models


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}},
        {"attn_implementation": "eager"},
    ],
)
def test_a_llama_of_another_kind_is_left_to_transformers(make_tiny: Callable[..., Path], settings: Any) -> None:
    folder = make_tiny(**{k: v for k, v in settings.items() if k != "attn_implementation"})
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=settings.get("attn_implementation")
    )
    assert not supports(loaded)


def test_a_model_that_attends_through_a_window_is_left_to_transformers(
    tiny: Path, tokenizer: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = MistralForCausalLM(MistralConfig(**TINY, sliding_window=16)).eval()
    assert not supports(made)
    made.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = HuggingFaceModel("m", tmp_path, dtype=torch.float32)
    assert isinstance(loaded._engine, PaddedGenerate)
    assert [len(t) > 0 for t in completions(loaded._engine, SEQUENCES)] == [True] * 12
    assert all_say(made, [SEQUENCES[1]], completions(loaded._engine, [SEQUENCES[1]]), ends=loaded._tokens.ends)


# -- what is kept


def test_a_known_prefix_is_not_computed_again_and_a_longer_one_extends_it(tiny: Path, tokenizer: Any) -> None:
    loaded, read = llama(tiny), []
    engine = SequenceEngine(TransformersForward(loaded), tokenizer, {2})
    forward = loaded.forward
    loaded.forward = lambda **given: read.append(tuple(given["input_ids"].shape)) or forward(**given)
    rows = [[*PREFIX, 5, 6], [*PREFIX, 7, 8]]
    longer = [[*PREFIX, *range(5, 45), n] for n in (5, 6)]
    shapes = []
    for asked in (rows, rows, longer, rows):
        read.clear()
        completions(engine, asked, greedy(2, steps=1))
        shapes.append(list(read))
    assert shapes == [[(1, 150), (2, 2)], [(2, 2)], [(1, 40), (2, 1)], [(2, 2)]]


def test_nothing_is_kept_of_a_model_whose_weights_may_change(tiny: Path) -> None:
    shown = llama(tiny)
    scorer = HuggingFaceModel("m", tiny, model=shown)
    before = asyncio.run(scorer.score("some long text " * 9, ["x"]))
    with torch.no_grad():
        for weight in shown.parameters():
            weight.mul_(0.9)
    fresh = HuggingFaceModel("m", tiny, model=shown)
    now = asyncio.run(scorer.score("some long text " * 9, ["x"]))
    assert now == asyncio.run(fresh.score("some long text " * 9, ["x"])) != before


def test_generating_and_scoring_at_once_are_as_one_after_the_other(tiny: Path) -> None:
    """The second run finds more in its cache; in float64 rounding moves no draw."""
    loaded = HuggingFaceModel("m", tiny, dtype=torch.float64)
    contexts = [f"the same beginning for all of these {n}" for n in range(6)]

    async def generated() -> list[Any]:
        return await asyncio.gather(*[loaded.generate(c, Sampling(max_tokens=8, seed=1)) for c in contexts])

    async def scored() -> list[list[float]]:
        return await asyncio.gather(*[loaded.score(c, [" (A)", " (B)"]) for c in contexts])

    async def both() -> tuple[list[Any], list[list[float]]]:
        return await asyncio.gather(generated(), scored())

    together = asyncio.run(both())
    assert together[0] == asyncio.run(generated())
    for one, other in zip(together[1], asyncio.run(scored()), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
