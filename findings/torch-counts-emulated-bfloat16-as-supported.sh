#!/usr/bin/env bash
# torch 2.13.0 (CPU build, oneDNN inside). Valid input: a product of two matrices, in float32 and in bfloat16.
# Behaviour: on a processor with AVX-512 but without its bfloat16 instructions (Ice Lake, Skylake, Cascade Lake),
#   torch.ops.mkldnn._is_mkldnn_bf16_supported() is True, although oneDNN then converts to float32 and back. A product of
#   2,048 rows takes several times as long as in float32. torch.cpu._is_avx512_bf16_supported() tells the truth.
#   Whoever chooses bfloat16 "where it is supported" computes several times slower there than in float32.
# Output seen on two cores of an Ice Lake, beside other work: supported True, native False, times as long 7.9
# Fails if that changes. Elsewhere it says that it needs such a processor, and ends with 0.
set -euo pipefail
flags=$(grep -m1 '^flags' /proc/cpuinfo || true)
case " $flags " in
    *" avx512bw "*) ;;
    *) echo "needs a processor with AVX-512"; exit 0 ;;
esac
case " $flags " in
    *" avx512_bf16 "*) echo "needs a processor without AVX512_BF16"; exit 0 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import statistics
import time

import torch

supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
native = torch.cpu._is_avx512_bf16_supported()


def seconds(dtype: torch.dtype) -> float:
    x, weight = torch.rand(2048, 576).to(dtype), torch.rand(1536, 576).to(dtype)
    times = []
    for _ in range(21):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


seconds(torch.float32)
times = seconds(torch.bfloat16) / seconds(torch.float32)
print(f"torch {torch.__version__}: supported {supported}, native {native}, times as long {times:.1f}")
assert supported and not native and times > 1.5, "this has changed"
PYTHON
