"""Weights in 8 bits are multiplied as if each were brought back, by AMX tiles and by AVX-512 VNNI."""

from __future__ import annotations

import asyncio
import copy
import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from constitutional_ai import machine
from constitutional_ai.engine.cpu import build
from constitutional_ai.engine.cpu.decoder import Decoder, Projection, RmsNorm
from constitutional_ai.engine.cpu.int8 import pack, round_weights
from constitutional_ai.engine.cpu.kernels import Kernels
from constitutional_ai.engine.cpu.memory import Arena
from constitutional_ai.engine.open import int8_dtype
from constitutional_ai.engine.sequence_engine import SequenceEngine
from constitutional_ai.errors import ModelError
from constitutional_ai.models.local.bundled import bundled_folder
from constitutional_ai.models.local.hugging_face import HuggingFaceModel, Int8Model
from constitutional_ai.models.local.padded import PaddedGenerate
from tests.engine.sequences import CONTINUATIONS, SEQUENCES, X86, all_say, completions

WAYS = {
    "in bfloat16": [],
    "in bfloat16, without tiles": ["-mno-amx-bf16"],
    "in float32": ["-DFLOAT32"],
}
"""Flags for the instructions that multiply 8 bits, and for what else is computed in."""
SHAPES = [
    (1, 64, 32),
    (3, 576, 960),
    (16, 64, 50),
    (17, 100, 32),
    (33, 1536, 64),
    (300, 96, 100),
    (1100, 70, 33),
    (5, 1024, 2085),
]


@pytest.fixture(params=WAYS)
def kernels(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, torch.dtype]]:
    """And three threads: other tests have one."""
    flags = WAYS[request.param]
    if (gcc := shutil.which("gcc")) is None:
        pytest.skip("no gcc here")
    try:
        made = Kernels(ctypes.CDLL(str(build.build_library(gcc, flags))))
    except subprocess.SubprocessError as error:  # a compiler that does not know these instructions at all
        pytest.skip(str(error))
    if not made.supports_int8:
        pytest.skip("neither AVX-512 VNNI nor AMX here")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield made, torch.float32 if flags and flags[0] == "-DFLOAT32" else torch.bfloat16
    torch.set_num_threads(before)


def drawn(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def linear(numbers: int, features: int, seed: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(numbers, features, bias=bias)


def brought_back(module: nn.Linear) -> torch.Tensor:
    whole, scales = round_weights(module.weight.detach())
    return whole.double() * scales[:, None].double()


def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Rows were brought to 16 bits; bfloat16 has 8 of its own."""
    share = 5e-4 if got.dtype == torch.float32 else 5e-3
    return bool(((got.double() - wanted).abs() <= share * wanted.abs().amax(-1, keepdim=True)).all())


@pytest.mark.parametrize(("rows", "numbers", "features"), SHAPES)
def test_a_product_is_that_with_the_weights_brought_back(
    kernels: tuple[Kernels, torch.dtype], rows: int, numbers: int, features: int
) -> None:
    made_for, dtype = kernels
    module = linear(numbers, features, 1, bias=True)
    wanted, bias = brought_back(module), module.bias.detach().to(dtype).double()
    # Each row has a size of its own, and one number far from the others: they share no scale.
    x = drawn(dtype, rows, numbers) * torch.logspace(-3, 3, rows)[:, None].to(dtype)
    x[0, numbers // 2] *= 100
    made, other, norm = (
        Projection.of(made_for, dtype, Arena(), module),
        drawn(dtype, rows, features),
        drawn(dtype, numbers),
    )
    assert close(made(x), x.double() @ wanted.T + bias)
    assert close(made(x, other), x.double() @ wanted.T + bias + other.double())
    assert close(made(x, norm=RmsNorm(norm, 1e-5)), normed(x, norm) @ wanted.T + bias)


@pytest.mark.parametrize(("rows", "numbers", "features"), SHAPES)
def test_a_gated_product_is_that_times_silu_of_the_gate(
    kernels: tuple[Kernels, torch.dtype], rows: int, numbers: int, features: int
) -> None:
    made_for, dtype = kernels
    up, gate = linear(numbers, features, 1), linear(numbers, features, 2)
    x, norm = drawn(dtype, rows, numbers), 5 * drawn(dtype, numbers)
    ups, gates = (normed(x, norm) @ brought_back(module).T for module in (up, gate))
    made, by = (Projection.of(made_for, dtype, Arena(), module) for module in (up, gate))
    assert close(made.gated(x, by, RmsNorm(norm, 1e-5)), ups * nn.functional.silu(gates))


def test_biases_of_a_gated_product_are_added_to_both(kernels: tuple[Kernels, torch.dtype]) -> None:
    made_for, dtype = kernels
    up, gate = (linear(64, 32, seed, bias=True) for seed in (1, 2))
    up.bias.data *= 50
    x, norm = drawn(dtype, 3, 64), drawn(dtype, 64)
    ups, gates = (
        normed(x, norm) @ brought_back(module).T + module.bias.detach().double() for module in (up, gate)
    )
    made, by = (Projection.of(made_for, dtype, Arena(), module) for module in (up, gate))
    got, wanted = made.gated(x, by, RmsNorm(norm, 1e-5)).double(), ups * nn.functional.silu(gates)
    assert ((got - wanted).abs() <= 0.03 * wanted.abs().amax(-1, keepdim=True)).all()


def test_rows_of_zeros_and_weights_of_zeros_give_zeros(kernels: tuple[Kernels, torch.dtype]) -> None:
    made_for, dtype = kernels
    module = linear(64, 32, 0)
    module.weight.data[3] = 0
    made = Projection.of(made_for, dtype, Arena(), module)
    assert not made(torch.zeros(5, 64, dtype=dtype)).any()
    assert not made(drawn(dtype, 5, 64))[:, 3].any()


@pytest.mark.parametrize("huge", [1e4, -1e4])
def test_gates_far_from_zero_leave_numbers(kernels: tuple[Kernels, torch.dtype], huge: float) -> None:
    made_for, dtype = kernels
    up, gate = linear(64, 32, 1), linear(64, 32, 2)
    gate.weight.data[:] = huge
    x = torch.ones(2, 64, dtype=dtype)
    wanted = (x.double() @ brought_back(up).T) * (64 * huge if huge > 0 else 0)
    made, by = (Projection.of(made_for, dtype, Arena(), module) for module in (up, gate))
    assert close(made.gated(x, by, RmsNorm(torch.ones(64, dtype=dtype), 0.0)), wanted)


numbers = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=1, max_size=6))
def test_each_weight_is_rounded_to_the_nearest_of_255(rows: list[list[float]]) -> None:
    weight = torch.tensor(rows)
    whole, scales = round_weights(weight)
    assert whole.abs().max() <= 127
    assert ((whole * scales[:, None] - weight).abs() <= 0.5001 * scales[:, None]).all()
    assert (whole.abs().amax(1) == 127)[weight.abs().amax(1) > 1e-30].all()  # no level is given away


@pytest.mark.parametrize("spoiled", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(spoiled: float) -> None:
    weight = torch.ones(4, 4)
    weight[1, 2] = spoiled
    with pytest.raises(ModelError, match="inf or NaN"):
        round_weights(weight)


def test_they_take_a_byte_each_and_what_fills_up_the_last_block() -> None:
    blocks, scales, sums = pack(drawn(torch.float32, 100, 70), Arena())
    assert blocks.nbytes == 128 * 128
    assert len(scales) == len(sums) == 128
    assert (sums.sum() == blocks.sum(dtype=torch.int32)).item()
    assert not scales[100:].any()


# -- whole models


def with_weights_brought_back(model: Any) -> Any:
    made = copy.deepcopy(model)
    made.lm_head.weight = nn.Parameter(made.lm_head.weight.detach().clone())  # the embedding keeps its own
    for module in made.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = brought_back(module).to(module.weight.dtype)
    return made


def in_8_bits(model: Any, dtype: torch.dtype | None = None) -> Decoder:
    found = int8_dtype(dtype)
    if not X86 or found is None:
        pytest.skip("weights in 8 bits take Linux, gcc and AVX-512 VNNI or AMX")
    return Decoder(copy.deepcopy(model), int8=found)


def test_a_decoder_says_and_scores_what_transformers_do_with_the_weights_brought_back(
    model: Any, tokenizer: Any
) -> None:
    plain, ends = with_weights_brought_back(model), [CONTINUATIONS] * len(SEQUENCES)
    engine = SequenceEngine(in_8_bits(model, torch.float32), tokenizer, {2})
    wanted = torch.tensor(PaddedGenerate(plain, tokenizer, {2}).score(SEQUENCES, ends))
    assert torch.allclose(torch.tensor(engine.score(SEQUENCES, ends)), wanted, atol=2e-3)
    assert all_say(plain, SEQUENCES, completions(engine, SEQUENCES), rounding=2e-3)


def test_weights_stored_in_16_bits_are_computed_with_in_whatever_this_machine_does(
    model: Any, tokenizer: Any
) -> None:
    stored = copy.deepcopy(model).to(torch.bfloat16)
    plain, ends = with_weights_brought_back(copy.deepcopy(stored).float()), [CONTINUATIONS] * len(SEQUENCES)
    engine = SequenceEngine(in_8_bits(stored, torch.float32), tokenizer, {2})
    wanted = torch.tensor(PaddedGenerate(plain, tokenizer, {2}).score(SEQUENCES, ends))
    assert torch.allclose(torch.tensor(engine.score(SEQUENCES, ends)), wanted, atol=2e-3)


PROBE = "The capital of France is Paris, and that of Italy is Rome. Water boils at a hundred degrees."


@pytest.mark.usefixtures("needs_int8")
def test_the_embedded_model_in_8_bits_is_that_with_its_weights_brought_back() -> None:
    folder = bundled_folder("smollm2-135m")
    made = Int8Model("int8", folder, dtype=torch.float32)
    plain = with_weights_brought_back(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    tokens = made._tokens.tokenizer(PROBE)["input_ids"]
    with torch.inference_mode():
        wanted_TK, likeliest_TK = plain(torch.tensor([tokens])).logits[0].log_softmax(-1).topk(5)
    contexts = [tokens[: n + 1] for n in range(len(tokens))]
    scores_TK = torch.tensor(made._engine.score(contexts, likeliest_TK[:, :, None].tolist()))
    assert (scores_TK - wanted_TK).abs().max() < 0.03
    assert (scores_TK - wanted_TK).abs().mean() < 0.005


@pytest.mark.usefixtures("needs_int8")
def test_it_answers_like_any_other_model_and_says_that_it_is_one_of_its_own(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Int8Model("tiny", tiny, dtype=torch.float32)
    plain = HuggingFaceModel("tiny", tiny, dtype=torch.float32)
    ours, theirs = (asyncio.run(m.score("Hello", [" there", " you"])) for m in (made, plain))
    assert ours == pytest.approx(theirs, abs=0.1)
    assert ours != theirs
    # The cache of calls keeps them apart by this.
    assert type(made).__name__ != type(plain).__name__


def test_another_architecture_is_refused_with_what_to_type_instead(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=300)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="Set engine=openvino-int8, or engine=transformers"):
        Int8Model("gpt2", tmp_path)


@pytest.mark.skipif(shutil.which("gcc") is None or not X86, reason="needs gcc and an x86 processor")
def test_other_processors_have_no_8_bit_products() -> None:
    flags = ["-DFLOAT32", "-mno-avx512f"]
    assert not Kernels(ctypes.CDLL(str(build.build_library("gcc", flags)))).supports_int8


def test_without_kernels_it_says_what_it_needs(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_kernels", lambda dtype: None)
    with pytest.raises(ModelError, match=r"AVX-512 VNNI or AMX\. Set engine=openvino-int8"):
        Int8Model("tiny", tiny)


class _Kernels:
    def __init__(self, supports_int8: bool) -> None:
        self.supports_int8 = supports_int8


@pytest.mark.parametrize(
    ("tiles_allowed", "asked", "computed_in"),
    [
        (True, None, torch.bfloat16),
        (False, None, torch.float32),
        (True, torch.float32, torch.float32),
        (False, torch.bfloat16, None),
    ],
)
def test_where_the_system_forbids_tiles_all_else_is_in_float32(
    monkeypatch: pytest.MonkeyPatch, tiles_allowed: bool, asked: torch.dtype | None, computed_in: Any
) -> None:
    known = {torch.bfloat16: _Kernels(tiles_allowed), torch.float32: _Kernels(True)}
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.bfloat16)
    monkeypatch.setattr(build, "load_kernels", known.get)
    assert int8_dtype(asked) == computed_in
