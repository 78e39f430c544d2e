from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cai.errors import InputError, ModelError
from cai.models import engine
from cai.models.engine import PACKAGES, VARIABLE, pick, run
from cai.models.hugging_face import HuggingFaceModel


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``machine("openvino", "vllm", gpu=True, refused="…")``: what is installed, and what OpenVINO says."""

    def make(*installed: str, gpu: bool = False, refused: str | None = None, shares: bool = False) -> None:
        monkeypatch.setattr(engine, "installed", lambda name: name in (*installed, "transformers"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(engine, "_openvino_refuses", lambda weights: refused)
        monkeypatch.setattr(engine, "_shares", lambda weights: shares)

    return make


@pytest.mark.parametrize(
    ("installed", "gpu", "refused", "picked"),
    [
        ((), False, None, "transformers"),
        ((), True, None, "transformers"),
        (("openvino",), False, None, "openvino"),
        (("openvino",), True, None, "transformers"),
        (("openvino",), False, "it has an encoder", "transformers"),
        (("vllm",), True, None, "vllm"),
        (("vllm",), False, None, "vllm"),
        (("openvino", "vllm"), False, None, "vllm"),
        (("openvino", "vllm"), True, None, "vllm"),
    ],
)
def test_the_fastest_engine_of_this_machine_is_picked_and_named(
    machine: Callable[..., None], installed: tuple[str, ...], gpu: bool, refused: str | None, picked: str
) -> None:
    machine(*installed, gpu=gpu, refused=refused)
    said: list[str] = []
    assert pick(None, "weights", name="hf:weights", say=said.append) == picked
    (line,) = said
    assert line.startswith(f"hf:weights: {picked} answers (")
    assert refused is None or refused in line


def test_an_architecture_that_shares_beginnings_is_told_by_its_configuration(
    tiny: Path, tmp_path: Path
) -> None:
    assert engine._shares(tiny)
    assert not engine._shares(tmp_path)
    for other in ('"gpt2"', '"mistral", "sliding_window": 16'):
        (tmp_path / "config.json").write_text(f'{{"model_type": {other}}}')
        assert not engine._shares(tmp_path)


def test_what_is_asked_for_goes_before_the_variable_and_that_before_the_fastest(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("openvino", "vllm")
    monkeypatch.setenv(VARIABLE, "vllm")
    assert pick(None, "weights") == "vllm"
    assert pick("transformers", "weights") == "transformers"
    monkeypatch.setenv(VARIABLE, "")
    machine("openvino")
    assert pick(None, "weights") == "openvino"
    machine("openvino", "vllm", shares=True)
    assert pick(None, "weights") == "transformers"
    machine("vllm", gpu=True, shares=True)
    assert pick(None, "weights") == "vllm"


def test_without_anyone_to_tell_the_log_is_told(
    machine: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    machine()
    with caplog.at_level(logging.INFO, "cai.models.engine"):
        pick(None, "weights")
    assert "transformers answers" in caplog.text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("openvinno", "unknown engine 'openvinno'. Did you mean 'openvino'?"),
        ("vllm", r"the engine 'vllm' is not installed. Type: pip install 'constitutional-ai\[vllm\]'"),
    ],
)
def test_an_engine_that_is_not_there_is_refused(machine: Callable[..., None], asked: str, said: str) -> None:
    machine()
    with pytest.raises(InputError, match=said):
        pick(asked, "weights")


def test_installed_means_that_its_package_can_be_found() -> None:
    assert engine.installed("transformers")
    for name, package in PACKAGES.items():
        assert engine.installed(name) == (importlib.util.find_spec(package) is not None)


# -- run: OpenVINO may find out only on export that it cannot run a model


@pytest.fixture
def failing_openvino(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, weights: Any) -> None:
        raise ModelError("comes out as another model.")

    module = ModuleType("cai.models.openvino")
    module.OpenVinoModel = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cai.models.openvino", module)
    machine("openvino")


@pytest.mark.usefixtures("failing_openvino")
def test_where_nobody_asked_for_openvino_transformers_takes_its_place(tiny: Path) -> None:
    said: list[str] = []
    assert isinstance(run("hf:tiny", tiny, say=said.append), HuggingFaceModel)
    assert said[1:] == ["hf:tiny: transformers answers after all. comes out as another model."]


@pytest.mark.usefixtures("failing_openvino")
def test_where_it_was_asked_for_it_says_so(tiny: Path) -> None:
    with pytest.raises(ModelError, match="another model"):
        run("hf:tiny", tiny, engine="openvino")
