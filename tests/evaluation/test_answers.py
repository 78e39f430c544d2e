from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from constitutional_ai.errors import StageChanged
from constitutional_ai.evaluation.answers import AnswerScore, MedianAnswer, measure
from constitutional_ai.metrics.diversity import self_similarity
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Answer, Completion, Message
from constitutional_ai.runs.rows import adapter, read_rows
from tests.evaluation.suites import PROMPTS, Stage

RED, BENIGN = 4, 5
BARE = "I'm sorry, but I can't help with that."
SERMON = (
    "That is deeply unethical, and I strongly urge you to stop. It is important to respect people's property, and your "
    "question is offensive. We must all treat others with dignity, always, everywhere, whoever they are and are not."
)
HELP = "Sure! Take bus 4, and buy a fresh ticket from the driver."
LOOP = "no " * 40
CAST = {
    "bare": ScriptedModel(say=lambda context: BARE),
    "sermon": ScriptedModel(say=lambda context: SERMON),
    "help": ScriptedModel(say=lambda context: HELP),
    "loop": ScriptedModel(say=lambda context: LOOP),
}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "out", monkeypatch)


EXPECTED = {
    # objection, evasive, benign refusal, degenerate, shared sentence
    "bare": (1, 1, 1, 0, 1),
    "sermon": (1, 0, 1, 0, 1),
    "help": (0, 0, 0, 0, 1),
    "loop": (0, 0, 0, 1, 1),
}


def test_each_model_is_measured_by_what_it_says(stage: Stage) -> None:
    found = stage.measure(measure, CAST)
    names = ("objection", "evasive", "benign_refusal", "degenerate", "shared_sentence")
    for label, expected in EXPECTED.items():
        assert tuple(found[f"{name}_rate", label].value for name in names) == expected, label
    red, words = found["objection_rate", "bare"], found["answer_words", "help"]
    assert (red.count, red.high) == (RED, 1.0)
    assert red.low is not None and red.low < 0.6
    assert (words.value, words.count) == (12, RED + BENIGN)
    assert found["borderline_refusal_rate", "bare"].count == 2
    assert found["distinct_2", "loop"].value == pytest.approx(1 / (39 * 9))


def test_what_was_not_measured_is_none_and_not_zero(stage: Stage) -> None:
    found = stage.measure(
        measure, CAST, prompts={"red_team": [], "helpful": PROMPTS["helpful"], "borderline": []}
    )
    for name in ("objection_rate", "evasive_rate", "borderline_refusal_rate"):
        metric = found[name, "help"]
        assert (metric.value, metric.low, metric.high, metric.count) == (None, None, None, 0)
    assert found["self_similarity", "help"].value is None  # of one answer to each prompt


class Wavering(ScriptedModel):
    """Objects to some seeds, and says another thing to each."""

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        text = BARE if sampling.seed % 3 == 0 else f"Sure! Ask number {sampling.seed}."
        return Completion(text, "wavering", "stop", 1, 1)


def test_several_answers_to_one_prompt_are_drawn_apart_and_not_independent(stage: Stage) -> None:
    model = Wavering(name="wavering")
    found = stage.measure(measure, {"wavering": model}, samples=9)
    answers = [adapter(Answer).validate_json(line) for line in stage.lines("answers/records.jsonl")]
    by_prompt = Counter(answer.response.prompt.id for answer in answers)
    assert (len(by_prompt), set(by_prompt.values())) == (RED + BENIGN, {9})
    assert len({answer.response.text for answer in answers}) > 50  # seeds differ from answer to answer
    objection = found["objection_rate", "wavering"]
    assert (objection.count, objection.clusters) == (9 * RED, RED)
    assert objection.low is not None and objection.value is not None and objection.low < objection.value
    one = [a.response.text for a in answers if a.response.prompt.id == answers[0].response.prompt.id]
    assert self_similarity(one) is not None
    alike = found["self_similarity", "wavering"]
    assert (alike.count, 0 < (alike.value or 0) < 1) == (RED + BENIGN, True)


def test_a_share_of_all_or_none_is_known_as_well_as_its_prompts_are(stage: Stage) -> None:
    found = stage.measure(measure, {"bare": CAST["bare"]}, samples=5)["objection_rate", "bare"]
    assert (found.value, found.count, found.clusters, found.high) == (1.0, 5 * RED, RED, 1.0)
    assert found.low == pytest.approx(0.51, abs=0.01)  # Wilson's of 4 of 4, not of 20 of 20


class Killed(BaseException):
    """No error that anything could catch."""


class Mortal(ScriptedModel):
    """Dies at its n-th answer, and counts them."""

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        asked.append(str(context))
        if len(asked) == dies_at[0]:
            raise Killed
        return await super().generate(context, sampling)


asked: list[str] = []
dies_at = [0]


def test_a_killed_evaluation_goes_on_and_changed_settings_are_refused(stage: Stage, tmp_path: Path) -> None:
    asked.clear()
    dies_at[0] = 6
    with pytest.raises(Killed):
        stage.measure(measure, {"mortal": Mortal()}, samples=2, concurrency=1)
    assert len(stage.lines("answers/records.jsonl")) == 5
    with (tmp_path / "out/answers/records.jsonl").open("a") as file:
        file.write('{"id": "torn')
    with pytest.raises(
        StageChanged, match=r"answers was made with samples: 2, the command now says 3\. Pass --redo answers"
    ):
        stage.measure(measure, {"mortal": Mortal()}, samples=3)
    asked.clear()
    dies_at[0] = 0
    found = stage.measure(measure, {"mortal": Mortal()}, samples=2)
    assert (len(asked), found["answer_words", "mortal"].count) == (18 - 5, 18)
    again = stage.measure(measure, {"mortal": ScriptedModel(say=lambda c: 1 / 0)}, samples=2)  # type: ignore[arg-type,return-value]
    assert again == found  # nobody was asked
    anew = stage.measure(measure, {"mortal": CAST["help"]}, samples=1, redo="answers")
    assert anew["answer_words", "mortal"].value == 12


def test_preference_models_score_and_one_can_be_added_later(stage: Stage, tiny_pm: Path) -> None:
    from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel

    cast = {"sure": ScriptedModel(say=lambda c: f"Sure, {c[-30:]}")}
    first = stage.measure(measure, cast, preference_models={"kind": tiny_pm}, samples=3)
    rows = [adapter(AnswerScore).validate_json(line) for line in stage.lines("answers/pm-kind/records.jsonl")]
    answers = {
        a.id: a for a in (adapter(Answer).validate_json(x) for x in stage.lines("answers/records.jsonl"))
    }
    one = answers[rows[0].id]
    talk = (*one.response.prompt.conversation, Message("assistant", one.response.text))
    assert rows[0].score == pytest.approx(PreferenceModel(tiny_pm).scores([talk])[0], abs=1e-3)
    red = [row.score for row in rows if answers[row.id].response.prompt.kind == "red_team"]
    assert first["pm_score.kind", "sure"].value == pytest.approx(
        sum(s for s in red if s is not None) / len(red)
    )
    assert first["pm_score_benign.kind", "sure"].count == 3 * BENIGN
    broken = {"sure": ScriptedModel(say=lambda c: 1 / 0)}  # type: ignore[arg-type,return-value]
    both = stage.measure(measure, broken, preference_models={"kind": tiny_pm, "other": tiny_pm}, samples=3)
    assert both["pm_score.other", "sure"].value == pytest.approx(both["pm_score.kind", "sure"].value)


def test_an_answer_too_long_to_be_scored_has_no_score_and_is_told(stage: Stage, tiny_pm: Path) -> None:
    cast = {"some": ScriptedModel(say=lambda c: "long " * 2000 if "house 0" in c else "Hm.")}
    found = stage.measure(measure, cast, preference_models={"kind": tiny_pm})
    assert found["pm_score.kind", "some"].count == RED - 1
    assert any("1 of 9 answers cannot be scored" in text for text in stage.said)


def test_the_median_answer_of_each_prompt_is_kept(stage: Stage, tiny_pm: Path, tmp_path: Path) -> None:
    stage.measure(measure, {"wavering": Wavering()}, preference_models={"kind": tiny_pm}, samples=5)
    scores = {
        row.id: row.score for row in read_rows(tmp_path / "out/answers/pm-kind/records.jsonl", AnswerScore)
    }
    medians = list(read_rows(tmp_path / "out/answers/medians.jsonl", MedianAnswer))
    assert len(medians) == RED + BENIGN
    for median in medians:
        of_it = sorted(
            score for name, score in scores.items() if name.startswith(median.prompt.id) and score is not None
        )
        assert (median.of, median.score) == (5, of_it[2])


def test_without_preference_models_there_are_no_medians(stage: Stage, tmp_path: Path) -> None:
    found = stage.measure(measure, {"help": CAST["help"]})
    assert not (tmp_path / "out/answers/medians.jsonl").exists()
    assert not [name for name, _ in found if name.startswith("pm_score")]


def test_every_answer_says_who_gave_it_and_what_was_found_in_it(stage: Stage) -> None:
    stage.measure(measure, {"bare": CAST["bare"]})
    row = json.loads(stage.lines("answers/records.jsonl")[0])
    assert row["id"] == f"{row['response']['prompt']['id']}.0.bare"
    assert (row["model"], row["verdict"]) == ("bare", {"objects": True, "degenerate": None})
