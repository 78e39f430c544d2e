"""Facts about this machine: its processor, device, fastest dtype, memory, cache folder, and the mode of its files.

Only the functions that need torch import it, so that light commands can import this module.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from constitutional_ai.errors import InputError

if TYPE_CHECKING:
    import torch

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
"""Linux's names of the instruction sets that decide which engine is fast."""


def processor() -> tuple[str, list[str]]:
    """Return the processor's name, and which of ``INSTRUCTIONS`` it has; none where the system is not Linux."""
    text = CPUINFO.read_text("utf-8") if CPUINFO.exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    flags = facts.get("flags", "").split()
    return facts.get("model name") or platform.processor(), [name for name in INSTRUCTIONS if name in flags]


def device() -> torch.device:
    """Return the first GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_dtype() -> torch.dtype:
    """Return bfloat16 if the hardware supports it natively, else float16 on a GPU and float32 on a CPU.

    Emulated bfloat16 is slower than float32.
    """
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions that multiply bfloat16.

    oneDNN also says yes on AVX-512 without them, where it multiplies in float32 after converting.
    """
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return platform.machine() not in {"x86_64", "AMD64"} or torch.cpu._is_avx512_bf16_supported()


def physical_memory() -> float:
    """Return this machine's memory in bytes; infinity if the system does not report it (Windows)."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cache_folder() -> Path:
    """Return ``CAI_CACHE``, or ``cai`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CAI_CACHE") or Path(base) / "cai")


def own_folder(folder: Path) -> Path:
    """Return a folder for code that this program will run: the user's own, in which nobody else can write.

    It is created if it is missing. Raises PermissionError if it belongs to, or can be written by, anybody else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder in which you alone can write")
    return folder


def refuse_open_folder(folder: Path) -> None:
    """Raise InputError if anybody may write in a folder, and so exchange the models in it."""
    if folder.stat().st_mode & 0o002:
        raise InputError(f"anybody may write in {folder}, which holds models. Type: chmod o-w {folder}")


def follow_umask(folder: Path) -> None:
    """Give a folder and its files the modes that the umask allows: safetensors lets only their owner read its own."""
    umask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def release_memory() -> None:
    """Give the memory that is no longer used back to the system.

    Left alone, glibc keeps what was freed (``engine/cpu/process.py``), and the pieces seldom fit the next stage.
    """
    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # other C libraries than glibc have no such function
            ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory() -> None:
    """Let ``peak_memory`` count from now on, without what is no longer used."""
    import torch

    release_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        with suppress(OSError):  # where it may not be written, the peak stays that of the whole process
            CLEAR.write_text("5")


def peak_memory() -> float | None:
    """Return the most bytes that this process has held since ``forget_peak_memory``: of the GPU, if there is one.

    On a CPU that is the memory of the whole process, libraries included. None where the system is not Linux.
    """
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    text = STATUS.read_text("utf-8") if STATUS.exists() else ""
    lines = [line.split() for line in text.splitlines() if line.startswith("VmHWM:")]
    return 1024.0 * int(lines[0][1]) if lines else None
