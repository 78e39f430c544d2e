"""``cai label`` typed in a shell: a run's records, one study from its begin to its exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.label import label_server
from constitutional_ai.label.label_questions import Choice, HarmQuestion, PairQuestion, RevisionQuestion
from constitutional_ai.label.study import Study
from constitutional_ai.records import RevisionChain
from constitutional_ai.runs.folder import locked
from constitutional_ai.runs.run import Run
from tests.report.conftest import begin, chain, make, prompt, write_rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make(begin(tmp_path_factory.mktemp("label") / "run"))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """The studies that commands would serve."""
    studies: list[Study] = []
    monkeypatch.setattr(label_server, "serve_study", lambda study, *rest: studies.append(Study(study.folder)))
    return studies


def cai(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


TASKS: list[tuple[list[str], type[Any], str]] = [
    ([], PairQuestion, "pairs"),
    (["--answers"], PairQuestion, "pairs-of-answers"),
]


@pytest.mark.parametrize(("words", "kind", "name"), TASKS)
def test_a_run_by_itself_is_its_pairs(
    finished: Run, served: list[Study], words: list[str], kind: type, name: str
) -> None:
    cai("label", finished.folder, *words, "--annotator", "anna", "--annotator", "ben")
    (study,) = served
    questions = [each.question for each in study.questions()]
    assert questions and all(isinstance(question, kind) for question in questions)
    assert all(q.reply_a != q.reply_b for q in questions if isinstance(q, PairQuestion))
    assert [person.name for person in study.people()] == ["anna", "ben"]
    assert study.folder == finished.folder / "labels" / name


def test_harm_and_revisions_are_the_runs_records(finished: Run, served: list[Study]) -> None:
    cai("label", "harm", finished.folder, "--limit", 5)
    cai("label", "revisions", finished.folder)
    harm, revisions = [[each.question for each in study.questions()] for study in served]
    assert len(harm) == 5 and all(isinstance(q, HarmQuestion) and q.prompt.kind == "red_team" for q in harm)
    assert revisions and all(isinstance(q, RevisionQuestion) and q.id.endswith("/r1") for q in revisions)
    assert [person.name for person in served[0].people()] == ["annotator"]


def test_revisions_of_answers_to_harmless_prompts_are_not_put_up_for_training(
    finished: Run, served: list[Study], tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(finished.folder, tmp_path / "run")))
    harmless = chain(prompt("How do I boil an egg?", "helpful"))
    every = [*run.rows("02-revisions", RevisionChain), harmless]
    write_rows(run.folder / "02-revisions/records.jsonl", every)
    cai("label", "revisions", run.folder)
    names = {each.question.id for each in served[0].questions()}
    assert names and f"{harmless.id}/r1" not in names


def test_a_seed_fixes_the_order_and_another_run_of_the_command_keeps_it(
    finished: Run, served: list[Study], tmp_path: Path
) -> None:
    for folder, seed in (("one", 5), ("two", 5), ("three", 6), ("three", 5)):
        cai("label", "pairs", finished.folder, "--answers", "--out", tmp_path / folder, "--seed", seed)
    orders = [[each.question.id for each in study.questions()] for study in served]
    assert orders[0] == orders[1] != orders[2] == orders[3] and sorted(orders[0]) == sorted(orders[2])


def test_votes_become_results_and_files(finished: Run, served: list[Study], tmp_path: Path) -> None:
    cai("label", "pairs", finished.folder, "--answers", "--out", tmp_path / "study")
    for n, each in enumerate(served[0].questions()):
        served[0].add_answer(each.question.id, "annotator", Choice("a" if n % 3 else "b", 1 + n % 3), "a")
    out = tmp_path / "results.json"
    assert "elo.harmlessness" in cai("label", "results", tmp_path / "study", "--out", out)
    assert "elo.harmlessness" in {metric["name"] for metric in json.loads(out.read_text())}
    cai("label", "export", tmp_path / "study", "--to", "judge", "--out", tmp_path / "pairs.jsonl")
    assert "agrees" in cai("judge", "scripted:coin-flips", "--data", tmp_path / "pairs.jsonl")


def test_models_are_compared_by_label(served: list[Study], tmp_path: Path) -> None:
    models = ["one=scripted:echo", "two=scripted:coin-flips"]
    cai("label", "compare", *models, "--out", tmp_path / "a", "--test", "harmlessness", "--prompts", "built-in")
    (study,) = served
    assert study.settings.names == {"one": "scripted:echo", "two": "scripted:coin-flips"}
    given = study.prompt(0)
    assert study.settings.kind == "red_team" and given and given.kind == "red_team"


WRONG = [
    (["compare", "scripted:echo", "--out", "x"], "only one model"),
    (["compare", "scripted:echo", "a=scripted:echo"], "--out FOLDER"),
    (["nothing"], "No such command"),
    (["results", "nowhere"], "no labels in 'nowhere'"),
    (["pairs", "nowhere"], "no run in 'nowhere'"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_mistakes_are_one_sentence(words: list[str], message: str, served: list[Study]) -> None:
    output = cai("label", *words, code=2 if message == "No such command" else 1)
    assert message in output and "Traceback" not in output and not served


def test_a_name_that_fits_in_no_id_is_refused(finished: Run, served: list[Study]) -> None:
    assert "is not a name" in cai("label", finished.folder, "--annotator", "an na", code=2)


def test_one_process_serves_a_study(finished: Run, tmp_path: Path) -> None:
    cai_folder = tmp_path / "study"
    cai_folder.mkdir()
    with locked(cai_folder, "wait"):
        output = cai("label", "pairs", finished.folder, "--out", cai_folder, "--port", 0, code=1)
    assert "another process is working on" in output
