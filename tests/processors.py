"""Runs tests as other processors would: ``python tests/processors.py [what pytest is given]``, all tests unless said.

Instructions of this processor are taken away: torch's own (ATEN_CPU_CAPABILITY), oneDNN's, OpenBLAS's, and those that
gcc compiles our kernels for. All settings have one thread, as tests/conftest.py says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
SETTINGS: dict[str, tuple[dict[str, str], str | None]] = {
    "all that there is": ({}, "native"),
    "without gcc": ({}, None),
    "oneDNN up to AVX-512 with bfloat16": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "native"),
    "oneDNN up to AVX-512": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "native"),
    "torch and oneDNN up to AVX2": (AVX2, "native"),
    "all up to AVX2": ({**AVX2, "OPENBLAS_CORETYPE": "Haswell"}, "x86-64-v3"),
    "all up to SSE4": ({**SSE, "OPENBLAS_CORETYPE": "Nehalem"}, "x86-64-v2"),
}
"""What is set, and the processor that gcc compiles for: None where there is no gcc."""
COMPILERS = ("gcc", "cc", "c++", "g++", "clang")
GCC = """#!/bin/sh
for each do
    shift
    [ "$each" = -march=native ] && each=-march={processor}
    set -- "$@" "$each"
done
exec {gcc} "$@"
"""


def path_for(processor: str | None, folder: Path) -> str:
    """A PATH whose gcc compiles for ``processor``, of which the kernels' cache then knows; without any where None."""
    path = os.environ["PATH"]
    if processor is None:
        for program in (
            file for place in path.split(":") if Path(place).is_dir() for file in Path(place).iterdir()
        ):
            link = folder / program.name
            if program.name not in COMPILERS and not link.is_symlink():
                link.symlink_to(program)
        return str(folder)
    gcc = shutil.which("gcc")
    if processor == "native" or gcc is None:
        return path
    (folder / "gcc").write_text(GCC.format(processor=processor, gcc=gcc))
    (folder / "gcc").chmod(0o755)
    return f"{folder}:{path}"


def main(tests: list[str]) -> int:
    summary, failed = [], False
    for name, (environment, processor) in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, **environment, "PATH": path_for(processor, Path(folder))}
            print(f"\n== {name}", flush=True)
            began = time.monotonic()
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
            code = subprocess.run(command, env=env).returncode
        failed |= code != 0
        summary.append(f"{'FAILED' if code else 'passed'}  {time.monotonic() - began:5.0f} s  {name}")
    print("\n" + "\n".join(summary))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
