from __future__ import annotations

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from constitutional_ai.errors import ModelError
from constitutional_ai.models.load import load_model, reachable_path
from constitutional_ai.models.local import hub


@pytest.fixture
def deserted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that nothing listens at, and no proxy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)


@pytest.mark.usefixtures("deserted")
def test_without_a_network_a_hub_id_fails_at_once_and_says_what_to_write() -> None:
    with pytest.raises(ModelError) as caught:
        load_model("hf:some/model")
    assert str(caught.value) == (
        "cannot load 'hf:some/model': it is no folder here, and 127.0.0.1 does not answer. Write hf: and the path of a "
        "model's folder."
    )


@pytest.mark.usefixtures("deserted")
def test_a_model_that_is_here_is_used_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "config.json"))
    assert reachable_path("hf:some/model") == "some/model"
    assert constants.HF_HUB_OFFLINE


def test_a_hub_that_may_not_be_asked_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        reachable_path("hf:some/model")


def test_a_hub_that_listens_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert reachable_path("hf:some/model") == "some/model"
    assert not constants.HF_HUB_OFFLINE
