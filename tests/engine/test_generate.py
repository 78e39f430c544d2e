"""Decode: draws, sequences that end, cancelling."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from constitutional_ai.engine import prefill_chunks
from constitutional_ai.engine.attention import Forward
from constitutional_ai.engine.sampling import Decoding, Sampler, StoppingCriteria
from constitutional_ai.engine.sequence_engine import SequenceEngine
from constitutional_ai.models.local.padded import PaddedGenerate
from tests.engine.sequences import SEQUENCES, all_say, completions, greedy, says


def test_a_text_of_another_draw_is_not_what_a_plain_forward_pass_generates(model: Any, tokenizer: Any) -> None:
    """So that the tests below can fail."""
    how = Decoding([3], 1.0, 12, ())
    (text,) = completions(PaddedGenerate(model, tokenizer, {2}), [SEQUENCES[3]], how)
    assert says(model, SEQUENCES[3], text, how)
    assert not says(model, SEQUENCES[3], text, how._replace(seeds=[4]))
    assert not says(model, SEQUENCES[3], text, how._replace(temperature=0.5))
    assert not says(model, SEQUENCES[4], text, how)
    assert not says(model, SEQUENCES[3], text[:-1], how)
    assert not says(model, SEQUENCES[3], text, how, ends={text[-2]})
    assert not says(model, SEQUENCES[3], text)  # it is not the likeliest


def test_sequences_that_end_make_room_and_change_no_other(model: Any, forward: Forward, tokenizer: Any) -> None:
    rows = [SEQUENCES[n % 12] for n in range(30)]
    how = Decoding(list(range(30)), 1.5, 40, ())
    ends = set(range(2, 40))  # so that rows end at every step
    together = completions(SequenceEngine(forward, tokenizer, ends), rows, how)
    assert len({len(tokens) for tokens in together}) > 5
    assert all_say(model, rows, together, how, ends=ends)


def test_both_engines_draw_what_a_plain_forward_pass_draws(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    model.generation_config.eos_token_id = 2
    how, ends = Decoding(list(range(12)), 1.0, 12, ("A", "the")), {0, 2}
    stopping = StoppingCriteria(tokenizer, ends, how.stop)
    for engine in (SequenceEngine(forward, tokenizer, ends), PaddedGenerate(model, tokenizer, ends)):
        texts = completions(engine, SEQUENCES, how)
        if isinstance(engine, PaddedGenerate):  # a row that a stop string ends is padded while others go on
            texts = [t[:-1] if t[1:] and t[-1] == 0 and stopping(t[:-1]) else t for t in texts]
        assert all_say(model, SEQUENCES, texts, how, ends=stopping)


def test_a_batch_that_is_cancelled_ends_at_its_next_token(
    forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, cancelled = SequenceEngine(forward, tokenizer, {2}), threading.Event()
    draw = Sampler.__call__

    def third(self: Sampler, logits: torch.Tensor, sequences: Any, step: int) -> torch.Tensor:
        if step == 2:
            cancelled.set()
        return draw(self, logits, sequences, step)

    monkeypatch.setattr(Sampler, "__call__", third)
    assert max(len(tokens) for tokens in engine.generate(SEQUENCES, greedy(12), cancelled)) == 3
    assert engine.generate(SEQUENCES, greedy(12), cancelled) == [[]] * 12


def test_a_batch_that_is_cancelled_in_prefill_computes_no_other_chunk(
    forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_chunks, "CHUNK_TOKENS", 64)
    engine, cancelled, calls = SequenceEngine(forward, tokenizer, {2}), threading.Event(), []
    prefill = engine.reader.prefill

    def second(*asked: Any, **more: Any) -> torch.Tensor:
        calls.append(asked)
        if len(calls) == 2:  # the prefix, and a chunk
            cancelled.set()
        return prefill(*asked, **more)

    engine.reader.prefill = second  # type: ignore[method-assign]
    assert engine.generate(SEQUENCES, greedy(12), cancelled) == [[]] * 12
    assert len(calls) == 2


@pytest.mark.parametrize("stop", ["\n\nHuman:", "é日", "x"])
@pytest.mark.parametrize("before", ["", "y", "日本" * 30])
def test_a_stop_string_is_found_in_the_last_tokens(tokenizer: Any, stop: str, before: str) -> None:
    stopping, tokens = StoppingCriteria(tokenizer, {2}, (stop,)), tokenizer(before + stop)["input_ids"]
    assert stopping(tokens)
    assert not any(stopping(tokens[:n]) for n in range(1, len(tokens)))
