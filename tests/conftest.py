"""One tiny random model for every test that needs weights: made in a second, no network."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.shape import SHAPE

# Time says nothing on a machine that does other work too.
settings.register_profile(
    "cai", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("cai")

# In the background of a script interrupts are ignored, by the commands that tests start and interrupt, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test may reach the network
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads that wait for each other cost more than they bring

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = [
    "Human: How do I bake bread?",
    "Assistant: Mix flour and water (A) or (B).",
    "No, I will not help you.",
]


@pytest.fixture(autouse=True)
def no_measured_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of measured engines: one that does not exist, whatever was measured on this machine."""
    from constitutional_ai.models.local import engine_rates

    path = tmp_path / "cache" / "engines.json"
    monkeypatch.setattr(engine_rates, "kept_file", lambda: path)
    return path


@pytest.fixture(autouse=True)
def no_kept_judgements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the answers of judges from one test to the next in no file: servers of tests share names and ports."""
    from constitutional_ai.evaluation.judge import judge

    monkeypatch.setattr(judge, "kept_calls", lambda: tmp_path / "cache" / "judge.sqlite")


@pytest.fixture
def needs_int8() -> None:
    """Skips the test where weights cannot be kept in 8 bits."""
    import torch

    from constitutional_ai.engine.open import int8_dtype

    if int8_dtype(torch.float32) is None:
        pytest.skip("weights in 8 bits take Linux, gcc and AVX-512 VNNI or AMX")


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_tiny(chat=…, vocabulary=…, **config)`` writes a random two-layer Llama with a byte-level tokenizer."""

    def make(*, chat: bool = True, vocabulary: int = 300, **config: object) -> Path:
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        folder = tmp_path_factory.mktemp("tiny")
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        specials = ["<pad>", "<|im_start|>", "<|im_end|>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
        raw.train_from_iterator(LINES, trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="<pad>", bos_token="<|im_start|>", eos_token="<|im_end|>"
        )
        if chat:
            tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        settings = {
            **SHAPE,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        LlamaForCausalLM(LlamaConfig(**{**settings, **config})).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny(make_tiny: Callable[..., Path]) -> Path:
    """A folder with a tiny chat model."""
    return make_tiny()


@pytest.fixture(scope="session")
def tiny_plain(make_tiny: Callable[..., Path]) -> Path:
    """A folder with a tiny model without a chat template."""
    return make_tiny(chat=False)


@pytest.fixture(scope="session")
def tiny_pm(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny preference model, whose head is random."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny_pm")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder
