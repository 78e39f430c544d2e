"""``cai doctor`` tells a sound model from one whose scores are those of first tokens, or shifted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from cai import doctor
from cai.cli import main
from cai.doctor import examine
from cai.models.load import load_model
from cai.models.model import Context, Model
from cai.models.scripted import ScriptedModel


def outcomes(name: str) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in examine(name)}


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


def test_a_sound_model_passes_every_check(tiny: Path) -> None:
    found = outcomes(f"hf:{tiny}")
    assert {found[check] for check in ("loads", "answers", "a seed fixes its answer", "rate")} == {"yes"}
    assert found["scores whole continuations"] == found["scores are right"] == "yes"


def test_scores_of_first_tokens_are_found_out(wrapped: str) -> None:
    found = outcomes(wrapped)
    assert found["scores whole continuations"] == found["scores are right"] == "no"
    assert CliRunner().invoke(main, ["doctor", wrapped]).exit_code == 1


def test_a_model_that_draws_anew_each_time_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(range(10**6))
    model: Model = ScriptedModel(say=lambda context: f"Answer {next(drawn)}.")
    monkeypatch.setattr(doctor, "load_model", lambda name: model)
    assert outcomes("scripted:echo")["a seed fixes its answer"] == "no"


def test_what_gives_no_weights_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ScriptedModel(weigh=lambda context, continuation: -float(len(continuation.split())))
    monkeypatch.setattr(doctor, "load_model", lambda name: dataclasses.replace(words, name=name))
    found = {finding.check: finding for finding in examine("scripted:echo")}
    assert found["scores whole continuations"].outcome == "yes"
    assert found["scores are right"].outcome == "not checked"
    assert "--reference" in found["scores are right"].says


def test_the_command_prints_every_check(tiny: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", f"hf:{tiny}"])
    assert result.exit_code == 0, result.output
    assert "tokens a second" in result.output
    assert CliRunner().invoke(main, ["doctor", "hf:./nowhere"]).exit_code == 1
