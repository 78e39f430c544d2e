"""What gcc compiled computes what torch's own operations do, in both precisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from constitutional_ai.engine.attention import attend, attend_prefix, by_key_head
from constitutional_ai.engine.attention_mask import AttentionMask
from constitutional_ai.engine.cpu import build
from constitutional_ai.engine.cpu.build import load_kernels
from constitutional_ai.engine.cpu.kernels import Kernels
from constitutional_ai.errors import InputError
from tests.engine.sequences import X86
from tests.processors import path_for

TYPES = [torch.float32, torch.bfloat16]
LIMITED = {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}
"""Variables under which oneDNN packs weights for a lesser processor."""
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
"""Tolerances for numbers around 1: bfloat16 has 8 bits, and the two ways round in other places."""


@pytest.fixture(autouse=True, scope="module")
def several_threads() -> Iterator[None]:
    """Each function shares its work out; other tests have one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def compiled(dtype: torch.dtype) -> Kernels:
    made = load_kernels(dtype)
    if made is None:
        pytest.skip("no gcc here")
    return made


def tiles() -> Kernels:
    made = compiled(torch.bfloat16)
    if not made.has_tiles:
        pytest.skip("this processor has no tiles")
    return made


def drawn(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    return torch.allclose(one.float(), other.float(), atol=CLOSE[dtype], rtol=CLOSE[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 31, 576])
def test_a_norm_is_that_of_transformers(dtype: torch.dtype, size: int) -> None:
    module = LlamaRMSNorm(size, eps=1e-5).to(dtype)
    module.weight.data = drawn(dtype, size, seed=1)
    x = drawn(dtype, 5, size) * 3
    with torch.no_grad():
        own, theirs = compiled(dtype).rms_norm(x, module.weight, 1e-5), module(x)
    # The sums differ in their last bit, and a number that lies between two rounds to the other.
    assert close(own, theirs, dtype)
    assert (own != theirs).float().mean() < 0.01 or dtype == torch.float32


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "tokens"), [(1, 7), (3, 1), (2, 5)])
def test_queries_and_keys_are_rotated_as_in_transformers_and_lie_where_attention_reads(
    dtype: torch.dtype, rows: int, tokens: int
) -> None:
    K, D, H = 2, 32, 6
    heads, angle = drawn(dtype, rows, tokens, H + 2 * K, D), drawn(torch.float32, rows, tokens, D // 2, seed=1)
    rotation = torch.cat([angle, angle], -1).cos().to(dtype), torch.cat([angle, angle], -1).sin().to(dtype)
    keys, values = torch.zeros(2, rows, K, tokens + 4, D, dtype=dtype)
    query = compiled(dtype).apply_rotary(heads, rotation, keys, values, 2)
    by_head = heads.transpose(1, 2)
    theirs, their_keys = apply_rotary_pos_emb(by_head[:, :H], by_head[:, H : H + K], *rotation)
    assert close(query, by_key_head(theirs, K), dtype)
    assert close(keys[:, :, 2 : 2 + tokens], their_keys, dtype)
    assert torch.equal(values[:, :, 2 : 2 + tokens], by_head[:, H + K :])
    assert not keys[:, :, :2].any() and not keys[:, :, 2 + tokens :].any()


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(TYPES),
    rows=st.integers(1, 4),
    sharing=st.integers(1, 4),
    size=st.sampled_from([32, 64, 96, 128]),
    begun=st.sampled_from([0, 1, 40]),
    places=st.randoms(use_true_random=False),
)
def test_a_new_token_attends_to_its_suffix_and_to_the_shared_prefix(
    dtype: torch.dtype, rows: int, sharing: int, size: int, begun: int, places: Any
) -> None:
    K, columns = 2, 50
    query = drawn(dtype, K, rows, sharing, 1, size)
    keys, values = drawn(dtype, 2, rows, K, columns, size, seed=1)
    at = places.randrange(columns)
    first = torch.tensor([places.randrange(at + 1) for _ in range(rows)])
    begins = drawn(dtype, 2, 1, K, begun, size, seed=2)
    far = attend_prefix(query, (begins[0], begins[1]), 0.1) if begun else None
    column = torch.arange(columns)
    visible = (column >= first[:, None, None]) & (column <= at)
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, float("-inf"))[:, None]
    plain = attend(query, keys, values, mask, 0.1, far)
    made = compiled(dtype)
    assert close(made.attend_suffix(query, keys, values, at - first, at, far, 0.1), plain, dtype)


def angles(dtype: torch.dtype, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = drawn(torch.float32, *shape, seed=1)
    return torch.cat([angle, angle], -1).cos().to(dtype), torch.cat([angle, angle], -1).sin().to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 3),
    tokens=st.sampled_from([1, 2, 31, 32, 33, 100, 300]),
    sharing=st.integers(1, 3),
    size=st.sampled_from([32, 64, 128]),
    known=st.sampled_from([0, 1, 70]),
    begun=st.sampled_from([0, 1, 31, 256, 300]),
    keep=st.sampled_from([0, 1, 5, 300]),
    parts=st.sampled_from([1, 3]),
    places=st.randoms(use_true_random=False),
)
def test_new_tokens_attend_to_known_ones_and_to_themselves(
    rows: int,
    tokens: int,
    sharing: int,
    size: int,
    known: int,
    begun: int,
    keep: int,
    parts: int,
    places: Any,
) -> None:
    """Sequences differ in cached and new tokens, and some have segments that do not attend to each other."""
    made, dtype, K, keep = tiles(), torch.bfloat16, 2, min(keep, tokens)
    lengths = [tokens, *[places.randint(1, tokens) for _ in range(rows - 1)]]
    knows = [known, *[places.randint(0, known) for _ in range(rows - 1)]]
    mask = AttentionMask(
        knows, [[max(0, parts - 1 - t) for t in reversed(range(length))] for length in lengths]
    )
    present = mask.present(tokens)
    heads, rotation = (
        drawn(dtype, rows, tokens, K * (sharing + 2), size),
        angles(dtype, rows, tokens, size // 2),
    )
    begins = drawn(dtype, 2, 1, K, begun, size, seed=2)
    written = drawn(dtype, 2, rows, K, known + tokens, size, seed=3)
    plain = written.clone()
    query = made.apply_rotary(heads, rotation, plain[0], plain[1], known)
    far = attend_prefix(query, (begins[0], begins[1]), 0.1) if begun else None
    additive = mask.additive(torch.device("cpu"), dtype)
    wanted = attend(query, plain[0], plain[1], additive, 0.1, far)[:, tokens - keep :]
    # What is not known, and where padding would be, may hold anything.
    written[:, :, :, known:] = float("nan")
    for row, count in enumerate(knows):
        written[:, row, :, : known - count] = float("nan")
    own = made.attend_prefill(
        heads[present],
        (rotation[0][present], rotation[1][present]),
        written[0],
        written[1],
        mask,
        made.pack(begins[0], begins[1]) if begun else None,
        0.1,
        keep,
    )
    assert close(own, wanted[present[:, tokens - keep :]], dtype)
    assert torch.equal(
        written.transpose(2, 3)[:, :, known:][:, present], plain.transpose(2, 3)[:, :, known:][:, present]
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 5, 23]),
    sharing=st.integers(1, 4),
    size=st.sampled_from([64, 128]),
    begun=st.sampled_from([0, 1, 40, 300]),
    columns=st.sampled_from([16, 17, 50]),
    places=st.randoms(use_true_random=False),
)
def test_attention_of_a_decode_step_is_all_its_parts_at_once(
    rows: int, sharing: int, size: int, begun: int, columns: int, places: Any
) -> None:
    made, dtype, K = tiles(), torch.bfloat16, 2
    heads = drawn(dtype, rows, K * (sharing + 2), size)
    rotation = angles(dtype, rows, size // 2)
    written = drawn(dtype, 2, rows, K, columns, size, seed=2)
    at = places.randrange(columns)
    known = torch.tensor([places.randrange(at + 1) for _ in range(rows)])
    begins = drawn(dtype, 2, 1, K, begun, size, seed=3)
    by_parts = written.clone()
    in_columns = heads[:, None], (rotation[0][:, None], rotation[1][:, None])
    query = made.apply_rotary(*in_columns, by_parts[0], by_parts[1], at)
    far = attend_prefix(query, (begins[0], begins[1]), 0.1) if begun else None
    wanted = made.attend_suffix(query, by_parts[0], by_parts[1], known, at, far, 0.1)[:, 0]
    packed = made.pack(begins[0], begins[1]) if begun else None
    assert made.can_attend_decode(heads, written[0])
    assert close(
        made.attend_decode(heads, rotation, written[0], written[1], known, at, packed, 0.1), wanted, dtype
    )
    assert torch.equal(written, by_parts)


def in_blocks(weight: torch.Tensor) -> torch.Tensor:
    """Pack a weight in the blocks that ``product`` reads, which are oneDNN's where it multiplies tiles too."""
    F, E = weight.shape
    return weight.view(F // 32, 32, E // 32, 16, 2).permute(0, 2, 3, 1, 4).contiguous()


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 70, 300, 3000])
@pytest.mark.parametrize(("numbers", "features"), [(32, 64), (576, 96), (96, 1056)])
def test_products_are_those_of_torch(rows: int, numbers: int, features: int) -> None:
    made, dtype = tiles(), torch.bfloat16
    x, other, bias = (drawn(dtype, *shape) for shape in ((rows, numbers), (rows, features), (features,)))
    weight, gate = (drawn(dtype, 2, features, numbers, seed=1) / numbers**0.5).unbind()
    laid = in_blocks(weight), in_blocks(gate)
    blocks, gates = (of_one.data_ptr() for of_one in laid)
    exact = x.float() @ weight.float().T
    assert close(made.product(x, blocks, features), exact, dtype)
    assert close(made.product(x, blocks, features, bias, other), exact + bias.float() + other.float(), dtype)
    gated = exact * torch.nn.functional.silu(x.float() @ gate.float().T)
    assert close(made.product(x, blocks, features, gate=gates), gated, dtype)


@pytest.mark.parametrize("rows", [1, 33, 300])
def test_rows_are_normed_before_they_are_multiplied(rows: int) -> None:
    made, dtype = tiles(), torch.bfloat16
    weight, x, norm = (drawn(dtype, *shape) for shape in ((96, 576), (rows, 576), (576,)))
    blocks = in_blocks(weight)
    module = LlamaRMSNorm(576, eps=1e-5).to(dtype)
    module.weight.data = norm
    with torch.inference_mode():
        exact = module(x * 3).float() @ weight.float().T
    assert close(made.product(x * 3, blocks.data_ptr(), 96, norm=(norm, 1e-5)), exact, dtype)


def onednn_tiles() -> Kernels:
    made = tiles()
    if LIMITED & os.environ.keys() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN was told to use fewer instructions than the processor has")
    return made


def test_weights_that_onednn_lays_out_in_tiles_are_found_where_they_lie() -> None:
    made, weight = onednn_tiles(), drawn(torch.bfloat16, 96, 64)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    assert made.blocks_of(weight, packed) == torch.ops.mkldnn.data_ptr(packed)


def test_weights_that_lie_otherwise_are_left_to_onednn() -> None:
    made = onednn_tiles()
    for features, numbers in ((40, 64), (64, 40)):
        weight = drawn(torch.bfloat16, features, numbers)
        assert made.blocks_of(weight, torch.ops.mkldnn._reorder_linear_weight(weight)) is None
    weight, another = drawn(torch.bfloat16, 2, 64, 64)
    assert made.blocks_of(weight, torch.ops.mkldnn._reorder_linear_weight(another)) is None


def test_products_refuse_numbers_that_do_not_lie_one_behind_the_other() -> None:
    made, weight = tiles(), drawn(torch.bfloat16, 32, 32)
    blocks = in_blocks(weight)
    apart = drawn(torch.bfloat16, 8, 32)[::2]
    with pytest.raises(AssertionError):
        made.product(apart, blocks.data_ptr(), 32)
    with pytest.raises(AssertionError):
        made.product(apart.contiguous(), blocks.data_ptr(), 32, other_NF=apart)


def test_gates_far_from_zero_leave_numbers() -> None:
    made = tiles()
    weight = torch.eye(32, dtype=torch.bfloat16)
    blocks = in_blocks(weight)
    x = torch.linspace(-3e4, 3e4, 32, dtype=torch.bfloat16)[None]
    gated = made.product(x, blocks.data_ptr(), 32, gate=blocks.data_ptr())
    assert torch.allclose(gated, x * torch.nn.functional.silu(x), atol=1e-20)


def test_products_of_tiles_leave_those_of_torch_as_they_were() -> None:
    """oneDNN remembers how it set the processor's tiles up."""
    made = tiles()
    x, weight = drawn(torch.bfloat16, 70, 96), drawn(torch.bfloat16, 80, 96, seed=1)
    before = torch.nn.functional.linear(x, weight)
    made.product(x, in_blocks(drawn(torch.bfloat16, 64, 96)).data_ptr(), 64)
    assert torch.equal(torch.nn.functional.linear(x, weight), before)


@pytest.mark.parametrize("huge", [1e4, -1e4])
def test_scores_of_any_size_leave_numbers(huge: float) -> None:
    for dtype in TYPES:
        made = compiled(dtype)
        query = torch.full((1, 1, 1, 1, 32), huge, dtype=dtype)
        keys = drawn(dtype, 2, 1, 1, 20, 32)
        out = made.attend_suffix(query, *keys, torch.tensor([19]), 19, None, 1.0)
        assert out.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from(TYPES),
    size=st.sampled_from([1, 2, 511, 512, 513, 3000]),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    uniform=st.floats(0, 1, exclude_max=True, width=32),
    impossible=st.integers(0, 2),
)
def test_a_draw_is_where_the_probabilities_pass_it(
    dtype: torch.dtype, size: int, temperature: float, uniform: float, impossible: int
) -> None:
    logits = drawn(dtype, 2, size) * 4
    logits[:, : min(impossible, size - 1)] = float("-inf")
    tokens = compiled(dtype).sample(logits, torch.tensor([uniform, uniform]), temperature)
    up_to = (logits.double() / temperature).softmax(-1).cumsum(-1)
    for row, token in zip(up_to, tokens.tolist(), strict=True):
        assert row[token] >= uniform - 2e-5 and row[token] > 0
        assert token == 0 or row[token - 1] <= uniform + 2e-5


# -- where it cannot be compiled


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    build._loaded.cache_clear()
    yield tmp_path / f"kernels-{os.getuid()}"
    build._loaded.cache_clear()


def test_it_is_compiled_once_and_found_again(anew: Path) -> None:
    compiled(torch.float32)
    (library,) = anew.iterdir()
    written = library.stat().st_mtime_ns
    build._loaded.cache_clear()
    assert load_kernels(torch.float32) is not None
    assert [f.stat().st_mtime_ns for f in anew.iterdir()] == [written]


@pytest.mark.skipif(not X86, reason="gcc knows other names of other processors")
def test_processors_that_share_a_home_each_have_a_library(
    anew: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compiled(torch.float32)
    before = set(anew.iterdir())
    monkeypatch.setenv("PATH", path_for("core2", tmp_path_factory.mktemp("bin")))
    build._loaded.cache_clear()
    weight, x = drawn(torch.float32, 32, seed=1), drawn(torch.float32, 5, 32)
    older = load_kernels(torch.float32)
    assert older and close(
        older.rms_norm(x, weight, 1e-5), torch.rms_norm(x, [32], weight, 1e-5), torch.float32
    )
    assert before < set(anew.iterdir())


def test_without_a_compiler_there_is_none(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert load_kernels(torch.bfloat16) is None


def test_the_variable_turns_kernels_or_tiles_off(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(torch.bfloat16)
    monkeypatch.setenv(build.VARIABLE, "no-tiles")
    without = load_kernels(torch.bfloat16)
    assert without and not without.has_tiles
    x, weight = drawn(torch.bfloat16, 5, 64), drawn(torch.bfloat16, 64, seed=1)
    monkeypatch.setenv(build.VARIABLE, "all")
    assert torch.equal(without.rms_norm(x, weight, 1e-5), compiled(torch.bfloat16).rms_norm(x, weight, 1e-5))
    monkeypatch.setenv(build.VARIABLE, "none")
    assert load_kernels(torch.bfloat16) is None
    monkeypatch.setenv(build.VARIABLE, "fast")
    with pytest.raises(InputError, match=r"CAI_KERNELS=fast is unknown\. Set it to one of all, no-tiles, none"):
        load_kernels(torch.bfloat16)


def test_a_library_of_somebody_else_is_not_loaded(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(torch.float32)
    build._loaded.cache_clear()
    (library,) = anew.iterdir()
    if os.getuid() == 0:
        os.chown(library, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert load_kernels(torch.float32) is None


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_no_library_is_loaded_from_a_folder_in_which_others_can_write(anew: Path, mode: int) -> None:
    compiled(torch.float32)
    build._loaded.cache_clear()
    assert anew.stat().st_mode & 0o777 == 0o700
    anew.chmod(mode)
    assert load_kernels(torch.float32) is None


def test_a_compiler_that_fails_is_none(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "COMPILE", ["--no-such-flag"])
    assert load_kernels(torch.bfloat16) is None
    assert list(anew.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_a_thread_that_has_computed_leaves_no_threads_behind() -> None:
    code = """
import os, threading, time
import torch
from constitutional_ai.engine.cpu.threads import all_threads

def count():
    return len(os.listdir("/proc/self/task"))

def compute():
    with all_threads():
        torch.ones(10**7).exp()
        within.append(count())

torch.set_num_threads(2)
before, within = count(), []
for _ in range(3):
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
until = time.monotonic() + 30
while count() > before and time.monotonic() < until:
    time.sleep(0.01)  # a thread that was told to end takes a moment
print(before, max(within), count())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, within, after = map(int, said.stdout.split())
    assert within == before + 2  # the thread itself, and the one that helps it
    assert after == before
