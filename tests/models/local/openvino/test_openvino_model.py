"""Test OpenVINO on a tiny random float32 model, beside a plain forward pass of transformers."""

from __future__ import annotations

import asyncio
import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("openvino_genai") is None:  # not imported here: our own import must be the first
    pytest.skip("needs the extra 'openvino'", allow_module_level=True)

import torch
from transformers import LlamaConfig, MistralConfig, MixtralConfig

from constitutional_ai import machine
from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.local.openvino import export_ir, openvino_model
from constitutional_ai.models.local.openvino.export_ir import unsupported
from constitutional_ai.models.local.openvino.openvino_model import Int8OpenVinoModel, OpenVinoModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Completion
from tests.engine.cpu.test_int8 import with_weights_brought_back
from tests.engine.sequences import LEAD, lead, nearly_all_alike
from tests.models.local.plain_transformers import ask, chat_text, generate_all, load_plain, log_probability


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tiny: Path) -> OpenVinoModel:
    return OpenVinoModel("tiny", tiny, dtype=torch.float32)


@pytest.fixture(scope="module")
def int8(tiny: Path) -> Int8OpenVinoModel:
    return Int8OpenVinoModel("tiny", tiny, dtype=torch.float32)


@pytest.fixture(scope="module")
def by_hand(tiny: Path) -> tuple[Any, Any]:
    return load_plain(tiny)


# -- score


SHOTS = "\n\nHuman: How do I bake bread?\n\nAssistant: Mix flour and water." * 3
CONTINUATIONS = [" (A)", " (B)", "x", "No, I will not help you.", "é" * 30]


def test_a_score_is_that_of_transformers(model: OpenVinoModel, by_hand: tuple[Any, Any]) -> None:
    scores = asyncio.run(model.score(SHOTS, CONTINUATIONS))
    assert scores == pytest.approx([log_probability(by_hand, SHOTS, c) for c in CONTINUATIONS], abs=1e-3)


def test_with_weights_in_8_bits_scores_come_from_the_weights_that_generate(
    int8: Int8OpenVinoModel, by_hand: tuple[Any, Any]
) -> None:
    scores = asyncio.run(int8.score(SHOTS, CONTINUATIONS))
    rounded = with_weights_brought_back(by_hand[0]), by_hand[1]
    assert scores == pytest.approx([log_probability(rounded, SHOTS, c) for c in CONTINUATIONS], abs=1e-3)
    assert scores != pytest.approx([log_probability(by_hand, SHOTS, c) for c in CONTINUATIONS], abs=1e-3)


@pytest.mark.parametrize(("best", "precision"), [(torch.float32, "f32"), (torch.bfloat16, "bf16")])
def test_precision_is_the_best_of_this_machine(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, best: torch.dtype, precision: str
) -> None:
    """OpenVINO's own choice ignores the limit that ONEDNN_MAX_CPU_ISA sets."""
    properties: list[dict[str, str]] = []
    monkeypatch.setattr(machine, "best_dtype", lambda: best)
    monkeypatch.setattr(openvino_model, "_Paged", lambda folder, settings, tokens: properties.append(settings))
    OpenVinoModel("tiny", tiny)
    assert properties[0]["INFERENCE_PRECISION_HINT"] == properties[0]["KV_CACHE_PRECISION"] == precision


def test_with_weights_in_8_bits_temperature_0_is_the_greedy_search_with_the_weights_brought_back(
    int8: Int8OpenVinoModel, by_hand: tuple[Any, Any]
) -> None:
    plain, tokenizer = with_weights_brought_back(by_hand[0]), by_hand[1]
    ids = tokenizer("Hello, how", return_tensors="pt", add_special_tokens=False)
    assert lead(plain, ids["input_ids"][0].tolist(), 12) > LEAD
    out = plain.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    said = asyncio.run(int8.generate("Hello, how", Sampling(temperature=0, max_tokens=12)))
    assert said.text == tokenizer.decode(out, skip_special_tokens=True)


# -- generate


TEXTS = ["Hi", "How do I bake bread?", "x" * 80, *["x" * 80 + end for end in "abc"]]


def is_certain(by_hand: tuple[Any, Any], text: str) -> bool:
    """Whether all engines say the same 16 tokens at temperature 0, whatever they round."""
    model, tokenizer = by_hand
    return lead(model, tokenizer(chat_text(("user", text)), add_special_tokens=False)["input_ids"], 16) > LEAD


def test_temperature_0_is_the_greedy_search_of_transformers(
    model: OpenVinoModel, by_hand: tuple[Any, Any]
) -> None:
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


MANY = [(ask("x" * (n * 13 % 60 + 1)), Sampling(max_tokens=12, seed=n * 2**40)) for n in range(20)]


def test_the_same_seed_says_the_same_whatever_is_batched_with_it(model: OpenVinoModel) -> None:
    together = generate_all(model, *MANY)
    assert nearly_all_alike([generate_all(model, one)[0] for one in MANY], together)
    assert nearly_all_alike(generate_all(model, *MANY[7:3:-1]), together[7:3:-1])
    assert len({c.text for c in together}) > 15


def test_draws_at_temperature_1_follow_the_softmax(model: OpenVinoModel, by_hand: tuple[Any, Any]) -> None:
    """No top-p, no top-k, no penalty (SL-10)."""
    reference, tokenizer = by_hand
    draws = 1500
    said = generate_all(model, *[(ask("Hi"), Sampling(max_tokens=1, seed=n)) for n in range(draws)])
    ids = tokenizer(chat_text(("user", "Hi")), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        probabilities = reference(torch.tensor([ids])).logits[0, -1].softmax(-1)
    of_text: Counter[str] = Counter()
    for token in range(3, len(tokenizer)):
        of_text[tokenizer.decode([token]).strip()] += float(probabilities[token])
    counts = Counter(c.text for c in said)
    for text, p in [(t, p) for t, p in of_text.most_common(8) if t]:
        assert abs(counts[text] - p * draws) < 4 * (draws * p * (1 - p)) ** 0.5


def test_text_ends_before_a_stop_string(model: OpenVinoModel, by_hand: tuple[Any, Any]) -> None:
    text = next(t for t in TEXTS if is_certain(by_hand, t))
    whole = generate_all(model, (ask(text), Sampling(temperature=0, max_tokens=16)))[0].text
    stop = next(two for i in range(2, 16) if (two := whole[i : i + 2]).isascii() and two.isprintable())
    said = generate_all(model, (ask(text), Sampling(temperature=0, max_tokens=16, stop=(stop,))))[0]
    assert said.text == whole[: whole.find(stop)].strip()
    assert said.finish_reason == "stop"
    assert said.completion_tokens < 16


def test_it_stops_at_its_own_end_of_text_and_says_so(model: OpenVinoModel) -> None:
    asked = [(ask("Hi"), Sampling(temperature=2.0, max_tokens=60, seed=n)) for n in range(40)]
    said = generate_all(model, *asked)
    ended = [c for c in said if c.finish_reason == "stop"]
    assert ended
    assert all("<|im_end|>" not in c.text and c.completion_tokens <= 60 for c in ended)
    assert {c.completion_tokens for c in said if c.finish_reason == "length"} <= {60}


def test_a_context_that_is_too_long_fails_alone(model: OpenVinoModel) -> None:
    async def both() -> list[Any]:
        sampling = Sampling(max_tokens=4)
        return await asyncio.gather(
            model.generate("ab " * 400, sampling), model.generate("Hi", sampling), return_exceptions=True
        )

    too_long, fine = asyncio.run(both())
    assert isinstance(too_long, RecordError)
    assert isinstance(fine, Completion)


# -- what it takes


def test_nothing_is_told_to_anyone() -> None:
    """OpenVINO's converter sends statistics unless this package is missing."""
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (LlamaConfig(**SMALL), None),
        (MistralConfig(**SMALL, sliding_window=16), "not all of its layers attend to the whole text"),
        (MixtralConfig(**SMALL), "it is a mixture of experts"),
        (
            LlamaConfig(
                **SMALL, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
            ),
            "its positions are of the kind 'dynamic'",
        ),
    ],
)
def test_what_tracing_would_freeze_wrongly_is_known_beforehand(config: Any, why: str | None) -> None:
    assert unsupported(config) == why


def test_an_export_that_is_another_model_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = export_ir._trace

    def wrong(module: Any) -> Any:
        module.model.norm.weight.data *= 1.1
        return traced(module)

    monkeypatch.setattr(export_ir, "_trace", wrong)
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))  # where it is not exported yet
    with pytest.raises(ModelError, match=r"as another model .* Set engine=transformers"):
        OpenVinoModel("tiny", tiny)
