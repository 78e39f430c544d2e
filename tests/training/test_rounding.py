from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from constitutional_ai.training import launch  # first: it turns telemetry off

from peft import get_peft_model  # isort: skip
from transformers import AutoModelForSequenceClassification  # isort: skip

from constitutional_ai.training.rounding import cast, merged, rounded
from constitutional_ai.training.settings import Training

BF16 = torch.bfloat16


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_change_that_is_too_small_for_one_weight_is_kept_by_many() -> None:
    """A paper's learning rate, three steps, on weights of 0.02: to the nearest number nothing would be learned."""
    before = torch.full((20_000,), 0.02).to(BF16).float()
    after = before + 3e-5
    assert torch.equal(after.to(BF16).float(), before)
    kept = rounded(after, BF16, seeded())
    assert kept.dtype == BF16
    # One step of 2⁻¹³ with probability 3e-5 · 2¹³ = 0.25, ± 6 standard errors.
    assert float((kept.float() > before).float().mean()) == pytest.approx(3e-5 * 2**13, abs=6 * 0.0031)
    assert float((kept.float() - before).mean()) == pytest.approx(3e-5, rel=0.08)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 2.0**-120, float("inf"), float("-inf")])
def test_what_fits_is_not_touched(value: float) -> None:
    assert rounded(torch.full((64,), value), BF16, seeded()).tolist() == [value] * 64


def test_what_is_no_number_stays_none_and_the_largest_does_not_become_one() -> None:
    assert rounded(torch.full((64,), float("nan")), BF16, seeded()).isnan().all()
    assert not rounded(torch.full((64,), torch.finfo(torch.float32).max), BF16, seeded()).isnan().any()


def test_no_weight_moves_by_more_than_one_step() -> None:
    exact = torch.randn(10_000, generator=seeded())
    assert ((rounded(exact, BF16, seeded(1)).float() - exact).abs() <= exact.abs() * 2**-7).all()
    assert torch.equal(rounded(exact, BF16, seeded(1)), rounded(exact, BF16, seeded(1)))
    assert torch.equal(rounded(exact, torch.float32, seeded()), exact)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
def test_adapters_and_the_head_beside_them_are_merged_as_peft_does(tiny: Path) -> None:
    training = Training(lora_rank=2)
    base = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32)
    model = get_peft_model(base, launch.lora(training, "SEQ_CLS", modules_to_save=["score"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight += 0.1
    theirs = copy.deepcopy(model).merge_and_unload().state_dict()
    ours = merged(model)
    assert type(ours) is type(base)
    assert ours.state_dict().keys() == theirs.keys()
    for name, weight in ours.state_dict().items():
        assert torch.allclose(weight, theirs[name], atol=1e-6), name
    head = theirs["score.weight"].clone()
    cast(ours, BF16)
    assert {weight.dtype for weight in ours.parameters()} == {BF16}
    assert torch.allclose(ours.score.weight.float(), head, rtol=2**-7)


def test_a_tied_embedding_stays_tied(make_tiny: object) -> None:
    model = launch.load(make_tiny(tie_word_embeddings=True), Training())  # type: ignore[operator]
    cast(model, BF16)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
