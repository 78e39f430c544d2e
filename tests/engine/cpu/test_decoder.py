"""The decoder beside the modules whose weights it took over."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from constitutional_ai.engine.attention import TransformersForward
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu import decoder
from constitutional_ai.engine.cpu.decoder import Decoder
from constitutional_ai.engine.kv_cache import KVCache
from constitutional_ai.engine.sequence_engine import SequenceEngine
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.local.padded import PaddedGenerate
from constitutional_ai.models.model import Sampling
from tests.engine.sequences import BFLOAT16, CONTINUATIONS, PREFIX, SEQUENCES, X86, completions, greedy, llama

needs_bfloat16 = pytest.mark.skipif(not BFLOAT16, reason="oneDNN has no bfloat16 on this processor")


@needs_bfloat16
def test_a_decoder_takes_the_weights_over_and_in_bfloat16_says_nearly_the_same(tiny: Path) -> None:
    loaded = llama(tiny).to(torch.bfloat16)
    tokens, positions = torch.tensor([PREFIX]), torch.arange(len(PREFIX))[None]
    with torch.inference_mode():
        before = loaded(tokens).logits.float()
        exact = llama(tiny)(tokens).logits
        mask = AttentionMask([0], [[0] * len(PREFIX)])
        decoder = Decoder(loaded)
        cache = KVCache(decoder, 1, len(PREFIX)).at(slice(0, 1), 0, slice(len(PREFIX)))
        own = decoder(tokens, positions, mask, cache, None, len(PREFIX)).float()
    assert loaded.lm_head.weight is None
    assert (own - exact).square().mean() < 1.2 * (before - exact).square().mean()  # it rounds less often


@pytest.mark.skipif(not X86, reason="the decoder is for x86 processors")
@pytest.mark.parametrize(
    "spoiled",
    [
        lambda m: setattr(m.config, "hidden_act", "gelu"),
        lambda m: m.to(torch.float16),
        lambda m: setattr(m.model.layers[0].mlp, "up_proj", torch.nn.Sequential(m.model.layers[0].mlp.up_proj)),
    ],
    ids=["another activation", "another precision", "an adapter"],
)
def test_what_the_decoder_cannot_compute_is_left_to_the_modules(
    tiny: Path, spoiled: Callable[[Any], Any]
) -> None:
    made = llama(tiny)
    assert decoder.supports(made)
    spoiled(made)
    assert not decoder.supports(made)


def test_where_the_processor_has_no_bfloat16_the_modules_compute_in_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    made = HuggingFaceModel("tiny", tiny, dtype=torch.bfloat16)
    assert isinstance(made._engine.reader.model, TransformersForward)
    assert asyncio.run(made.generate("Hi", Sampling(max_tokens=3))).completion_tokens


@needs_bfloat16
def test_in_bfloat16_it_is_as_far_from_the_exact_scores_as_transformers_are(model: Any, tokenizer: Any) -> None:
    plain = copy.deepcopy(model).to(torch.bfloat16)
    ends = [CONTINUATIONS] * len(SEQUENCES)
    exact, rounded, own = (
        torch.tensor(engine.score(SEQUENCES, ends))
        for engine in (
            PaddedGenerate(model, tokenizer, {2}),
            PaddedGenerate(copy.deepcopy(plain), tokenizer, {2}),
            SequenceEngine(Decoder(plain), tokenizer, {2}),
        )
    )
    assert (own - exact).abs().mean() < 1.3 * (rounded - exact).abs().mean()


@needs_bfloat16
def test_in_bfloat16_decode_continues_from_the_prefill(model: Any, tokenizer: Any) -> None:
    """What a row says is scored in one pass: each token was the likeliest, but for rounding."""
    decoder = Decoder(copy.deepcopy(model).to(torch.bfloat16))
    engine = SequenceEngine(decoder, tokenizer, {2})
    texts = completions(engine, SEQUENCES, greedy(len(SEQUENCES), steps=8))
    for row, text in zip(SEQUENCES, texts, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([row + text])).logits[0, len(row) - 1 : -1]
        behind = logits.max(-1).values - logits[range(len(text)), text]
        assert (behind < 0.05 * logits.std(-1)).float().mean() > 0.7


@pytest.fixture(scope="module")
def wide() -> Any:
    """Heads of size 64 and large weights make the output depend on every token."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, head_dim=64,
        num_key_value_heads=2, vocab_size=320, max_position_embeddings=1024, initializer_range=0.15,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


APART = [
    [5 + (n * 31 + m * m) % 300 for m in range(length)]
    for n, length in enumerate((8, 300, 130, 9, 75, 300, 64))
]


@needs_bfloat16
@pytest.mark.parametrize("prefix", [[], PREFIX], ids=["of their own", "behind a prefix"])
def test_in_bfloat16_sequences_of_any_length_score_in_a_batch_as_alone(
    wide: Any, tokenizer: Any, prefix: list[int]
) -> None:
    plain = copy.deepcopy(wide).to(torch.bfloat16)
    rows, ends = [prefix + row for row in APART], [[[7], *CONTINUATIONS] for _ in APART]
    exact = torch.tensor(PaddedGenerate(wide, tokenizer, {2}).score(rows, ends))
    rounded = torch.tensor(PaddedGenerate(copy.deepcopy(plain), tokenizer, {2}).score(rows, ends))
    engine = SequenceEngine(Decoder(plain), tokenizer, {2})
    together = torch.tensor(engine.score(rows, ends))
    engine.reader.forget()
    alone = torch.tensor([engine.score([row], [end])[0] for row, end in zip(rows, ends, strict=True)])
    for own in (together, alone):
        assert (own - exact).abs().mean() < 1.5 * (rounded - exact).abs().mean()
    assert (together - alone).abs().max() < 2 * (rounded - exact).abs().max()


@needs_bfloat16
@pytest.mark.parametrize("prefix", [[], PREFIX], ids=["of their own", "behind a prefix"])
def test_in_bfloat16_sequences_of_any_length_are_continued_in_a_batch_as_alone(
    wide: Any, tokenizer: Any, prefix: list[int]
) -> None:
    """Each token was the likeliest, but for rounding: in one pass of the exact model over all that was said."""
    engine = SequenceEngine(Decoder(copy.deepcopy(wide).to(torch.bfloat16)), tokenizer, {2})
    rows, behind = [prefix + row for row in APART], []
    for row, text in zip(rows, completions(engine, rows, greedy(len(rows), steps=8)), strict=True):
        with torch.no_grad():
            logits = wide(torch.tensor([row + text])).logits[0, len(row) - 1 : -1]
        behind.append((logits.max(-1).values - logits[range(len(text)), text]) / logits.std(-1))
    assert (torch.cat(behind) < 0.1).float().mean() > 0.9
