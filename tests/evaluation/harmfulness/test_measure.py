from __future__ import annotations

import json
from pathlib import Path

import pytest

from constitutional_ai.errors import InputError, StageChanged
from constitutional_ai.evaluation.harmfulness.fit_regressor import ABOUT
from constitutional_ai.evaluation.harmfulness.measure import HarmScore, measure
from constitutional_ai.evaluation.harmfulness.regressor import HarmfulnessModel
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Message
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.run import Run
from tests.evaluation.suites import PROMPTS, Stage, suite_of

RED = len(PROMPTS["red_team"])
HELP, NO = "Sure! Take the back door.", "No."


class Counting(ScriptedModel):
    """Says how often it was asked, and so something else each time."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.asked = text, list[Sampling]()

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self.asked.append(sampling)
        return Completion(self.text, "scripted", "stop", 5, 2)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "out", monkeypatch)


@pytest.fixture
def regressor(tiny_pm: Path) -> Path:
    (tiny_pm / ABOUT).write_text("{}")
    return tiny_pm


def score_of(regressor: Path, text: str) -> float:
    talks = [(*prompt.conversation, Message("assistant", text)) for prompt in PROMPTS["red_team"]]
    return sum(HarmfulnessModel(regressor).scores(talks)) / RED


def test_a_model_is_scored_on_whole_conversations_at_both_temperatures(stage: Stage, regressor: Path) -> None:
    cast = {"help": Counting(HELP), "no": Counting(NO)}
    found = stage.measure(measure, cast, harmfulness_model=regressor, samples=3)
    assert set(found) == {(f"absolute_harmfulness.{at}", label) for at in ("t1", "t0") for label in cast}
    for label, text in (("help", HELP), ("no", NO)):
        warm, cold = found["absolute_harmfulness.t1", label], found["absolute_harmfulness.t0", label]
        assert warm.value == pytest.approx(score_of(regressor, text), abs=0.05)
        assert cold.value == pytest.approx(warm.value, abs=0.05)
        assert (warm.count, warm.clusters, cold.count, cold.clusters) == (3 * RED, RED, RED, RED)
    assert [s.temperature for s in cast["help"].asked] == [1.0] * 3 * RED + [0.0] * RED
    assert len({s.seed for s in cast["help"].asked}) == 3 * RED
    assert {s.seed for s in cast["help"].asked} == {s.seed for s in cast["no"].asked}


def test_every_answer_is_kept_with_its_score(stage: Stage, regressor: Path, tmp_path: Path) -> None:
    stage.measure(measure, {"help": Counting(HELP)}, harmfulness_model=regressor, samples=2)
    rows = list(read_rows(tmp_path / "out" / "harmfulness" / "records.jsonl", HarmScore))
    assert len(rows) == 3 * RED
    assert {row.answer.response.text for row in rows} == {HELP} and {row.at for row in rows} == {"t1", "t0"}
    assert all(row.harmfulness is not None for row in rows)


def test_what_has_been_made_is_not_made_again(stage: Stage, regressor: Path) -> None:
    first, second = Counting(HELP), Counting(HELP)
    before = stage.measure(measure, {"help": first}, harmfulness_model=regressor, samples=2)
    assert stage.measure(measure, {"help": second}, harmfulness_model=regressor, samples=2) == before
    assert not second.asked
    with pytest.raises(StageChanged, match="samples"):
        stage.measure(measure, {"help": second}, harmfulness_model=regressor, samples=3)


def test_a_conversation_that_the_regressor_cannot_read_has_no_score(stage: Stage, regressor: Path) -> None:
    found = stage.measure(measure, {"long": Counting("x " * 600)}, harmfulness_model=regressor)
    metric = found["absolute_harmfulness.t0", "long"]
    assert (metric.value, metric.count) == (None, 0)
    row = json.loads(stage.lines("harmfulness/records.jsonl")[0])
    assert row["harmfulness"] is None and "exceed" in row["why"]


def test_a_model_that_says_nothing_is_scored_too(stage: Stage, regressor: Path) -> None:
    found = stage.measure(measure, {"mute": Counting("")}, harmfulness_model=regressor)
    assert found["absolute_harmfulness.t1", "mute"].count == RED


def test_without_a_regressor_nothing_is_measured_and_nobody_is_asked(tmp_path: Path) -> None:
    made = measure(suite_of(Run(tmp_path), "help"))
    assert [(m.name, m.model, m.value, m.count) for m in made] == [
        ("absolute_harmfulness.t1", "help", None, 0),
        ("absolute_harmfulness.t0", "help", None, 0),
    ]
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="has no model of harmfulness"):
        measure(suite_of(Run(tmp_path), "help", harmfulness_model=tmp_path))
