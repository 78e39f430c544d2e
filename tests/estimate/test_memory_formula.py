from __future__ import annotations

import pytest

from constitutional_ai import machine
from constitutional_ai.estimate.memory_formula import (
    SHAPES,
    adapter_parameters,
    shape_of_config,
    shape_of_size,
    training_bytes,
)
from constitutional_ai.training.settings import Training

WITHIN = 2.0
"""The factor that docs/estimate.md states."""


def test_a_size_has_the_shape_of_the_nearest_model() -> None:
    assert shape_of_size(7e9).layers == 32 and shape_of_size(7e9).parameters == 7_000_000_000
    assert shape_of_size(100e9).layers == 80


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parameters_of_a_shape_are_those_of_its_layers(shape: object) -> None:
    s = SHAPES[SHAPES.index(shape)]  # type: ignore[arg-type]
    layer = 2 * s.hidden * s.queries + 2 * s.hidden * s.keys + 3 * s.hidden * s.inner
    tables = s.vocabulary * s.hidden * (1 if s.parameters < 5e9 else 2)  # the small ones share theirs
    assert s.layers * layer + tables == pytest.approx(s.parameters, rel=0.01)


def test_training_all_weights_in_mixed_precision_takes_18_bytes_for_each() -> None:
    shape = shape_of_size(8e9)
    assert training_bytes(shape, Training(), 0) == 18 * shape.parameters
    lora = Training(lora_rank=16)
    assert training_bytes(shape, lora, 0) == 2 * shape.parameters + 16 * adapter_parameters(shape, 16)
    assert 0.004 < adapter_parameters(shape, 16) / shape.parameters < 0.006


@pytest.mark.parametrize("rank", [None, 8])
def test_the_formula_is_near_the_measured_peak(rank: int | None) -> None:
    torch = pytest.importorskip("torch")
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    if machine.peak_memory() is None or torch.cuda.is_available():
        pytest.skip("memory of a process is read where Linux tells it")
    tokens, settings, dtype = 1024, Training(lora_rank=rank), machine.best_dtype()
    config = transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.float32 if rank is None else dtype)
    shape = shape_of_config(config, sum(p.numel() for p in model.parameters()))
    if rank:
        lora = peft.LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        model = peft.get_peft_model(model, lora)
    ids = torch.zeros((2, tokens // 2), dtype=torch.long)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    before = 0.0
    for _ in range(2):  # the first step imports, compiles, and makes Adam's moments
        machine.forget_peak_memory()
        before = machine.peak_memory() or 0
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    growth = (machine.peak_memory() or 0) - before
    moments = [value for state in optimiser.state.values() for value in state.values()]
    kept = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *moments))
    expected = training_bytes(shape, settings, tokens, value=dtype.itemsize)
    assert 1 / WITHIN < (kept + growth) / expected < WITHIN, (kept / 1e6, growth / 1e6, expected / 1e6)
