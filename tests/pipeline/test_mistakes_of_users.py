"""What a user can mend is one sentence and no traceback, however late it shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from constitutional_ai.errors import CaiError
from constitutional_ai.models import load
from constitutional_ai.models.chat_template import DATE
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Response
from constitutional_ai.stages.job import Job
from tests.families import make_family
from tests.pipeline.tiny_run import echoing, make

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, peft and trl, about each other


@pytest.mark.parametrize(
    "pretrained", ["hf:no-such-organisation/no-such-model", "hf:./nowhere", "scripted:echo", "hf:{broken}"]
)
def test_a_model_that_cannot_be_trained_is_one_sentence(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: str
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = shutil.copytree(model.removeprefix("hf:"), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"torn")
    models = {
        "helpful": "scripted:echo",
        "feedback": "scripted:echo",
        "pretrained": pretrained.format(broken=broken),
    }
    with pytest.raises(CaiError) as caught:
        make(echoing(tmp_path / "run", models=models), until="03-sl-cai-model")
    assert "\n" not in str(caught.value)


def test_a_model_without_a_chat_template_can_be_trained_or_is_one_sentence(
    tiny_plain: Path, tmp_path: Path
) -> None:
    models = {"helpful": "scripted:echo", "feedback": "scripted:echo", "pretrained": f"hf:{tiny_plain}"}
    try:
        make(echoing(tmp_path / "run", models=models), until="03-sl-cai-model")
    except CaiError as error:
        assert "\n" not in str(error)


def test_no_prompts_at_all_is_one_sentence(model: str, tmp_path: Path) -> None:
    asked = echoing(tmp_path / "run", prompts={k: {"limit": 0} for k in ("red_team", "helpful", "borderline")})
    asked["models"] = {**asked["models"], "pretrained": model}
    with pytest.raises(CaiError):
        make(asked, until="03-sl-cai-model")


def test_a_constitution_with_one_side_only_is_one_sentence(model: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nprinciples:\n  - {name: p, preference: Which is kinder.}\n")
    with pytest.raises(CaiError):
        make(echoing(tmp_path / "run", constitution=str(path)), until="02-revisions")


def test_a_model_that_never_answers_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_model", lambda name, **_: ScriptedModel(say=lambda _: ""))
    with pytest.raises(CaiError, match="records of 01-responses failed, the last with EmptyAnswer"):
        make(echoing(tmp_path / "run", max_failures=1), until="01-responses")


def test_a_base_without_a_scalar_head_is_said_before_anything_is_paid_for(tmp_path: Path) -> None:
    base = make_family("headless", tmp_path / "base")
    models = {"helpful": "scripted:echo", "feedback": "scripted:echo", "pretrained": f"hf:{base}"}
    with pytest.raises(
        CaiError, match=r"no scalar head for models of type 'granite'. Set models.preference_model"
    ):
        make(echoing(tmp_path / "run", models=models))
    assert not (tmp_path / "run" / "01-responses").exists()
    make(echoing(tmp_path / "run", models=models), until="01-responses")  # which needs no such head


def test_prompts_that_a_template_refuses_are_left_out_and_counted_at_the_start(tmp_path: Path) -> None:
    base = make_family("strict", tmp_path / "base")
    prompts = tmp_path / "prompts.jsonl"
    twice = [{"role": "user", "content": text} for text in ("Hi", "Are you there?")]
    rows = [{"conversation": twice}, {"prompt": "One"}, {"prompt": "Two"}]
    prompts.write_text("".join(json.dumps({**row, "split": "train"}) + "\n" for row in rows))
    recipe = echoing(
        tmp_path / "run",
        models={"helpful": "scripted:echo", "feedback": "scripted:echo", "pretrained": f"hf:{base}"},
    )
    recipe["prompts"] = {**recipe["prompts"], "red_team": {"file": str(prompts)}}
    run, said = make(recipe, until="01-responses")
    assert any(line.startswith("1 of ") and "turns that the chat template refuses" in line for line in said)
    assert {"One", "Two"} <= {row.prompt.conversation[-1].content for row in run.rows("01-responses", Response)}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["date"] == DATE.isoformat()


def test_pairs_that_a_template_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    base, said = make_family("strict", tmp_path), list[str]()
    job = Job(None, Recipe(models={"pretrained": f"hf:{base}"}), None, {}, said.append)  # type: ignore[arg-type]
    human, answer = {"role": "user", "content": "Hi"}, [{"role": "assistant", "content": "Hello"}]
    pair = {"chosen": answer, "rejected": answer, "p_chosen": 1.0}
    fine, twice = ({"prompt": prompt, **pair} for prompt in ([human], [human, human]))
    assert job.usable_rows("06", [fine, twice], "preference_model") == ([fine], {"refused": 1, "too_long": 0})
    assert said == ["06: 1 of 2 rows have turns that the chat template refuses, and are left out."]
