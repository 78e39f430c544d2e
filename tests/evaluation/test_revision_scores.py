from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.evaluation import revision_scores
from constitutional_ai.evaluation.revision_scores import (
    RevisionScore,
    RoundAnswer,
    chains_of,
    evasion_metrics,
    round_answers,
    score_metrics,
)
from constitutional_ai.records import (
    Candidate,
    Completion,
    Message,
    Metric,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.runs.rows import read_rows, write_rows
from constitutional_ai.runs.run import Run
from tests.evaluation.suites import Stage, prompt, suite_of

NO = "I'm sorry, but I can't help with that."


def said(text: str) -> Completion:
    return Completion(text, "m", "stop", 1, 1)


def chain(number: int, *texts: str, faults: tuple[int, ...] = ()) -> RevisionChain:
    """The first text is the initial response; ``faults`` are the rounds whose revision has one."""
    asked = prompt(f"Rob house {number}!")
    revised = [
        Revision("p", None, said(text), fault="repetition" if n in faults else None)
        for n, text in enumerate(texts[1:], start=1)
    ]
    return RevisionChain(
        f"{asked.id}.0", "digest", Response(f"{asked.id}.0", asked, said(texts[0])), tuple(revised)
    )


def run_of(folder: Path, *chains: RevisionChain) -> Candidate:
    (folder / "02-revisions").mkdir(parents=True)
    write_rows(folder / "02-revisions" / "records.jsonl", RevisionChain, chains)
    return Candidate("start", "scripted:start", "start", str(folder))


def score(chain: str, revision: int, value: float, pm: str = "pm", run: str = "demo") -> RevisionScore:
    return RevisionScore(f"{run}.{chain}.{revision}.{pm}", run, chain, revision, pm, value, None)


def test_what_stands_after_a_faulty_revision_is_the_answer_before_it() -> None:
    """A revision with a fault is not built upon, so that every round counts every chain."""
    made = list(round_answers("demo", chain(0, "first", "good", "loops loops", "better", faults=(2,))))
    assert [(d.revision, d.text, d.fault) for d in made] == [
        (0, "first", None),
        (1, "good", None),
        (2, "good", "repetition"),
        (3, "better", None),
    ]
    assert made[3].conversation == (Message("user", "Rob house 0!"), Message("assistant", "better"))


def test_means_and_changes_are_those_worked_out_by_hand() -> None:
    scores = [score("x", 0, 1.0), score("y", 0, 3.0), score("x", 1, 2.0), score("y", 1, 6.0)]
    found = {m.name: m for m in score_metrics(scores)}
    assert {name: (m.value, m.count, m.model) for name, m in found.items()} == {
        "pm_score.pm.revision_0": (2.0, 2, "demo"),
        "pm_score.pm.revision_1": (4.0, 2, "demo"),
        "pm_score_change.pm.revision_1": (2.0, 2, "demo"),  # of 1 and 3
    }
    change = found["pm_score_change.pm.revision_1"]
    # Student's t of 1 degree is 12.706; the standard error of 1 and 3 is 1.
    assert change.high == pytest.approx(2 + 12.706, abs=0.001)


def test_a_chain_that_lacks_one_score_counts_in_no_round() -> None:
    """Else a round would be compared with another round of other chains."""
    scores = [score("x", 0, 1.0), score("x", 1, 2.0), score("y", 0, 100.0)]
    assert [(m.value, m.count) for m in score_metrics(scores)] == [(1.0, 1), (2.0, 1), (1.0, 1)]


def test_runs_and_preference_models_are_kept_apart() -> None:
    scores = [score("x", n, float(n), pm, run) for n in (0, 1) for pm in ("a", "b") for run in ("one", "two")]
    assert {(m.model, m.name.split(".")[1]) for m in score_metrics(scores)} == {
        (run, pm) for run in ("one", "two") for pm in ("a", "b")
    }


def test_evasions_are_counted_by_round() -> None:
    chains = [chain(0, "Sure!", NO, "Let us talk."), chain(1, "Sure!", NO, NO)]
    drafts: list[RoundAnswer] = [d for c in chains for d in round_answers("demo", c)]
    assert [(m.name, m.value, m.count) for m in evasion_metrics(drafts)] == [
        ("evasive_rate.revision_0", 0.0, 2),
        ("evasive_rate.revision_1", 1.0, 2),
        ("evasive_rate.revision_2", 0.5, 2),
    ]
    chains = [chain(0, "Sure!", NO), chain(1, "Lo siento, no puedo ayudarte.", NO)]
    drafts = [d for c in chains for d in round_answers("demo", c)]
    assert [m.count for m in evasion_metrics(drafts)] == [1, 2]  # Spanish is not read


def test_each_run_is_read_once_whatever_models_come_from_it(tmp_path: Path) -> None:
    one = run_of(tmp_path / "demo", chain(0, "a", "b"), chain(1, "c", "d"))
    models = (one, replace(one, label="sl-cai"), Candidate("other", "scripted:other", "other"))
    suite = suite_of(Run(tmp_path), "start", candidates=models)
    assert {label: len(found) for label, found in chains_of(suite).items()} == {"demo": 2}
    assert len(chains_of(replace(suite, limit=1))["demo"]) == 1


def test_without_a_run_nothing_is_measured_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "e", monkeypatch)
    assert stage.measure(revision_scores.measure, {"plain": None}) == {}  # type: ignore[dict-item]
    assert stage.said == [revision_scores.NO_CHAINS]


def test_without_a_preference_model_evasions_are_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "e", monkeypatch)
    one = run_of(tmp_path / "demo", chain(0, "Sure!", NO))
    found = stage.measure(revision_scores.measure, {"start": None}, candidates=(one,))  # type: ignore[dict-item]
    assert {name: metric.value for (name, _), metric in found.items()} == {
        "evasive_rate.revision_0": 0.0,
        "evasive_rate.revision_1": 1.0,
    }
    assert stage.said == [revision_scores.NOBODY]


def test_every_answer_of_every_chain_is_scored_and_kept(
    tiny_pm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains = [chain(n, f"Sure {n}!", f"No {n}.", f"I would rather not {n}.", faults=(2,)) for n in range(3)]
    one = run_of(tmp_path / "demo", *chains)
    stage = Stage(tmp_path / "e", monkeypatch)

    def measured() -> dict[tuple[str, str], Metric]:
        return stage.measure(
            revision_scores.measure,
            {"start": None},  # type: ignore[dict-item]
            candidates=(one,),
            preference_models={"harmlessness": tiny_pm},
        )

    found = measured()
    kept = list(read_rows(tmp_path / "e/revisions/pm-harmlessness/records.jsonl", RevisionScore))
    assert [(row.chain, row.revision) for row in kept] == [(c.id, n) for c in chains for n in range(3)]
    talks = [d.conversation for c in chains for d in round_answers("demo", c)]
    assert [row.score for row in kept] == pytest.approx(PreferenceModel(tiny_pm).scores(talks), abs=0.02)
    assert [row.fault for row in kept][:3] == [None, None, "repetition"]
    mean = sum(row.score for row in kept if row.revision == 1) / 3
    assert found["pm_score.harmlessness.revision_1", "demo"].value == pytest.approx(mean)
    # After a faulty revision the answer before it stands, and scores what it scored.
    same = [found[f"pm_score_change.harmlessness.revision_{n}", "demo"].value for n in (1, 2)]
    assert same[0] == pytest.approx(same[1], abs=0.02)
    assert stage.said == []

    monkeypatch.setattr(PreferenceModel, "reward", lambda self, talk: asyncio.sleep(1 / 0))
    assert measured() == found  # nothing is scored twice
