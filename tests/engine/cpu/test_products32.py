"""Products in float32 on AVX2 and AVX-512, beside torch's in double precision."""

from __future__ import annotations

import ctypes
import platform
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import nn

from constitutional_ai import machine
from constitutional_ai.engine.cpu import build
from constitutional_ai.engine.cpu.kernels import Kernels
from constitutional_ai.engine.cpu.projection import Projection, RmsNorm

HAS = machine.processor()[1] if platform.machine() in {"x86_64", "AMD64"} else []

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None or "avx2" not in HAS, reason="needs gcc and AVX2")

SHAPES = [
    (rows, numbers, features)
    for rows in (1, 2, 5, 6, 7, 11, 12, 13, 96, 97, 205)
    for numbers, features in ((32, 16), (100, 37), (257, 48), (576, 130))
]
"""These have every rest of a tile, of a part and of a panel, and numbers on both sides of what is added at once."""


@pytest.fixture(autouse=True, scope="module")
def several_threads() -> Iterator[None]:
    """Each product shares its parts out; other tests have one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[["-mno-avx512f"], []], ids=["AVX2", "AVX-512"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Built as on a processor without AVX-512, and as on this one if it has it."""
    if not request.param and "avx512f" not in HAS:
        pytest.skip("no AVX-512 here")
    found = Kernels(ctypes.CDLL(str(build.build_library("gcc", ["-DFLOAT32", *request.param]))))
    assert found.panel == 64
    return found


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Panels(NamedTuple):
    """Weights as oneDNN packs them."""

    numbers: torch.Tensor

    @staticmethod
    def of(weight: torch.Tensor) -> Panels:
        features, numbers = weight.shape
        whole = nn.functional.pad(weight, (0, 0, 0, -features % 64))
        return Panels(whole.view(-1, 64, numbers).transpose(1, 2).contiguous())

    @property
    def address(self) -> int:
        return self.numbers.data_ptr()


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted, atol=2e-6 * float(wanted.abs().max() + 1), rtol=1e-4)


@pytest.mark.parametrize(("rows", "numbers", "features"), SHAPES)
def test_a_product_is_the_sum_of_all_its_parts(
    kernels: Kernels, rows: int, numbers: int, features: int
) -> None:
    x, weight, bias, other = (
        drawn(*shape, seed=seed)
        for seed, shape in enumerate([(rows, numbers), (features, numbers), (features,), (rows, features)])
    )
    panels, plain = Panels.of(weight), x.double() @ weight.double().T
    close(kernels.product(x, panels.address, features), plain)
    close(kernels.product(x, panels.address, features, bias), plain + bias)
    close(kernels.product(x, panels.address, features, None, other), plain + other)
    close(kernels.product(x, panels.address, features, bias, other), plain + bias + other)


@pytest.mark.parametrize(("rows", "numbers", "features"), SHAPES)
def test_a_gated_product_is_that_times_silu_of_the_gate(
    kernels: Kernels, rows: int, numbers: int, features: int
) -> None:
    x, up, gate = drawn(rows, numbers), drawn(features, numbers, seed=1), drawn(features, numbers, seed=2)
    by, gated_by = Panels.of(up), Panels.of(gate)
    found = kernels.product(x, by.address, features, gate=gated_by.address)
    ups, gates = (x.double() @ weight.double().T for weight in (up, gate))
    close(found, ups * nn.functional.silu(gates))


@pytest.mark.parametrize("huge", [1e4, -1e4])
def test_gates_far_from_zero_leave_numbers(kernels: Kernels, huge: float) -> None:
    x, up = torch.ones(2, 32), drawn(16, 32)
    gate = torch.full((16, 32), huge)
    by, gated_by = Panels.of(up), Panels.of(gate)
    found = kernels.product(x, by.address, 16, gate=gated_by.address)
    close(found, (x.double() @ up.double().T) * (32 * huge if huge > 0 else 0))


def test_projections_of_one_input_are_one_product_behind_a_norm(kernels: Kernels) -> None:
    torch.manual_seed(0)
    modules = [nn.Linear(64, features, bias=True) for features in (32, 16, 16)]
    wanted_of = [(m.weight.detach().double().clone(), m.bias.detach().double().clone()) for m in modules]
    projection = Projection.of(kernels, torch.float32, None, *modules)
    norm = RmsNorm(drawn(64, seed=3), 1e-5)
    x = drawn(9, 64, seed=4)
    normed = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    found = projection(x, norm=norm)
    close(found, torch.cat([normed @ weight.T + bias for weight, bias in wanted_of], dim=1))


@pytest.mark.parametrize("features", [64, 100])
def test_weights_are_read_where_onednn_packs_them(kernels: Kernels, features: int) -> None:
    weight = drawn(features, 48)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    address = kernels.blocks_of(weight, packed)
    if address is None:
        pytest.skip("this oneDNN packs weights otherwise")
    x = drawn(5, 48, seed=1)
    close(kernels.product(x, address, features), x.double() @ weight.double().T)
    assert kernels.blocks_of(drawn(features, 48, seed=2), packed) is None
