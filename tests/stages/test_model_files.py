"""Other weights, another template, another engine or a shared prompt are noticed behind the same name."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.prompts import KINDS, Prompts
from constitutional_ai.errors import StageChanged
from constitutional_ai.models.model import Sampling
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Message, Prompt
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from constitutional_ai.stages import job as stage_job
from constitutional_ai.stages.check_models import apart
from constitutional_ai.stages.job import Job
from constitutional_ai.stages.model_files import digest_of_model
from tests.pipeline.tiny_run import echoing, make


def other_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def other_template(folder: Path) -> None:
    for file in folder.glob("*.jinja"):
        file.write_text(file.read_text() + " ")


def other_settings(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_theta": 77.0}))


@pytest.mark.parametrize("change", [other_weights, other_template, other_settings])
def test_the_files_on_which_answers_depend_are_in_the_digest(
    tiny: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    assert digest_of_model(f"hf:{folder}") == digest_of_model(f"hf:{tiny}") != ""
    (folder / "README.md").write_text("Others read this.")
    assert digest_of_model(f"hf:{folder}") == digest_of_model(f"hf:{tiny}")
    change(folder)
    assert digest_of_model(f"hf:{folder}") != digest_of_model(f"hf:{tiny}")


@pytest.mark.parametrize("name", ["scripted:echo", "server:m@http://127.0.0.1:9/v1", "hf:nobody/has-this"])
def test_other_models_have_no_files_here(name: str) -> None:
    assert digest_of_model(name) == ""


@pytest.mark.parametrize("complete", [True, False])
def test_exchanged_weights_are_refused(tiny: Path, tmp_path: Path, complete: bool) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    recipe: dict[str, Any] = echoing(tmp_path / "run", responses={"max_tokens": 2, "per_helpful_prompt": 1})
    recipe["models"] = {**recipe["models"], "helpful": f"hf:{folder}"}
    make(recipe, until=layout.RESPONSES)
    if not complete:
        (tmp_path / "run" / layout.RESPONSES / layout.MANIFEST).unlink()
    other_weights(folder)
    with pytest.raises(StageChanged, match=r"another version of the files of models\.helpful\. Pass --redo 01"):
        make(recipe, until=layout.RESPONSES)


def test_another_day_of_the_templates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(echoing(tmp_path / "run"), until=layout.RESPONSES)
    monkeypatch.setattr(stage_job, "DATE", stage_job.DATE.replace(year=2027))
    with pytest.raises(StageChanged, match=r"01-responses was made with date: .* now says .*2027"):
        make(echoing(tmp_path / "run"), until=layout.RESPONSES)


def test_a_stage_with_records_keeps_its_engine(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(run: Run) -> None:
        job = Job(run, Recipe.model_validate({"cache": None}), load_constitution("default"), {}, print)
        with job.loaded(f"hf:{tiny}", layout.RESPONSES) as model:
            asyncio.run(model.generate("Hi", Sampling(max_tokens=1)))

    with open_run(tmp_path / "run", {}, Silent()) as run:
        run.write_started_stages({layout.RESPONSES: {"config": {}, "inputs": {}}})
        monkeypatch.setenv("CAI_ENGINE", "transformers")
        ask(run)
        monkeypatch.setenv("CAI_ENGINE", "native")
        ask(run)  # nothing was made yet
        run.stage(layout.RESPONSES).mkdir()
        prompt = Prompt.of((Message("user", "Hi"),), "helpful", "test")
        write_rows(run.stage(layout.RESPONSES) / layout.RECORDS, Prompt, [prompt])
        monkeypatch.setenv("CAI_ENGINE", "transformers")
        with pytest.raises(StageChanged, match=r"on the engine native, and transformers .* CAI_ENGINE=native"):
            ask(run)


def test_a_prompt_that_any_file_holds_out_is_not_trained_on() -> None:
    one, two, three = (Prompt.of((Message("user", text),), "helpful", "test") for text in ("1", "2", "3"))
    files = dict(
        zip(KINDS, (Prompts([one, two], []), Prompts([three], [one]), Prompts([], [three])), strict=True)
    )
    shown: list[str] = []
    assert [kept.train for kept in apart(files, shown.append).values()] == [[two], [], []]
    assert shown == ["2 training prompts are held out in another file, and are not trained on."]
    assert apart({"helpful": Prompts([two], [one])}, shown.append) == {"helpful": Prompts([two], [one])}
    assert len(shown) == 1
