"""The tiny model used with transformers alone, to compare our models with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Completion, Message


def load_plain(folder: Path) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer, with nothing in between."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return loaded.eval(), AutoTokenizer.from_pretrained(folder)


def log_probability(by_hand: tuple[Any, Any], context: str, continuation: str) -> float:
    """The log-probability of the continuation, from one forward pass over everything."""
    model, tokenizer = by_hand
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, continuation))
    with torch.no_grad():
        logps = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(float(logps[len(before) + i - 1, token]) for i, token in enumerate(after))


def ask(text: str) -> tuple[Message, ...]:
    """A conversation of one message of the user."""
    return (Message("user", text),)


def chat_text(*turns: tuple[str, str], then: str = "<|im_start|>assistant\n") -> str:
    """The text that the tiny model's chat template makes of a conversation."""
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + then


def generate_all(model: Model, *asked: tuple[Context, Sampling]) -> list[Completion]:
    """The answers to requests that are made at the same time."""

    async def together() -> list[Completion]:
        return await asyncio.gather(*[model.generate(context, sampling) for context, sampling in asked])

    return asyncio.run(together())
