"""Tiny random models that behave as those of well-known families do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.conftest import CHAT, LINES
from tests.shape import SHAPE

STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STATE: dict[str, Any] = {
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 0,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "prefixed": ("Mistral", {"sliding_window": None}),
    "state": ("Qwen3Next", STATE),
    "mamba": ("Mamba", {"state_size": 4}),
    "experts": ("Qwen3Moe", EXPERTS),
    "headless": ("Granite", {}),
    "base": ("Qwen2", {}),
    "strict": ("Llama", {}),
}
"""The architecture of each kind, and its settings."""


def make_family(kind: str, folder: Path, template: str | None = CHAT) -> Path:
    """Write a model of a kind. ``base``: its template ends turns with another token than its texts."""
    architecture, settings = KINDS[kind]
    tokenizer = with_prefix() if kind == "prefixed" else byte_level("<pad>" if kind == "base" else "<|im_end|>")
    tokenizer.chat_template = None if kind == "prefixed" else STRICT if kind == "strict" else template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(
        **{
            **SHAPE,
            "max_position_embeddings": 4096,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **settings,
        }
    )
    getattr(transformers, f"{architecture}ForCausalLM")(config).save_pretrained(folder)
    return folder


def byte_level(eos: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that puts no space before a text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    learn(raw, ["<pad>", "<|im_start|>", "<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token=eos)


def with_prefix() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space before every text."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learn(raw, ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    raw.pre_tokenizer = None
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>")


def learn(raw: Tokenizer, specials: list[str], **more: Any) -> None:
    """Train a tokenizer on a few lines."""
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=specials, show_progress=False, **more)
    raw.train_from_iterator(LINES * 4, trainer)
