"""An engine that was measured on this machine is picked, and only as long as the measurement fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from constitutional_ai import machine
from constitutional_ai.cli import main
from constitutional_ai.errors import CaiError, ModelError
from constitutional_ai.models.local import choose, engine_rates, measure_engines
from constitutional_ai.models.local.choose import PACKAGES, load_weights, pick
from constitutional_ai.models.local.engine_rates import Measurement, describe_machine, keep
from constitutional_ai.models.model import Model

RATES = {
    "transformers": {"chats": 10.0, "feedback": 10.0},
    "native": {"chats": 20.0, "feedback": 80.0},  # mean 40
    "openvino": {"chats": 90.0},  # mean 30: transformers scores for it
}


@pytest.fixture(autouse=True)
def openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO is installed and runs all models; vLLM is not installed."""
    monkeypatch.delenv(choose.VARIABLE, raising=False)
    monkeypatch.setattr(choose, "installed", lambda name: PACKAGES[name] != "vllm")
    monkeypatch.setattr(choose, "_openvino_refuses", lambda weights: None)
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)


def measured(**changes: object) -> Measurement:
    kept = Measurement(describe_machine(), True, "hf:tiny", date(2026, 12, 1), RATES)
    return replace(kept, **changes)  # type: ignore[arg-type]


def picked(weights: Path) -> tuple[str, str]:
    lines: list[str] = []
    return pick(None, weights, name="hf:tiny", say=lines.append), lines[0]


DEFAULT = (
    "native (the default for such a model on a CPU, measured on another machine. Here: cai doctor --engines)"
)


def test_the_highest_mean_is_picked_with_its_figures(tiny: Path) -> None:
    assert picked(tiny) == ("native", f"hf:tiny runs on engine {DEFAULT}.")
    keep(measured())
    reason = "measured here on 2026-12-01: 1.33 times openvino"
    assert picked(tiny) == ("native", f"hf:tiny runs on engine native ({reason}).")
    keep(measured(rates={**RATES, "openvino": {"chats": 360.0}}))  # mean 60; the same machine is measured again
    reason = "measured here on 2026-12-01: 1.50 times native"
    assert picked(tiny) == ("openvino", f"hf:tiny runs on engine openvino ({reason}).")


def test_a_measurement_holds_for_models_of_its_kind(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    keep(measured(rates={**RATES, "openvino": {"chats": 1.0}}))
    assert "measured here" not in picked(tmp_path)[1]
    keep(measured(native=False, rates={"transformers": {"chats": 3.0}, "openvino": {"chats": 1.0}}))
    assert picked(tmp_path)[0] == "transformers"
    assert picked(tiny)[0] == "native"  # its own measurement is still there


@pytest.mark.parametrize("fact", ["processor", "instructions", "cores", "dtype", "kernels", "torch"])
def test_a_measurement_of_another_machine_or_version_is_overlooked(tiny: Path, fact: str) -> None:
    keep(measured(machine={**describe_machine(), fact: "another"}, rates={**RATES, "openvino": {"chats": 1e6}}))
    assert picked(tiny) == ("native", f"hf:tiny runs on engine {DEFAULT}.")


@pytest.mark.parametrize("package", engine_rates.PACKAGES)
def test_versions_of_all_engines_count(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, version = describe_machine(), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9" if name == package else version(name))
    assert describe_machine() == {**before, package: "9"}


def test_an_engine_that_is_gone_is_not_picked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(measured(rates={**RATES, "openvino": {"chats": 1e6}}))
    assert picked(tiny)[0] == "openvino"
    monkeypatch.setattr(choose, "installed", lambda name: PACKAGES[name] == "transformers")
    assert picked(tiny) == (
        "native",
        "hf:tiny runs on engine native (measured here on 2026-12-01: 4.00 times transformers).",
    )


GOOD = {"machine": {}, "native": True, "model": "m", "day": "2026-12-01", "rates": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 10_000,
        b"\xff",
        b"[{}]",
        b'{"a": 1}',
        json.dumps([{**GOOD, "rates": {"native": {"chats": 0}}}]).encode(),
        json.dumps([{**GOOD, "rates": {"native": {"chats": float("nan")}}}]).encode(),
        json.dumps([{**GOOD, "day": "today"}]).encode(),
    ],
)
def test_a_broken_file_is_overlooked_and_replaced(
    tiny: Path, no_measured_engines: Path, content: bytes
) -> None:
    no_measured_engines.parent.mkdir()
    no_measured_engines.write_bytes(content)
    assert picked(tiny) == ("native", f"hf:tiny runs on engine {DEFAULT}.")
    keep(measured())
    assert "measured here" in picked(tiny)[1]
    assert [path.name for path in no_measured_engines.parent.iterdir()] == ["engines.json"]


def test_a_measurement_of_this_machine_without_any_rate_is_overlooked(tiny: Path) -> None:
    for rates in ({}, {"native": {"chats": 1.0}}, {"transformers": {}}):
        keep(measured(rates=rates))
        assert picked(tiny) == ("native", f"hf:tiny runs on engine {DEFAULT}.")


# -- cai doctor --engines


@pytest.fixture
def slow_openvino(make_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model; stand-ins for OpenVINO, and for the clock: rates depend on the engine alone."""
    folder = make_tiny(max_position_embeddings=16_384)
    load = load_weights

    def load_any(name: str, weights: Path, *, engine: str, say: Callable[[str], None]) -> Model:
        return load(name, weights, engine="transformers" if engine == "openvino" else engine, say=say)

    monkeypatch.setattr(measure_engines, "load_weights", load_any)
    rates = iter(range(1, 100))
    monkeypatch.setattr(measure_engines, "rate_of", lambda model, workload: float(next(rates)))
    return f"hf:{folder}"


def test_doctor_measures_prints_and_keeps(slow_openvino: str, no_measured_engines: Path) -> None:
    outcome = CliRunner().invoke(main, ["doctor", "--engines", slow_openvino], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0
    lines = outcome.output.splitlines()
    assert lines[0].startswith("Measuring native, openvino, transformers with hf:")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    # Eleven runs a round, in the order of workloads, then engines; medians are those of the second round. The
    # fourth root of 12 * 15 * 18 * 21 is 16.15, of 13 * 16 * 19 * 22 17.17, of 14 * 17 * 20 * 22 17.99.
    assert rows["native"] == ["12", "15", "18", "21", "0.90"]
    assert rows["openvino"] == ["13", "16", "19", "–", "0.95"]
    assert rows["transformers"] == ["14", "17", "20", "22", "1.00", "picked"]
    assert "runs on engine transformers (measured here on" in outcome.output
    (kept,) = json.loads(no_measured_engines.read_text())
    assert kept["native"] is True
    assert kept["rates"]["openvino"] == {"critiques": 13.0, "16 chats": 16.0, "one chat": 19.0}


def test_a_long_round_is_the_last(slow_openvino: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_engines, "SECONDS", 0)
    outcome = CliRunner().invoke(main, ["doctor", "--engines", slow_openvino], env={"COLUMNS": "200"})
    assert any(line.split()[:3] == ["transformers", "3", "6"] for line in outcome.output.splitlines())


def test_an_engine_that_fails_is_left_out_with_its_reason(
    slow_openvino: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = measure_engines.load_weights

    def load_others(name: str, weights: Path, *, engine: str, say: Callable[[str], None]) -> Model:
        if engine == "openvino":
            raise ModelError("no such export")
        return load(name, weights, engine=engine, say=say)

    monkeypatch.setattr(measure_engines, "load_weights", load_others)
    outcome = CliRunner().invoke(main, ["doctor", "--engines", slow_openvino], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0
    assert "openvino is not measured: no such export" in outcome.output


def test_every_engine_runs_every_workload(slow_openvino: str) -> None:
    model = load_weights("hf:tiny", slow_openvino.removeprefix("hf:"), engine="native")
    for workload in measure_engines.workloads("Round 1."):
        assert measure_engines.run_workload(model, workload) >= len(workload.contexts) // 8
    names = [workload.name for workload in measure_engines.workloads("")]
    assert names == ["critiques", "16 chats", "one chat", "feedback"]


def test_a_model_with_a_short_context_is_refused_in_a_sentence(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "installed", lambda name: PACKAGES[name] == "transformers")
    with pytest.raises(CaiError, match=r"cannot be measured: .* Name another model"):
        measure_engines.measure_engines("hf:tiny", tiny, lambda _: None)


def test_a_folder_that_cannot_be_written_costs_no_result(
    slow_openvino: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(engine_rates, "kept_file", lambda: tmp_path / "file" / "engines.json")
    outcome = CliRunner().invoke(main, ["doctor", "--engines", slow_openvino], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0
    assert "The result is not kept: " in outcome.output
    assert "runs on engine native (the default" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'MODEL'"),
        (["--engines", "--reference", "hf:x"], "leave out --reference"),
    ],
)
def test_doctor_refuses_what_does_not_go_together(arguments: list[str], message: str) -> None:
    outcome = CliRunner().invoke(main, ["doctor", *arguments])
    assert outcome.exit_code == 2
    assert message in outcome.output


def test_a_processor_is_told_by_its_name_and_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "processor : 0\nmodel name : Some CPU\nflags : fpu amx_tile avx2 sse\n"
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.processor() == ("Some CPU", ["avx2", "amx_tile"])
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    assert machine.processor()[1] == []
