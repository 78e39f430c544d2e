"""The place of the paper's own files. They have no licence: tests read them, and nothing of them is copied here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(__file__).parent.parent.parent / "shared" / "data" / "paper"
PAPER = Path(os.environ.get("CAI_PAPER_DIR", BESIDE))


HHH = {"438HHHEvaluations.jsonl": (438, 188), "HHHEvaluations-public.jsonl": (221, 102)}
"""Numbers of questions and of contexts by name: in the paper's repository, and of the older questions apart."""
HHH_FILES = sorted(path for name in HHH for path in PAPER.rglob(name))


def paper(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that reads them, and skips it where they are absent."""
    absent = pytest.mark.skipif(not PAPER.is_dir(), reason=f"the paper's files are not in {PAPER}")
    return pytest.mark.paper(absent(test))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
