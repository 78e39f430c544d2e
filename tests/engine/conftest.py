"""Models of every architecture that shares prefixes, computed in both ways."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from constitutional_ai.engine import architectures
from constitutional_ai.engine.attention import Forward, TransformersForward
from constitutional_ai.engine.cpu import decoder
from constitutional_ai.engine.cpu.decoder import Decoder
from tests.engine.sequences import TINY, X86, llama

MAKE: dict[str, Callable[[Path], Any]] = {
    "llama": llama,
    "mistral": lambda _: MistralForCausalLM(MistralConfig(**TINY, sliding_window=None)).eval(),
    "qwen2": lambda _: Qwen2ForCausalLM(Qwen2Config(**TINY)).eval(),
    "qwen3": lambda _: Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=8)).eval(),
    # Heads of a size that the kernels take.
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
    assert architectures.supports(made) and decoder.supports(made) == X86
    return made


@pytest.fixture(scope="module", params=["modules", "decoder"])
def forward(request: pytest.FixtureRequest, model: Any) -> Forward:
    if request.param == "modules":
        return TransformersForward(model)
    if not X86:
        pytest.skip("the decoder is for x86 processors")
    return Decoder(copy.deepcopy(model))


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny, padding_side="left")
