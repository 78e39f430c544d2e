#!/bin/sh
# OpenVINO 2026.4.1 on a CPU with AVX512_BF16, and ONEDNN_MAX_CPU_ISA=AVX2 in the environment (as people set it to
# reproduce another machine's numbers, or to test a lesser processor).
#
# Expected: the CPU plugin, which computes with oneDNN, reports no BF16, or computes in float32.
# Seen: OPTIMIZATION_CAPABILITIES still lists BF16, the default precision is bfloat16, compile_model succeeds, and the
# first inference of a single matrix product raises RuntimeError ("could not create a primitive descriptor"). With the
# property INFERENCE_PRECISION_HINT=f32 it works. So a program must set the precision itself where the limit is set.
#
# Prints what it sees; exits 1 when the behaviour has changed, 0 when it is as described or the CPU has no AVX512_BF16.
set -eu
grep -q avx512_bf16 /proc/cpuinfo 2>/dev/null || { echo "skipped: this CPU has no AVX512_BF16"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset13 as op

core = ov.Core()
capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
print("OpenVINO", ov.__version__, "capabilities", capabilities)
x = op.parameter([-1, 64], np.float32)
product = op.matmul(x, op.constant(np.ones((64, 64), np.float32)), False, True)


def ran(properties: dict[str, str]) -> str:
    compiled = core.compile_model(ov.Model([product], [x], "product"), "CPU", properties)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    try:
        compiled.create_infer_request().infer({0: np.ones((3, 64), np.float32)})
    except RuntimeError as error:
        return f"{precision}: raises, {'primitive descriptor' in str(error) and 'no primitive descriptor' or error}"
    return f"{precision}: works"


seen = {"default": ran({}), "f32": ran({"INFERENCE_PRECISION_HINT": "f32"})}
print(seen)
as_described = {"default": "bf16: raises, no primitive descriptor", "f32": "f32: works"}
raise SystemExit(0 if "BF16" in capabilities and seen == as_described else 1)
PYTHON
ONEDNN_MAX_CPU_ISA=AVX2 "$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
