"""How long a thread spins for another is said before libgomp is loaded, which reads it once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAID = "import constitutional_ai, os, sys; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("set_by_the_user", "said"),
    [({}, "16000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_a_thread_soon_sleeps_unless_the_user_says_otherwise(
    set_by_the_user: dict[str, str], said: str
) -> None:
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ran = subprocess.run(
        [sys.executable, "-c", SAID],
        env={**others, **set_by_the_user},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == said
