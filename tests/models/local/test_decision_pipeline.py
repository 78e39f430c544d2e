"""transformers' decision pipeline, the reference in this process, on a tiny model with single-token letters."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.errors import ModelError
from constitutional_ai.models.abilities import DecisionQuestion
from constitutional_ai.models.local.hugging_face import HuggingFaceModel

QUESTION = DecisionQuestion("choice", "Which is kinder?", ("Hello!", "Go away."))
STATE = "Human: Hi?"


def test_an_answer_is_the_share_of_the_letters_next(tiny: Path) -> None:
    model = HuggingFaceModel("hf:tiny", tiny, dtype=torch.float32)
    reading = asyncio.run(model.decide(STATE, QUESTION))
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = (
        f"{STATE}\n\nWhich is kinder?\nA. A: Hello!\nB. B: Go away.\n"
        "Answer with the letter of the option that fits best (A to B) only."
    )
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB"]
    weights = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with torch.inference_mode():
        next_token = weights(**prompt).logits[0, -1].softmax(-1)
    a, b = [float(next_token[token]) for (token,) in letters]
    assert reading.label_mass == pytest.approx(a + b, rel=1e-4)
    assert reading.probabilities == pytest.approx((a / (a + b), b / (a + b)), abs=1e-5)
    assert reading.prompt_tokens == prompt["input_ids"].shape[-1]


def test_the_tokenizer_of_the_model_gets_no_tokens_from_it(tiny: Path) -> None:
    model = HuggingFaceModel("hf:tiny", tiny, dtype=torch.float32)
    before = len(model._tokens.tokenizer)
    asyncio.run(model.decide(STATE, QUESTION))
    assert len(model._tokens.tokenizer) == before
    assert len(model._reference._pipeline.tokenizer) == before + 2


def test_a_model_whose_letters_are_no_tokens_is_refused(tiny: Path) -> None:
    model = HuggingFaceModel("hf:tiny", tiny, dtype=torch.float32)
    question = DecisionQuestion("choice", "Which?", ("yes",) * 27)  # there are 26 letters
    with pytest.raises(ModelError, match="answers no decision questions"):
        asyncio.run(model.decide(STATE, question))
