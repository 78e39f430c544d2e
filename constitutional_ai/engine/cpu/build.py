"""Compiles the kernels in ``kernels_c`` on the machine that runs them, once, and loads them.

That needs Linux, and gcc, whose OpenMP shares torch's threads; elsewhere torch computes all.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from constitutional_ai import machine
from constitutional_ai.engine.cpu.kernels import Kernels
from constitutional_ai.errors import InputError

LOG = logging.getLogger(__name__)
SOURCES = Path(__file__).parent / "kernels_c"
COMPILE = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-fPIC", "-c"]
# A link with -ffast-math would make the whole process take the smallest numbers for 0.
LINK = ["-shared", "-fopenmp", "-lm"]
NUMBERS = {torch.bfloat16: [], torch.float32: ["-DFLOAT32"]}
"""Flags for each number type."""
VARIABLE = "CAI_KERNELS"
CHOICES = {"all": [], "no-tiles": ["-DNO_TILES"], "none": None}
"""Flags for each value of the variable."""


def load_kernels(dtype: torch.dtype) -> Kernels | None:
    """Return the kernels for ``dtype``; None where gcc is missing or fails, or ``CAI_KERNELS=none``.

    Raises InputError for a value of ``CAI_KERNELS`` that is unknown.
    """
    choice = os.environ.get(VARIABLE) or "all"
    if choice not in CHOICES:
        raise InputError(f"{VARIABLE}={choice} is unknown. Set it to one of {', '.join(CHOICES)}.")
    return _loaded(dtype, choice)


@cache
def _loaded(dtype: torch.dtype, choice: str) -> Kernels | None:
    flags = CHOICES[choice]
    if flags is None or dtype not in NUMBERS or sys.platform != "linux":  # where it was tested
        return None
    compiler = shutil.which("gcc")
    if compiler is None:
        LOG.info("gcc is not installed: with it, models answer faster on this processor.")
        return None
    try:
        return Kernels(ctypes.CDLL(str(build_library(compiler, [*NUMBERS[dtype], *flags]))))
    except (OSError, subprocess.SubprocessError) as error:
        LOG.info("The kernels in %s are not used, and models answer more slowly: %s", SOURCES, error)
        return None


def build_library(compiler: str, flags: list[str]) -> Path:
    """Return the compiled library; it is built once for each source, compiler and processor.

    The processor counts because several machines may share a home. Raises OSError or SubprocessError.
    """
    known = [_output([compiler, "-march=native", "-Q", "--help=target"]), _output([compiler, "--version"])]
    sources = [file.read_text("utf-8") for file in sorted(SOURCES.glob("*.[ch]"))]
    digest = hashlib.sha256("\0".join([*sources, *known, *COMPILE, *LINK, *flags]).encode())
    path = (
        machine.own_folder(machine.cache_folder() / f"kernels-{os.getuid()}") / f"{digest.hexdigest()[:16]}.so"
    )
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _output([compiler, *COMPILE, *flags, *map(str, SOURCES.glob("*.c"))], folder)
            _output([compiler, *map(str, Path(folder).glob("*.o")), *LINK, "-o", "kernels.so"], folder)
            (Path(folder) / "kernels.so").replace(path)  # whole or not at all
    if path.lstat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to somebody else")
    return path


def _output(command: list[str], folder: str | None = None) -> str:
    return subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, timeout=600, cwd=folder
    ).stdout
