"""What the tests of shared beginnings, of decoding and of the decoder ask."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from constitutional_ai.engine.decode_loop import Decoding
from constitutional_ai.engine.row_engine import SharedEngine
from constitutional_ai.models.local.padded import PaddedEngine
from tests.shape import SHAPE

BEGINNING = [5 + n * 7 % 280 for n in range(150)]
ROWS = [BEGINNING + [5 + (n + 3) * m % 290 for m in range(n * 5 % 23 + 1)] for n in range(12)]
CONTINUATIONS = [[7], [9, 11, 12], [9, 11, 13, 200, 17]]
TINY = {**SHAPE, "vocab_size": 300, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}


def llama(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


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
