"""What rows share is computed once, and nothing that a model says changes: against plain transformers, in float32."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from cai.models import attention, decoder, decoding
from cai.models.attention import Forward, OfModules
from cai.models.decoder import Decoder
from cai.models.decoding import Decoding, Draws, Ending
from cai.models.hugging_face import HuggingFaceModel
from cai.models.model import Sampling
from cai.models.padded_engine import PaddedEngine
from cai.models.shared_engine import SharedEngine
from cai.models.shared_prefix import Prefix, Prefixes, takes

BEGINNING = [5 + n * 7 % 280 for n in range(150)]
ROWS = [BEGINNING + [5 + (n + 3) * m % 290 for m in range(n * 5 % 23 + 1)] for n in range(12)]
CONTINUATIONS = [[7], [9, 11, 12], [9, 11, 13, 200, 17]]
TINY = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": 1,
}


def llama(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


MAKE: dict[str, Callable[[Path], Any]] = {
    "llama": llama,
    "mistral": lambda _: MistralForCausalLM(MistralConfig(**TINY, sliding_window=None)).eval(),
    "qwen2": lambda _: Qwen2ForCausalLM(Qwen2Config(**TINY)).eval(),
    "qwen3": lambda _: Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=8)).eval(),
    # Heads of a size that fused.c takes.
    "mistral, larger heads": lambda _: MistralForCausalLM(
        MistralConfig(**TINY, sliding_window=None, head_dim=32)
    ).eval(),
    "qwen3, larger heads": lambda _: Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=64)).eval(),
}


@pytest.fixture(scope="module", params=MAKE)
def model(request: pytest.FixtureRequest, tiny: Path) -> Any:
    torch.manual_seed(0)
    made = MAKE[request.param](tiny)
    for weight in made.parameters():  # as made, every norm weighs by 1 and every bias is 0
        if weight.dim() == 1:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    assert takes(made) and decoder.takes(made)
    return made


@pytest.fixture(scope="module", params=["modules", "decoder"])
def forward(request: pytest.FixtureRequest, model: Any) -> Forward:
    return OfModules(model) if request.param == "modules" else Decoder(copy.deepcopy(model))


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny, padding_side="left")


def greedy(count: int, steps: int = 12) -> Decoding:
    return Decoding([0] * count, 0.0, steps, ())


def said(
    engine: SharedEngine | PaddedEngine, rows: list[list[int]], how: Decoding | None = None
) -> list[list[int]]:
    return engine.generate(rows, how or greedy(len(rows)), threading.Event())


def plainly(model: Any, row: list[int], steps: int = 12) -> list[int]:
    """The end included, and nothing after it."""
    out = model.generate(
        torch.tensor([row]), do_sample=False, max_new_tokens=steps, eos_token_id=2, pad_token_id=0
    )
    tokens: list[int] = out[0, len(row) :].tolist()
    return tokens[: tokens.index(2) + 1] if 2 in tokens else tokens


def test_logits_after_a_shared_beginning_are_those_of_a_plain_forward_pass(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    """To 1e-5 of the largest, as float32 has seven digits."""
    engine, seen = SharedEngine(forward, tokenizer, {2}), []
    read = engine._read
    engine._read = lambda *a, **k: seen.append(read(*a, **k)) or seen[-1]  # type: ignore[method-assign]
    said(engine, ROWS, greedy(len(ROWS), steps=1))
    order = sorted(range(len(ROWS)), key=lambda i: -len(ROWS[i]))
    with torch.no_grad():
        plain = torch.stack([model(torch.tensor([ROWS[i]])).logits[0, -1] for i in order])
    assert len(seen[0]) == 1  # the beginning, once
    assert (seen[1][:, -1] - plain).abs().max() < 1e-5 * plain.abs().max()


def test_greedy_tokens_are_those_of_transformers(model: Any, forward: Forward, tokenizer: Any) -> None:
    engine = SharedEngine(forward, tokenizer, {2})
    expected = [plainly(model, row) for row in ROWS]
    assert said(engine, ROWS) == expected
    assert said(engine, ROWS) == expected  # from a beginning that is known by now
    assert said(engine, [*ROWS[3:5], [7, 8, 9]]) == [*expected[3:5], plainly(model, [7, 8, 9])]
    assert said(engine, [ROWS[2]]) == [expected[2]]


def test_scores_are_those_of_a_plain_forward_pass(model: Any, forward: Forward, tokenizer: Any) -> None:
    engine = SharedEngine(forward, tokenizer, {2})
    for _ in range(2):
        for row, scores in zip(ROWS, engine.score(ROWS, [CONTINUATIONS] * len(ROWS)), strict=True):
            for tokens, score in zip(CONTINUATIONS, scores, strict=True):
                with torch.no_grad():
                    logps = model(torch.tensor([row + tokens])).logits[0].log_softmax(-1)
                places = range(len(row) - 1, len(row) + len(tokens) - 1)
                assert score == pytest.approx(float(logps[places, tokens].sum()), rel=1e-5, abs=1e-5)


def test_rows_with_continuations_of_their_own_are_scored_together(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    shared, padded = SharedEngine(forward, tokenizer, {2}), PaddedEngine(model, tokenizer, {2})
    ends = [[[n + 5] * (n % 4 + 1) for _ in range(n % 3 + 1)] for n in range(len(ROWS))]
    for one, other in zip(shared.score(ROWS, ends), padded.score(ROWS, ends), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


# -- decoding


def test_rows_that_end_make_room_and_change_no_other(forward: Forward, tokenizer: Any) -> None:
    rows = [ROWS[n % 12] for n in range(30)]
    how = Decoding(list(range(30)), 1.5, 40, ())
    ends = set(range(2, 40))  # so that rows end at every step
    together = said(SharedEngine(forward, tokenizer, ends), rows, how)
    assert len({len(tokens) for tokens in together}) > 5
    for n in (0, 7, 29):
        alone = Decoding([n], 1.5, 40, ())
        assert said(SharedEngine(forward, tokenizer, ends), [rows[n]], alone) == [together[n]]


def test_both_engines_draw_the_same(model: Any, forward: Forward, tokenizer: Any) -> None:
    model.generation_config.eos_token_id = 2
    how = Decoding(list(range(12)), 1.0, 12, ("A", "the"))
    padded, shared = PaddedEngine(model, tokenizer, {0, 2}), SharedEngine(forward, tokenizer, {0, 2})
    texts = [[tokenizer.decode(row) for row in said(engine, ROWS, how)] for engine in (shared, padded)]
    assert [t.removesuffix("<pad>") for t in texts[1]] == [t.removesuffix("<pad>") for t in texts[0]]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_is_read_ahead_changes_no_token(
    model: Any, forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """Rows of which some copy and some end (prompt-lookup decoding)."""
    loop = [7, 8, 9, 10, 11]
    rows = [[*BEGINNING, *loop * 3, n] for n in range(5, 11)] + [BEGINNING[:40] * 2, [*BEGINNING, 5]]
    how = Decoding(list(range(len(rows))), temperature, 60, ())
    engine, read = SharedEngine(forward, tokenizer, set(range(2, 5))), []
    monkeypatch.setattr(decoding, "ALIKE", 1)  # so that much is guessed, and much of it wrong
    monkeypatch.setattr(decoding, "FEW", 0)
    plain = said(engine, rows, how)
    monkeypatch.setattr(decoding, "FEW", 8)
    monkeypatch.setattr(engine, "_model", Counting(forward, read))
    assert said(engine, rows, how) == plain
    assert 1 < max(read) <= 1 + decoding.AHEAD
    assert temperature or len(read) < max(map(len, plain))


class Counting:
    """Notes how many tokens of each row were read at once while generating."""

    def __init__(self, forward: Forward, read: list[int]) -> None:
        self.config, self.device, self.dtype = forward.config, forward.device, forward.dtype
        self._forward, self._read = forward, read

    def __call__(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        if rest[-1] == tokens.shape[1]:  # logits after every token are asked for
            self._read.append(tokens.shape[1])
        return self._forward(tokens, *rest)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_what_is_guessed_followed_the_same_three_tokens_before(tokens: list[int]) -> None:
    guess = decoding.copied(tokens)
    assert len(guess) <= decoding.AHEAD
    places = [at for at in range(len(tokens) - 3) if tokens[at : at + 3] == tokens[-3:]]
    assert bool(guess) == bool(places and len(tokens) > 3)
    assert not guess or guess == tokens[places[-1] + 3 :][: decoding.AHEAD]


def test_a_batch_that_is_cancelled_ends_at_its_next_token(
    forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, cancelled = SharedEngine(forward, tokenizer, {2}), threading.Event()
    draw = Draws.__call__

    def third(self: Draws, logits: torch.Tensor, rows: Any, steps: list[int]) -> torch.Tensor:
        if max(steps) == 2:
            cancelled.set()
        return draw(self, logits, rows, steps)

    monkeypatch.setattr(Draws, "__call__", third)
    assert max(len(tokens) for tokens in engine.generate(ROWS, greedy(12), cancelled)) == 3
    assert engine.generate(ROWS, greedy(12), cancelled) == [[]] * 12


@pytest.mark.parametrize("stop", ["\n\nHuman:", "é日", "x"])
@pytest.mark.parametrize("before", ["", "y", "日本" * 30])
def test_a_stop_string_is_found_in_the_last_tokens(tokenizer: Any, stop: str, before: str) -> None:
    ending, tokens = Ending(tokenizer, {2}, (stop,)), tokenizer(before + stop)["input_ids"]
    assert ending(tokens)
    assert not any(ending(tokens[:n]) for n in range(1, len(tokens)))


# -- attention


@pytest.mark.parametrize("pieces", [1, 2**24])
@pytest.mark.parametrize(("causal", "masked"), [(True, False), (False, True), (False, False)])
def test_attention_by_hand_is_that_of_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch, pieces: int, causal: bool, masked: bool
) -> None:
    """By hand is what a GPU runs."""
    monkeypatch.setattr(attention, "SCORES", pieces)
    query, key, value = torch.randn(3, 2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.randn(2, 1, 9, 9).where(torch.eye(9).bool(), float("-inf")) if masked else None
    one = attention.attention(query, key, value, mask, 0.3, causal)
    other = attention.by_hand(query, key, value, mask, 0.3, causal)
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_models_own_attention_is_given_back_even_after_an_error(model: Any, tokenizer: Any) -> None:
    engine = SharedEngine(OfModules(model), tokenizer, {2})
    with pytest.raises(IndexError):
        said(engine, [[*BEGINNING, 10**6], [*BEGINNING, 5]])
    assert model.config._attn_implementation == "sdpa"
    assert said(engine, [ROWS[0]]) == [plainly(model, ROWS[0])]


# -- the decoder


def test_a_decoder_takes_the_weights_over_and_in_bfloat16_says_nearly_the_same(tiny: Path) -> None:
    loaded = llama(tiny).to(torch.bfloat16)
    tokens, positions = torch.tensor([BEGINNING]), torch.arange(len(BEGINNING))[None]
    with torch.inference_mode():
        before = loaded(tokens).logits.float()
        exact = llama(tiny)(tokens).logits
        own = Decoder(loaded)(tokens, positions, None, None, None, len(BEGINNING)).float()
    assert loaded.lm_head.weight is None
    assert (own - exact).square().mean() < 1.2 * (before - exact).square().mean()  # it rounds less often


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
    assert decoder.takes(made)
    spoiled(made)
    assert not decoder.takes(made)


def test_in_bfloat16_it_is_as_far_from_the_exact_scores_as_transformers_are(model: Any, tokenizer: Any) -> None:
    plain = copy.deepcopy(model).to(torch.bfloat16)
    ends = [CONTINUATIONS] * len(ROWS)
    exact, rounded, own = (
        torch.tensor(engine.score(ROWS, ends))
        for engine in (
            PaddedEngine(model, tokenizer, {2}),
            PaddedEngine(copy.deepcopy(plain), tokenizer, {2}),
            SharedEngine(Decoder(plain), tokenizer, {2}),
        )
    )
    assert (own - exact).abs().mean() < 1.3 * (rounded - exact).abs().mean()


def test_in_bfloat16_a_step_goes_on_from_what_was_read(model: Any, tokenizer: Any) -> None:
    """What a row says is scored in one pass: each token was the likeliest, but for rounding."""
    decoder = Decoder(copy.deepcopy(model).to(torch.bfloat16))
    engine = SharedEngine(decoder, tokenizer, {2})
    texts = said(engine, ROWS, greedy(len(ROWS), steps=8))
    for row, text in zip(ROWS, texts, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([row + text])).logits[0, len(row) - 1 : -1]
        behind = logits.max(-1).values - logits[range(len(text)), text]
        assert (behind < 0.05 * logits.std(-1)).float().mean() > 0.7


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
    assert not takes(loaded)


def test_a_model_that_attends_through_a_window_is_left_to_transformers(
    tiny: Path, tokenizer: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = MistralForCausalLM(MistralConfig(**TINY, sliding_window=16)).eval()
    assert not takes(made)
    made.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = HuggingFaceModel("m", tmp_path, dtype=torch.float32)
    assert isinstance(loaded._engine, PaddedEngine)
    assert [len(t) > 0 for t in said(loaded._engine, ROWS)] == [True] * 12
    assert said(loaded._engine, [ROWS[1]]) == [plainly(made, ROWS[1])]


# -- what is kept


def prefix(tokens: list[int]) -> Prefix:
    """8 bytes a token."""
    return Prefix(tokens, [(torch.zeros(1, 1, len(tokens), 1), torch.zeros(1, 1, len(tokens), 1))])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=12),
    st.tuples(st.integers(0, 3), st.integers(1, 60)),
)
def test_what_is_kept_is_bounded_and_what_is_found_begins_alike(
    kept: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    prefixes = Prefixes(limit=100 * 8)
    for first, length in kept:
        prefixes.keep(prefix([first] * length))
        assert prefixes.bytes <= 800
    wanted = [asked[0]] * asked[1]
    found = prefixes.longest(wanted)
    if found:
        assert found.tokens == wanted[: len(found.tokens)]
        assert all(x.shape[2] == len(found.tokens) for pair in found.kv for x in pair)
    if kept and kept[-1][0] == asked[0] and min(kept[-1][1], asked[1]) >= 16:
        assert found and len(found.tokens) >= min(kept[-1][1], asked[1])


def test_the_beginning_used_last_stays_and_one_too_large_drives_out_nothing() -> None:
    prefixes = Prefixes(limit=100 * 8)
    for first in (1, 2):
        prefixes.keep(prefix([first] * 40))
    prefixes.longest([1] * 40)
    prefixes.keep(prefix([3] * 40))
    assert [bool(prefixes.longest([first] * 40)) for first in (1, 2, 3)] == [True, False, True]
    prefixes.keep(prefix([4] * 101))
    assert [bool(prefixes.longest([first] * 40)) for first in (1, 3, 4)] == [True, True, False]


def test_a_known_beginning_is_not_read_again_and_a_longer_one_goes_on_from_it(
    tiny: Path, tokenizer: Any
) -> None:
    loaded, read = llama(tiny), []
    engine = SharedEngine(OfModules(loaded), tokenizer, {2})
    forward = loaded.forward
    loaded.forward = lambda **given: read.append(tuple(given["input_ids"].shape)) or forward(**given)
    rows = [[*BEGINNING, 5, 6], [*BEGINNING, 7, 8]]
    longer = [[*BEGINNING, *range(5, 45), n] for n in (5, 6)]
    shapes = []
    for asked in (rows, rows, longer, rows):
        read.clear()
        said(engine, asked, greedy(2, steps=1))
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
    loaded = HuggingFaceModel("m", tiny, dtype=torch.float32)
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
