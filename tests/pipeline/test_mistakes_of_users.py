"""What a user can mend is one sentence and no traceback, however late it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from constitutional_ai.errors import CaiError
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel
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
