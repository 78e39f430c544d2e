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
PREDICATE = DecisionQuestion("predicate", "Is it kind?")
STATE = "Human: Hi?"


@pytest.fixture(scope="module")
def tiny_yes(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with tokens for Yes and No."""
    folder = tmp_path_factory.mktemp("tiny_yes")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(["Yes", "No"])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    weights = AutoModelForCausalLM.from_pretrained(tiny)
    weights.resize_token_embeddings(len(tokenizer))
    weights.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("question", "lines", "labels"),
    [
        (
            QUESTION,
            "Which is kinder?\nA. A: Hello!\nB. B: Go away.\n"
            "Answer with the letter of the option that fits best (A to B) only.",
            ("A", "B"),
        ),
        (PREDICATE, "Is it kind?\nAnswer Yes or No only.", ("Yes", "No")),
    ],
)
def test_an_answer_is_the_share_of_its_labels_next(
    tiny_yes: Path, question: DecisionQuestion, lines: str, labels: tuple[str, str]
) -> None:
    model = HuggingFaceModel("hf:tiny", tiny_yes, dtype=torch.float32)
    reading = asyncio.run(model.decide(STATE, question))
    tokenizer = AutoTokenizer.from_pretrained(tiny_yes)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"{STATE}\n\n{lines}"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    tokens = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
    weights = AutoModelForCausalLM.from_pretrained(tiny_yes, dtype=torch.float32)
    with torch.inference_mode():
        next_token = weights(**prompt).logits[0, -1].softmax(-1)
    a, b = [float(next_token[token]) for (token,) in tokens]
    assert reading.label_mass == pytest.approx(a + b, rel=1e-4)
    assert reading.probabilities == pytest.approx((a / (a + b), b / (a + b)), abs=1e-5)
    assert reading.prompt_tokens == prompt["input_ids"].shape[-1]


def test_the_tokenizer_of_the_model_gets_no_tokens_from_it(tiny: Path) -> None:
    model = HuggingFaceModel("hf:tiny", tiny, dtype=torch.float32)
    before = len(model._tokens.tokenizer)
    asyncio.run(model.decide(STATE, QUESTION))
    assert len(model._tokens.tokenizer) == before
    assert len(model._reference._pipeline.tokenizer) == before + 2


@pytest.mark.parametrize(
    "question",
    [DecisionQuestion("choice", "Which?", ("yes",) * 27), PREDICATE],  # 26 letters, and neither Yes nor No
)
def test_a_model_whose_labels_are_no_tokens_is_refused(tiny: Path, question: DecisionQuestion) -> None:
    model = HuggingFaceModel("hf:tiny", tiny, dtype=torch.float32)
    with pytest.raises(ModelError, match="answers no decision questions"):
        asyncio.run(model.decide(STATE, question))
