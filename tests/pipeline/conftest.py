"""One finished run of the whole method on a tiny random model, for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from constitutional_ai.runs.run import Run
from tests.pipeline.tiny_run import make, settings


@pytest.fixture(scope="session")
def model(make_tiny: Callable[..., Path]) -> str:
    made = make_tiny(max_position_embeddings=4096)  # a token is a byte or so: questions are long
    # The preference model is of another family: other tokens, and no chat template of its own.
    make_tiny(chat=False, vocabulary=270, max_position_embeddings=4096).rename(f"{made}-pm")
    return f"hf:{made}"


@pytest.fixture(scope="session")
def finished(model: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All eight stages, once. Tests that change the run take a ``copied`` one."""
    return make(settings(model, tmp_path_factory.mktemp("runs") / "run"))[0]


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Path:
    return shutil.copytree(finished.folder, tmp_path / "run")
