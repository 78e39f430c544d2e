"""The server of ``local_server.py``, running, with a key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from constitutional_ai.models.hosted import addresses
from tests.models.hosted.local_server import KEY, Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CAI_API_KEY", KEY)
    monkeypatch.setattr(addresses, "RETRIES", 0)
    monkeypatch.setattr(addresses, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(addresses, "LONGEST_OVERLOAD_SECONDS", 0.5)
    with Server() as running:
        yield running
