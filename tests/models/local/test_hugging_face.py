"""Test on a tiny random float32 model, where every number can be computed by a plain forward pass."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer, GenerationConfig

from constitutional_ai.engine.sampling import Sampler
from constitutional_ai.errors import RecordError
from constitutional_ai.models.local.hugging_face import BATCH_TOKENS, HuggingFaceModel
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.models.rendering import escape_tokens
from constitutional_ai.records import Completion, Message
from tests.conftest import CHAT
from tests.models.local.plain_transformers import ask, chat_text, generate_all, load_plain, log_probability


@pytest.fixture(scope="module")
def model(tiny: Path) -> HuggingFaceModel:
    return HuggingFaceModel("tiny", tiny, dtype=torch.float32)


@pytest.fixture(scope="module")
def exact(tiny: Path) -> HuggingFaceModel:
    """The same in float64, whose rounding moves no draw: its texts may be compared, whatever was computed together.

    What float32 and bfloat16 say is held against plain forward passes in test_decoding.py and test_decoder.py.
    """
    return HuggingFaceModel("tiny", tiny, dtype=torch.float64)


@pytest.fixture(scope="module")
def plain_model(tiny_plain: Path) -> HuggingFaceModel:
    return HuggingFaceModel("tiny-plain", tiny_plain, dtype=torch.float32)


@pytest.fixture(scope="module")
def by_hand(tiny: Path) -> tuple[Any, Any]:
    return load_plain(tiny)


# -- score


CONTINUATIONS = [" (A)", " (B)", "x", "No, I will not help you.", "é" * 30, " a much longer one " * 5]


def test_a_score_is_what_a_plain_forward_pass_says_whatever_is_batched_with_it(
    model: HuggingFaceModel, by_hand: tuple[Any, Any]
) -> None:
    contexts = ["a" * n for n in (1, 2, 3, 7, 20, 64, 150)] + [
        "How do I bake bread?",
        "\n\nHuman: Hi",
        "日本語",
    ] * 4

    async def together() -> list[list[float]]:
        return await asyncio.gather(*[model.score(context, CONTINUATIONS) for context in contexts])

    for context, scores in zip(contexts, asyncio.run(together()), strict=True):
        expected = [log_probability(by_hand, context, c) for c in CONTINUATIONS]
        assert scores == pytest.approx(expected, abs=1e-4, rel=1e-5)


def test_a_chat_is_scored_where_the_assistant_begins_or_goes_on(
    model: HuggingFaceModel, by_hand: tuple[Any, Any]
) -> None:
    asked, begun = Message("user", "A or B?"), Message("assistant", "The answer is:")
    for talk, text in (
        ((asked,), chat_text(("user", "A or B?"))),
        ((asked, begun), chat_text(("user", "A or B?"), then="<|im_start|>assistant\nThe answer is:")),
    ):
        scores = asyncio.run(model.score(talk, [" (A)", " (B)"]))
        assert scores == pytest.approx([log_probability(by_hand, text, c) for c in (" (A)", " (B)")], abs=1e-4)


def test_single_tokens_after_a_context_sum_to_one(model: HuggingFaceModel) -> None:
    words = [model._tokens.tokenizer.decode([t]) for t in range(3, len(model._tokens.tokenizer))]
    single = [w for w in words if len(model._tokens.tokenizer(w, add_special_tokens=False)["input_ids"]) == 1]
    total = sum(torch.tensor(asyncio.run(model.score("Hi", single))).exp())
    assert 0 < float(total) <= 1.00001


def test_an_empty_continuation_has_no_probability(model: HuggingFaceModel) -> None:
    with pytest.raises(RecordError, match="empty continuation"):
        asyncio.run(model.score("Hi", [" (A)", ""]))


# -- generate


MANY = [(ask("x" * (n * 13 % 60 + 1)), Sampling(max_tokens=12, seed=n)) for n in range(20)]


def test_the_same_seed_says_the_same_whatever_is_batched_with_it(exact: HuggingFaceModel) -> None:
    alone = [generate_all(exact, one)[0] for one in MANY]
    assert generate_all(exact, *MANY) == alone
    assert generate_all(exact, *MANY[7:3:-1]) == alone[7:3:-1]
    assert len({c.text for c in alone}) > 15


def test_temperature_0_is_the_greedy_search_of_transformers(
    exact: HuggingFaceModel, by_hand: tuple[Any, Any]
) -> None:
    texts = ["Hi", "How do I bake bread?", "x" * 80]
    said = generate_all(
        exact, *[(ask(t), Sampling(temperature=0, max_tokens=16, seed=n)) for n, t in enumerate(texts)]
    )
    reference, tokenizer = copy.deepcopy(by_hand[0]).double(), by_hand[1]
    for text, completion in zip(texts, said, strict=True):
        ids = tokenizer(chat_text(("user", text)), add_special_tokens=False, return_tensors="pt")
        row = reference.generate(**ids, do_sample=False, max_new_tokens=16)[0, ids["input_ids"].shape[1] :]
        assert completion.text == tokenizer.decode(row, skip_special_tokens=True).strip()
        assert completion.prompt_tokens == ids["input_ids"].shape[1]


def chi_square(counts: Counter[int], probabilities: torch.Tensor, draws: int) -> tuple[float, int]:
    """Over tokens expected at least 10 times, all others together as one more cell."""
    likely = [t for t in range(len(probabilities)) if probabilities[t] * draws >= 10]
    cells = [(counts[t], float(probabilities[t]) * draws) for t in likely]
    cells.append((draws - sum(c for c, _ in cells), draws - sum(e for _, e in cells)))
    return sum((c - e) ** 2 / e for c, e in cells if e > 1), len(cells) - 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_are_distributed_as_the_softmax_says(by_hand: tuple[Any, Any], temperature: float) -> None:
    reference, tokenizer = by_hand
    with torch.no_grad():
        logits = reference(torch.tensor([tokenizer("Hi")["input_ids"]])).logits[0, -1]
    drawn = Sampler(list(range(20_000)), temperature, 1)(logits.expand(20_000, -1), range(20_000), 0)
    statistic, freedom = chi_square(Counter(drawn.tolist()), (logits / temperature).softmax(-1), 20_000)
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations of chi-square


def test_generated_texts_follow_the_softmax_too(tiny: Path, by_hand: tuple[Any, Any]) -> None:
    """Through the whole of generate, at temperature 1: no top-p, no top-k, no penalty (SL-10)."""
    model = HuggingFaceModel("tiny", tiny, dtype=torch.float32)
    draws = 1500
    said = generate_all(model, *[(ask("Hi"), Sampling(max_tokens=1, seed=n)) for n in range(draws)])
    reference, tokenizer = by_hand
    ids = tokenizer(chat_text(("user", "Hi")), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        probabilities = reference(torch.tensor([ids])).logits[0, -1].softmax(-1)
    letters = {t: tokenizer.decode([t]) for t in range(3, len(tokenizer))}
    of_text: Counter[str] = Counter()
    for token, text in letters.items():
        of_text[text.strip()] += float(probabilities[token])
    top = [(t, p) for t, p in of_text.most_common(5) if t]
    counts = Counter(c.text for c in said)
    for text, p in top:
        assert abs(counts[text] - p * draws) < 4 * (draws * p * (1 - p)) ** 0.5


def test_a_models_own_generation_settings_do_not_change_its_draws(make_tiny: Callable[..., Path]) -> None:
    """Published models ship a repetition penalty, top-p and a temperature; the paper samples without."""
    folder = make_tiny()
    before = generate_all(HuggingFaceModel("m", folder, dtype=torch.float64), *MANY)
    own = GenerationConfig.from_pretrained(folder)
    own.repetition_penalty = 1.8
    own.no_repeat_ngram_size = 2
    own.save_pretrained(folder)
    assert generate_all(HuggingFaceModel("m", folder, dtype=torch.float64), *MANY) == before


def two_letters_of(text: str) -> str:
    """Two neighbours inside a text, both ASCII, so that they are the same letters as tokens and as text."""
    return next(
        pair for pair in (text[i : i + 2] for i in range(4, len(text))) if pair.isascii() and pair.isprintable()
    )


def test_text_ends_before_a_stop_string(exact: HuggingFaceModel) -> None:
    whole = generate_all(exact, (ask("Hi"), Sampling(max_tokens=30, seed=4)))[0].text
    stop = two_letters_of(whole)
    said = generate_all(exact, (ask("Hi"), Sampling(max_tokens=30, seed=4, stop=(stop,))))[0]
    assert said.text == whole[: whole.find(stop)].strip()
    assert said.finish_reason == "stop"
    assert said.completion_tokens < 30


def test_what_a_stop_costs_does_not_depend_on_the_batch(exact: HuggingFaceModel) -> None:
    stop = (two_letters_of(generate_all(exact, (ask("Hi"), Sampling(max_tokens=30, seed=4)))[0].text),)
    asked = [(ask("Hi"), Sampling(max_tokens=30, seed=n, stop=stop)) for n in range(4, 8)]
    alone = generate_all(exact, asked[0])[0]
    assert alone.completion_tokens < 30
    assert generate_all(exact, *asked)[0] == alone


def test_it_stops_at_its_own_end_of_text_and_says_so(model: HuggingFaceModel) -> None:
    said = generate_all(
        model, *[(ask("Hi"), Sampling(temperature=2.0, max_tokens=60, seed=n)) for n in range(60)]
    )
    ended = [c for c in said if c.finish_reason == "stop"]
    assert ended
    assert all("<|im_end|>" not in c.text and c.completion_tokens <= 60 for c in ended)
    assert {c.completion_tokens for c in said if c.finish_reason == "length"} == {60}


# -- what the model sees


def tokens_of(model: HuggingFaceModel, context: Context) -> list[int]:
    return model._tokens.generation(context, Sampling(max_tokens=1)).tokens


def seen(model: HuggingFaceModel, context: Context) -> str:
    return model._tokens.tokenizer.decode(tokens_of(model, context))


def test_a_chat_model_sees_its_own_template(model: HuggingFaceModel) -> None:
    assert model.format == "chat"
    talk = (Message("system", "Be kind."), Message("user", "Hi"))
    assert seen(model, talk) == chat_text(("system", "Be kind."), ("user", "Hi"))
    assert seen(model, "as it stands") == "as it stands"


def test_a_model_without_a_template_sees_the_papers_plain_text(plain_model: HuggingFaceModel) -> None:
    assert plain_model.format == "plain"
    assert seen(plain_model, ask("Hi")) == "\n\nHuman: Hi\n\nAssistant:"


def test_a_model_without_a_template_stops_where_it_begins_to_speak_for_the_human(
    plain_model: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = plain_model._tokens.tokenizer(" Hello.\n\nHuman: and", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(
        Sampler,
        "__call__",
        lambda self, logits, sequences, step: torch.tensor([ids[step % len(ids)]] * len(sequences)),
    )
    (said,) = generate_all(plain_model, (ask("Hi"), Sampling(max_tokens=len(ids))))
    assert (said.text, said.finish_reason) == ("Hello.", "stop")
    assert said.completion_tokens < len(ids)


SPECIAL = ("<|im_start|>", "<|im_end|>", "<pad>")
HOSTILE = st.lists(
    st.sampled_from([*SPECIAL, "<|im_", "start|>", "<|", "|>", "user\n", "x", " ", "<", "pad>"])
).map("".join)


@settings(max_examples=200)
@given(HOSTILE)
def test_special_tokens_in_a_users_text_open_no_turn(model: HuggingFaceModel, text: str) -> None:
    specials = set(model._tokens.tokenizer.all_special_ids)
    tokens = tokens_of(model, ask("x" + text))
    assert [t for t in tokens if t in specials] == [t for t in tokens_of(model, ask("x")) if t in specials]


def test_special_tokens_in_a_users_text_are_text_in_the_plain_format_too(plain_model: HuggingFaceModel) -> None:
    tokens = tokens_of(plain_model, ask("x <|im_end|><|im_start|> x"))
    assert not set(tokens) & set(plain_model._tokens.tokenizer.all_special_ids)


def test_a_control_token_that_the_tokenizer_does_not_name_opens_no_turn_either(tiny: Path) -> None:
    """Llama 3's header tokens are such: only added, and marked as special."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer._tokenizer.add_special_tokens([AddedToken("<|header|>", special=True)])
    (header,) = tokenizer("<|header|>")["input_ids"]
    assert "<|header|>" not in tokenizer.all_special_tokens
    assert header not in tokenizer(escape_tokens("x<|header|>system", tokenizer))["input_ids"]


def test_a_conversation_that_the_template_refuses_fails_alone_and_none_is_cut(
    make_tiny: Callable[..., Path],
) -> None:
    model = HuggingFaceModel("m", make_tiny(), dtype=torch.float32)
    model._tokens.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + CHAT.replace("m['content']", "m['content'].split('</think>')[-1]")
    )
    begun = (*ask("Hi"), Message("assistant", "Well </think> so:"))
    with pytest.raises(RecordError, match="template refuses this conversation"):
        asyncio.run(model.score((Message("system", "Be kind."), *ask("Hi")), ["x"]))
    assert model._tokens._render(begun).endswith("Well < /think> so:")
    assert asyncio.run(model.score(ask("Hi"), ["x"]))


def test_text_without_special_tokens_is_seen_as_it_is(model: HuggingFaceModel) -> None:
    text = "{braces} {{ 1 + 1 }} {% raw %} <b> \x00 é 日本 🎉\r\n"
    assert text in seen(model, ask("a" + text + "z"))


def test_a_long_text_among_short_ones_fills_no_memory(
    plain_model: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_model._tokens, "limit", 10**6)
    for what in ("generate", "score"):  # no batch is computed
        monkeypatch.setattr(
            plain_model._engine, what, lambda rows, *_: padded.append(len(rows) * max(map(len, rows)))
        )
    padded: list[int] = []

    async def together() -> None:
        texts = ["z" * 20_000, *["z"] * 99]
        asked = [plain_model.generate(text, Sampling(max_tokens=1)) for text in texts]
        scored = [plain_model.score(text, [" (A)", " (B)"]) for text in texts]
        await asyncio.gather(*asked, *scored, return_exceptions=True)

    asyncio.run(together())
    assert max(padded) <= BATCH_TOKENS
    assert len(padded) <= 12


@pytest.mark.parametrize("room", [1, 100])
def test_a_context_that_is_too_long_fails_alone(model: HuggingFaceModel, room: int) -> None:
    async def both() -> list[Any]:
        sampling = Sampling(max_tokens=room)
        return await asyncio.gather(
            model.generate("ab " * 400, sampling), model.generate("Hi", sampling), return_exceptions=True
        )

    too_long, fine = asyncio.run(both())
    assert isinstance(too_long, RecordError)
    assert f"and {room} to come exceed the model's 512" in str(too_long)
    assert isinstance(fine, Completion)


def test_the_longest_context_that_fits_is_answered_and_one_more_token_is_not(model: HuggingFaceModel) -> None:
    one = len(model._tokens.tokenizer("z")["input_ids"])
    assert one == 1
    fits = "z" * (512 - 5)
    length = len(model._tokens.tokenizer(fits)["input_ids"])
    room = 512 - length
    assert generate_all(model, (fits, Sampling(max_tokens=room)))[0].prompt_tokens == length
    with pytest.raises(RecordError):
        generate_all(model, (fits, Sampling(max_tokens=room + 1)))
