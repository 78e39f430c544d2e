"""Products in float32 on AVX2, beside torch's in double precision."""

from __future__ import annotations

import ctypes
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from constitutional_ai.engine.cpu import build
from constitutional_ai.engine.cpu.kernels import Kernels, Panels
from constitutional_ai.engine.cpu.projection import Projection, RmsNorm

CPUINFO = Path("/proc/cpuinfo")
HAS_AVX2 = CPUINFO.exists() and " avx2 " in CPUINFO.read_text() and platform.machine() in {"x86_64", "AMD64"}

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None or not HAS_AVX2, reason="needs gcc and AVX2")

SHAPES = [
    (rows, numbers, features)
    for rows in (1, 2, 5, 6, 7, 13, 96, 97, 205)
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


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Built as on a processor without AVX-512, whatever this one has."""
    found = Kernels(ctypes.CDLL(str(build.build_library("gcc", ["-DFLOAT32", "-mno-avx512f"]))))
    assert found.has_products
    return found


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
    close(kernels.product(x, panels, features), plain)
    close(kernels.product(x, panels, features, bias), plain + bias)
    close(kernels.product(x, panels, features, None, other), plain + other)
    close(kernels.product(x, panels, features, bias, other), plain + bias + other)


@pytest.mark.parametrize(("rows", "numbers", "features"), SHAPES)
def test_a_gated_product_is_that_times_silu_of_the_gate(
    kernels: Kernels, rows: int, numbers: int, features: int
) -> None:
    x, up, gate = drawn(rows, numbers), drawn(features, numbers, seed=1), drawn(features, numbers, seed=2)
    found = kernels.product(x, Panels.of(up), features, gate=Panels.of(gate))
    ups, gates = (x.double() @ weight.double().T for weight in (up, gate))
    close(found, ups * nn.functional.silu(gates))


@pytest.mark.parametrize("huge", [1e4, -1e4])
def test_gates_far_from_zero_leave_numbers(kernels: Kernels, huge: float) -> None:
    x, up = torch.ones(2, 32), drawn(16, 32)
    gate = torch.full((16, 32), huge)
    found = kernels.product(x, Panels.of(up), 16, gate=Panels.of(gate))
    close(found, (x.double() @ up.double().T) * (32 * huge if huge > 0 else 0))


def test_projections_of_one_input_are_one_product_behind_a_norm(kernels: Kernels) -> None:
    torch.manual_seed(0)
    modules = [nn.Linear(64, features, bias=True) for features in (32, 16, 16)]
    wanted_of = [(m.weight.detach().double().clone(), m.bias.detach().double().clone()) for m in modules]
    projection = Projection.of(kernels, torch.float32, None, *modules)
    assert projection.onednn is None
    norm = RmsNorm(drawn(64, seed=3), 1e-5)
    x = drawn(9, 64, seed=4)
    normed = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    found = projection(x, norm=norm)
    close(found, torch.cat([normed @ weight.T + bias for weight, bias in wanted_of], dim=1))
