"""Test vLLM on a tiny random float32 model, beside plain transformers. Starting vLLM takes a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs the extra 'vllm'")


from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.local.vllm import VllmModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Completion
from tests.engine.sequences import LEAD, lead, nearly_all_alike
from tests.models.local.plain_transformers import ask, chat_text, generate_all, load_plain, log_probability

pytestmark = pytest.mark.filterwarnings("default")  # its own warnings are many


@pytest.fixture(scope="module")
def folder(make_tiny: Callable[..., Path]) -> Path:
    # Its attention on a CPU has no smaller heads.
    return make_tiny(hidden_size=128, num_attention_heads=4, num_key_value_heads=2, head_dim=32)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[VllmModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        started = VllmModel("tiny", folder, dtype="float32")
        yield started
        started._llm.llm_engine.engine_core.shutdown()


@pytest.fixture(scope="module")
def by_hand(folder: Path) -> tuple[Any, Any]:
    return load_plain(folder)


LONG = "\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour and water." * 3
CONTINUATIONS = [" (A)", "x", "No, I will not help you.", " a much longer one " * 10]


def test_a_score_is_what_a_plain_forward_pass_says_even_of_what_is_in_the_cache(
    model: VllmModel, by_hand: tuple[Any, Any]
) -> None:
    contexts = ["a", "日本語", LONG, LONG + "b", LONG + CONTINUATIONS[3]]

    async def together() -> list[list[float]]:
        return await asyncio.gather(*[model.score(context, CONTINUATIONS) for context in contexts])

    expected = [[log_probability(by_hand, context, c) for c in CONTINUATIONS] for context in contexts]
    for _ in range(2):  # the second time everything is in the cache
        for found, known in zip(asyncio.run(together()), expected, strict=True):
            assert found == pytest.approx(known, abs=1e-3)


def test_an_empty_continuation_has_no_probability(model: VllmModel) -> None:
    with pytest.raises(RecordError, match="empty continuation"):
        asyncio.run(model.score("Hi", [" (A)", ""]))


TEXTS = ["Hi", "How do I bake bread?", "x" * 80, *["x" * 80 + end for end in "abc"]]


def is_certain(by_hand: tuple[Any, Any], text: str) -> bool:
    """Whether all engines say the same 16 tokens at temperature 0, whatever they round."""
    model, tokenizer = by_hand
    return lead(model, tokenizer(chat_text(("user", text)), add_special_tokens=False)["input_ids"], 16) > LEAD


def test_temperature_0_is_the_greedy_search_of_transformers(model: VllmModel, by_hand: tuple[Any, Any]) -> None:
    reference, tokenizer = by_hand
    said = generate_all(model, *[(ask(t), Sampling(temperature=0, max_tokens=16)) for t in TEXTS])
    certain = 0
    for text, completion in zip(TEXTS, said, strict=True):
        ids = tokenizer(chat_text(("user", text)), add_special_tokens=False, return_tensors="pt")
        row = reference.generate(**ids, do_sample=False, max_new_tokens=16)[0, ids["input_ids"].shape[1] :]
        assert completion.prompt_tokens == ids["input_ids"].shape[1]
        if is_certain(by_hand, text):
            assert completion.text == tokenizer.decode(row, skip_special_tokens=True).strip()
            certain += 1
    assert certain >= 3


def test_the_same_seed_says_the_same_whatever_is_batched_with_it(model: VllmModel) -> None:
    many = [(ask("x" * (n * 13 % 60 + 1)), Sampling(max_tokens=12, seed=n * 2**40)) for n in range(20)]
    together = generate_all(model, *many)
    assert nearly_all_alike([generate_all(model, one)[0] for one in many[:5]], together[:5])
    assert nearly_all_alike(generate_all(model, *many[7:3:-1]), together[7:3:-1])
    assert len({c.text for c in together}) > 15


def test_many_long_contexts_with_seeds_at_once_do_not_kill_it(model: VllmModel) -> None:
    """Together more than are read in one step: vLLM on a CPU cannot read one in parts when it has a seed."""
    asked = [(chr(97 + n) * 480, Sampling(max_tokens=4, seed=n)) for n in range(26)]
    assert all(c.prompt_tokens == 480 for c in generate_all(model, *asked))


def test_text_ends_before_a_stop_string_or_at_its_own_end(model: VllmModel, by_hand: tuple[Any, Any]) -> None:
    text = next(t for t in TEXTS if is_certain(by_hand, t))
    whole = generate_all(model, (ask(text), Sampling(temperature=0, max_tokens=16)))[0].text
    stop = next(two for i in range(2, 16) if (two := whole[i : i + 2]).isascii() and two.isprintable())
    said = generate_all(model, (ask(text), Sampling(temperature=0, max_tokens=16, stop=(stop,))))[0]
    assert said.text == whole[: whole.find(stop)].strip()
    assert said.finish_reason == "stop"
    assert said.completion_tokens < 16
    hot = [(ask("Hi"), Sampling(temperature=2.0, max_tokens=60, seed=n)) for n in range(40)]
    ended = [c for c in generate_all(model, *hot) if c.finish_reason == "stop"]
    assert ended
    assert all("<|im_end|>" not in c.text for c in ended)


def test_who_gives_up_leaves_the_engine_to_the_others(model: VllmModel) -> None:
    async def one_gives_up() -> Completion:
        leaving = asyncio.create_task(model.generate("Hi", Sampling(max_tokens=400)))
        staying = asyncio.create_task(model.generate("Hi", Sampling(max_tokens=4)))
        await asyncio.sleep(0.1)
        leaving.cancel()
        return await staying

    assert asyncio.run(one_gives_up()).completion_tokens <= 4


def test_what_vllm_cannot_load_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(ModelError, match="cannot load 'hf:abacus': "):
        VllmModel("hf:abacus", tmp_path)
