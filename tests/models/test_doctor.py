"""``cai doctor`` tells a sound model from one whose scores are those of first tokens, or shifted."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from constitutional_ai import machine
from constitutional_ai.cli import main
from constitutional_ai.errors import RecordError
from constitutional_ai.models import doctor
from constitutional_ai.models.doctor import Check, examine
from constitutional_ai.models.doctor_thinking import describe_thinking
from constitutional_ai.models.load import load_model
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion

SAMPLING = ("a seed fixes the answer", "different seeds give different answers")


def outcomes(name: str) -> dict[str, str]:
    return {check.name: check.outcome for check in examine(name)}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float64 moves no draw, though the second answer to a question is computed from what is known of the first."""
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float64)


@pytest.fixture
def wrapped(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model whose scores lack all tokens after the first."""
    inner = load_model(f"hf:{tiny}")

    class FirstTokenOnly:
        name, format = inner.name, inner.format
        generate = inner.generate

        async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
            return await inner.score(context, [c[:2] for c in continuations])

    monkeypatch.setattr(doctor, "load_model", lambda name: FirstTokenOnly())
    return f"hf:{tiny}"


def test_a_sound_model_passes_every_check(exact: None, tiny: Path) -> None:
    found = outcomes(f"hf:{tiny}")
    assert {found[check] for check in ("loads", "answers", *SAMPLING, "rate")} == {"yes"}
    assert found["scores whole continuations"] == found["scores are right"] == "yes"


def test_scores_of_first_tokens_only_fail_a_check(wrapped: str) -> None:
    found = outcomes(wrapped)
    assert found["scores whole continuations"] == found["scores are right"] == "no"
    assert CliRunner().invoke(main, ["doctor", wrapped]).exit_code == 1


def test_a_model_that_ignores_the_seed_fails_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(range(10**6))
    model: Model = ScriptedModel(say=lambda context: f"Answer {next(drawn)}.")
    monkeypatch.setattr(doctor, "load_model", lambda name: model)
    assert outcomes("scripted:echo")["a seed fixes the answer"] == "no"


def test_a_model_that_is_greedy_at_any_temperature_fails_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy like `transformers serve` for a model whose generation_config.json does not say `do_sample`."""
    monkeypatch.setattr(doctor, "load_model", lambda name: ScriptedModel(say=lambda context: "Once."))
    assert [outcomes("scripted:echo")[check] for check in SAMPLING] == ["yes", "no"]


def test_one_seed_for_all_requests_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["Alone.", "Alone.", *map(str, range(10**3))])
    model = ScriptedModel(say=lambda context: "Yes." if "fruit" in context else next(drawn))
    monkeypatch.setattr(doctor, "load_model", lambda name: model)
    (found,) = [check for check in examine("scripted:echo") if check.name == SAMPLING[0]]
    assert found.outcome == "yes" and "not among 16" in found.details


@pytest.mark.parametrize("answered", [0, 1, 5])
def test_an_error_of_the_model_fails_a_check(answered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count()

    def say(context: str) -> str:
        if next(count) < answered:
            return "Yes."
        raise RecordError("Server is pinned to another model")

    monkeypatch.setattr(doctor, "load_model", lambda name: ScriptedModel(say=say))
    *_, last = examine("scripted:echo")
    assert (last.outcome, last.details) == ("no", "Server is pinned to another model")


@pytest.mark.parametrize(
    ("slow", "late", "outcome"),
    [("fruit", "answers", "no"), ("story", "answers many requests", "not checked")],
)
def test_a_server_that_takes_too_long_fails_only_that_check(
    slow: str, late: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(ScriptedModel):
        async def generate(self, context: Context, sampling: Sampling) -> Completion:
            await asyncio.sleep(30 * (slow in str(context)))
            return await super().generate(context, sampling)

    steps: list[str] = []
    monkeypatch.setattr(doctor, "load_model", lambda name: Slow())
    monkeypatch.setattr(doctor, "CHECK_SECONDS", 1.0)
    found = {check.name: check for check in examine("server:m@http://127.0.0.1:1/v1", say=steps.append)}
    assert found[late] == Check(late, outcome, "no answer within 1 s: the server is slow or busy")
    assert ("thinking" in found) == (late != "answers")
    assert len(steps) == (1 if late == "answers" else 4)


def test_a_model_without_local_weights_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ScriptedModel(weigh=lambda context, continuation: -float(len(continuation.split())))
    monkeypatch.setattr(doctor, "load_model", lambda name: dataclasses.replace(words, name=name))
    found = {check.name: check for check in examine("scripted:echo")}
    assert found["scores whole continuations"].outcome == "yes"
    assert found["scores are right"].outcome == "not checked"
    assert "--reference" in found["scores are right"].details


def test_the_command_prints_every_check(exact: None, tiny: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", f"hf:{tiny}"])
    assert result.exit_code == 0, result.output
    assert "tokens a second" in result.output
    assert "attention:" in result.output and "products:" in result.output
    assert CliRunner().invoke(main, ["doctor", "hf:./nowhere"]).exit_code == 1


@pytest.mark.parametrize(
    ("off", "int8", "outcome"),
    [
        (0.0, False, "yes"),
        (0.3, False, "yes"),
        (0.6, True, "yes"),
        (0.6, False, "not checked"),
        (1.1, True, "no"),
        (float("nan"), True, "no"),
    ],
)
def test_scores_may_differ_by_the_rounding_of_the_weights(
    off: float, int8: bool, outcome: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Off(HuggingFaceModel):
        async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
            scores = await super().score(context, continuations)
            return [score - off if len(continuations) == 5 else score for score in scores]  # when compared

    monkeypatch.setattr(Off, "int8", int8)
    monkeypatch.setattr(doctor, "load_model", lambda name: Off("tiny", tiny, dtype=torch.float32))
    assert outcomes(f"hf:{tiny}")["scores are right"] == outcome


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        (
            {0: None, 256: "17 and 25."},
            "thinks (8 tokens) with thinking on; does not think (8 tokens) with it off",
        ),
        (
            {0: None, 256: None},
            "does not think (8 tokens) with thinking on; does not think (8 tokens) with it off",
        ),
        (
            {0: "Hm.", 256: "Hm."},
            "thinks (8 tokens) even with thinking off, so set thinking_tokens; with it on, thinks",
        ),
    ],
)
def test_it_says_whether_a_model_thinks_and_what_that_costs(
    thought: dict[int, str | None], expected: str
) -> None:
    class Thinker:
        name, format = "server:m@http://127.0.0.1", "chat"

        async def generate(self, context: Context, sampling: Sampling) -> Completion:
            return Completion("42", "m", "stop", 3, 8, thought[sampling.thinking])

        async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
            raise RecordError("none")

    assert asyncio.run(describe_thinking(Thinker())).startswith(expected)


def test_what_a_template_says_about_thinking_stands_beside_it(exact: None, tiny: Path) -> None:
    (thinking,) = [check for check in examine(f"hf:{tiny}") if check.name == "thinking"]
    assert thinking.details.endswith("its chat template has no switch")
