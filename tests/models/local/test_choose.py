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
from transformers import AutoModelForCausalLM

from constitutional_ai import machine
from constitutional_ai.errors import InputError, ModelError
from constitutional_ai.models.local import choose
from constitutional_ai.models.local.choose import PACKAGES, VARIABLE, load_weights, pick
from constitutional_ai.models.local.exported import parameter_count
from constitutional_ai.models.local.hugging_face import HuggingFaceModel, Int8Model, TransformersModel


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def this_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``this_machine("openvino", "vllm", gpu=True, refused="…")``: what is installed, and what OpenVINO says."""

    def make(
        *installed: str,
        gpu: bool = False,
        refused: str | None = None,
        shares: bool = False,
        large: bool = False,
    ) -> None:
        monkeypatch.setattr(
            choose, "installed", lambda name: PACKAGES[name] == "transformers" or name in installed
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
        monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)
        monkeypatch.setattr(choose, "_openvino_refuses", lambda weights: refused)
        monkeypatch.setattr(choose, "runs_natively", lambda weights: shares)
        monkeypatch.setattr(choose, "_is_too_large", lambda weights: large)

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
    this_machine: Callable[..., None], installed: tuple[str, ...], gpu: bool, refused: str | None, picked: str
) -> None:
    this_machine(*installed, gpu=gpu, refused=refused)
    said: list[str] = []
    assert pick(None, "weights", name="hf:weights", say=said.append) == picked
    (line,) = said
    assert line.startswith(f"hf:weights runs on engine {picked} (")
    assert refused is None or refused in line


def test_an_architecture_that_shares_beginnings_is_told_by_its_configuration(
    tiny: Path, tmp_path: Path
) -> None:
    assert choose.runs_natively(tiny)
    assert not choose.runs_natively(tmp_path)
    for other in ('"gpt2"', '"mistral", "sliding_window": 16'):
        (tmp_path / "config.json").write_text(f'{{"model_type": {other}}}')
        assert not choose.runs_natively(tmp_path)


def test_what_is_asked_for_goes_before_the_variable_and_that_before_the_fastest(
    this_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    this_machine("openvino", "vllm")
    monkeypatch.setenv(VARIABLE, "vllm")
    assert pick(None, "weights") == "vllm"
    assert pick("transformers", "weights") == "transformers"
    monkeypatch.setenv(VARIABLE, "")
    this_machine("openvino")
    assert pick(None, "weights") == "openvino"
    this_machine("openvino", "vllm", shares=True)
    assert pick(None, "weights") == "native"
    this_machine("vllm", gpu=True, shares=True)
    assert pick(None, "weights") == "vllm"


def test_what_memory_holds_only_in_8_bits_is_kept_so(this_machine: Callable[..., None]) -> None:
    said: list[str] = []
    this_machine(shares=True, large=True)
    assert pick(None, "weights", say=said.append) == "native-int8"
    assert "only in 8 bits" in said[0]
    assert pick("transformers", "weights") == "transformers"
    this_machine(gpu=True, shares=True, large=True)
    assert pick(None, "weights") == "native"


@pytest.mark.parametrize(
    ("bytes_each", "memory", "kernels", "large"),
    [(2, 2.4, True, True), (2, 2.6, True, False), (4, 2.6, True, True), (2, 2.4, False, False)],
)
def test_too_large_is_more_than_four_fifths_of_memory(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, bytes_each: int, memory: float, kernels: bool, large: bool
) -> None:
    count = parameter_count(tiny)
    assert count == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny).parameters())
    monkeypatch.setattr(machine, "physical_memory", lambda: memory * count)
    monkeypatch.setattr(machine, "best_dtype", lambda: {2: torch.bfloat16, 4: torch.float32}[bytes_each])
    monkeypatch.setattr(choose, "int8_dtype", lambda: kernels or None)
    assert choose._is_too_large(tiny) == large


def test_of_weights_that_are_not_there_nothing_is_said_to_be_too_large(tmp_path: Path) -> None:
    assert not choose._is_too_large(tmp_path / "none")


def test_without_anyone_to_tell_the_log_is_told(
    this_machine: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    this_machine()
    with caplog.at_level(logging.INFO, "constitutional_ai.models.local.choose"):
        pick(None, "weights")
    assert "runs on engine transformers" in caplog.text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("openvinno", "unknown engine 'openvinno'. Did you mean 'openvino'?"),
        (
            "openvino-int8",
            r"is not installed. Type: pip install 'constitutional-ai\[openvino\]', or in a clone",
        ),
        (
            "vllm",
            r"'vllm' cannot run: the package 'vllm' is not installed. Type: pip install 'constitutional-ai\[vllm\]'",
        ),
    ],
)
def test_an_engine_that_is_not_there_is_refused(
    this_machine: Callable[..., None], asked: str, said: str
) -> None:
    this_machine()
    with pytest.raises(InputError, match=said):
        pick(asked, "weights")


def test_native_refuses_a_model_of_another_architecture(tiny: Path, tmp_path: Path) -> None:
    assert pick("native", tiny) == "native"
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match=r"runs no model of type 'gpt2' .* Set engine=transformers"):
        pick("native", tmp_path)


def test_installed_means_that_its_package_can_be_found() -> None:
    assert choose.installed("transformers")
    for name, package in PACKAGES.items():
        assert choose.installed(name) == (importlib.util.find_spec(package) is not None)


# -- run: OpenVINO may find out only on export that it cannot run a model


@pytest.fixture
def failing_openvino(this_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, weights: Any) -> None:
        raise ModelError("comes out as another model.")

    module = ModuleType("constitutional_ai.models.local.openvino.openvino_model")
    module.OpenVinoModel = module.Int8OpenVinoModel = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "constitutional_ai.models.local.openvino.openvino_model", module)
    this_machine("openvino")


@pytest.mark.usefixtures("failing_openvino")
def test_where_nobody_asked_for_openvino_transformers_takes_its_place(tiny: Path) -> None:
    said: list[str] = []
    assert isinstance(load_weights("hf:tiny", tiny, say=said.append), TransformersModel)
    assert said[1:] == ["hf:tiny runs on engine transformers after all. comes out as another model."]


@pytest.mark.usefixtures("failing_openvino")
def test_where_openvino_was_measured_as_the_fastest_native_takes_its_place(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "pick", lambda *_, **__: "openvino")
    monkeypatch.setattr(choose, "runs_natively", lambda weights: True)
    said: list[str] = []
    assert type(load_weights("hf:tiny", tiny, say=said.append)) is HuggingFaceModel
    assert said == ["hf:tiny runs on engine native after all. comes out as another model."]


@pytest.mark.usefixtures("needs_int8")
def test_each_engine_has_a_class_of_its_own(tiny: Path) -> None:
    for name in ("native-int8", "transformers-int8"):  # the latter in recipes of older runs
        assert type(load_weights("hf:tiny", tiny, engine=name)) is Int8Model
    assert type(load_weights("hf:tiny", tiny, engine="native")) is HuggingFaceModel
    assert type(load_weights("hf:tiny", tiny, engine="transformers")) is TransformersModel


@pytest.mark.usefixtures("failing_openvino")
def test_where_it_was_asked_for_it_says_so(tiny: Path) -> None:
    with pytest.raises(ModelError, match="another model"):
        load_weights("hf:tiny", tiny, engine="openvino")
