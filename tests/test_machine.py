"""The precision that this machine computes in."""

from __future__ import annotations

import platform

import pytest
import torch

from constitutional_ai import machine


@pytest.mark.parametrize(
    ("architecture", "onednn", "avx512", "best"),
    [
        ("x86_64", True, True, torch.bfloat16),
        ("x86_64", True, False, torch.float32),  # AVX-512 alone: oneDNN converts, and takes three times as long
        ("x86_64", False, False, torch.float32),
        ("aarch64", True, False, torch.bfloat16),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    architecture: str, onednn: bool, avx512: bool, best: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert machine.best_dtype() == best
