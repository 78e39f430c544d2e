"""Model cards: what the hub reads, what people read, and what strangers' names in them may not do."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.report.card import ABOUT, card, hub_id, write_cards
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import load_json
from constitutional_ai.runs.run import Run
from tests.report.conftest import HOSTILE

STAGES = SL, PM, RL = tuple(ABOUT)
each_stage = pytest.mark.parametrize("stage", STAGES)
MARKDOWN = (
    "``` `c` \n# x\n| a | b |\n---\n![i](http://e/x.png) <b onclick=x> &lt; *a* _b_ ~~c~~ $x$ [a]: http://e"
)
TEXT = st.text() | st.sampled_from([HOSTILE, MARKDOWN]) | st.text(alphabet="`|-#*_<>[]()!\n\r\\ a1.=+")


def of(run: Run, stage: str, constitution: str | None = None, **asked: Any) -> str:
    manifest = load_json(run.stage(stage) / "stage.json", StageManifest)
    loaded = load_constitution(run.folder / "constitution.yaml")
    if constitution is not None:
        loaded = loaded.model_copy(update={"name": constitution})
    return card(run, manifest, Recipe.model_validate(asked), loaded)


def noted(run: Run, stage: str, **changes: Any) -> None:
    path = run.stage(stage) / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def kinds(text: str) -> Counter[str]:
    """How much of what a page of Markdown holds."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(ModelCard(text).text)
    return Counter(
        t.type for outer in tokens for t in (outer, *(outer.children or [])) if not t.type.startswith("text")
    )


@each_stage
def test_a_card_says_to_the_hub_what_the_model_is(run: Run, stage: str) -> None:
    data = ModelCard(of(run, stage)).data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data["tags"] == ["constitutional-ai", ABOUT[stage].tag]
    assert data["pipeline_tag"] == ("text-classification" if stage == PM else "text-generation")
    assert "license" not in data  # the base model's, which we do not know


NAMES = {
    "hf:some/model": "some/model",
    "hf:./some/model": None,
    "hf:/some/model": None,
    "hf:some/model\n---\nx: y": None,
    "hf:model": None,
}


@pytest.mark.parametrize("model", NAMES)
def test_only_a_name_of_the_hub_is_named_to_it(model: str) -> None:
    assert hub_id(model) == NAMES[model]


def test_a_folder_of_that_name_is_no_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert hub_id("hf:some/model") is None


@each_stage
def test_a_card_says_what_the_model_was_made_from(run: Run, stage: str) -> None:
    noted(run, stage, config={"seed": 7, "x.learning_rate": 0.5}, records=5)
    noted(run, stage, notes={"too_long": 2, "stopped": "kl ran off", "sources": {"ai": 3, "people": 2}})
    text = of(run, stage, "mine", models={"pretrained": "hf:a/b"})
    digest = load_constitution(run.folder / "constitution.yaml").digest
    assert f"- Constitution: mine, version {digest}: 2 principles, 1 of them for revisions and 1 for" in text
    assert "5 rows: 3 pairs labelled by the feedback model, 2 pairs judged by people; 2 rows longer" in text
    assert "    seed: 7\n    x.learning_rate: 0.5\n" in text
    assert "- Stopped early: kl ran off\n" in text
    assert "These weights were trained from hf:a/b, whose licence applies to them too." in text


WAYS = {
    ("rloo", "preference_model"): "by RLOO, rewarded by a preference model's score.",
    ("grpo", "feedback"): "by GRPO, rewarded by a feedback model's own rating.",
    ("dpo", "preference_model"): "by DPO on a feedback model's soft labels.",
}


@pytest.mark.parametrize("way", WAYS)
def test_rl_cai_says_how_it_was_trained_and_how_good_its_reward_is(run: Run, way: tuple[str, str]) -> None:
    text = of(run, RL, rl_cai={"algorithm": way[0], "reward": way[1]})
    assert WAYS[way] in text
    assert ("The preference model that rewarded it" in text) == (way == ("rloo", "preference_model"))


def test_the_preference_models_numbers_come_with_counts(run: Run) -> None:
    text = of(run, PM)
    (row,) = [line for line in text.splitlines() if line.startswith("| ranks the pair like its label")]
    assert row.count(" 1.00 (0.82 to 1.00), of 18 |") == 2  # its source, and all
    (run.stage(PM) / "report.json").unlink()
    assert "ranks the pair" not in of(run, PM)


def test_a_card_is_completed_by_the_evaluation(run: Run) -> None:
    (row,) = [line for line in of(run, RL).splitlines() if line.startswith("| Objections")]
    assert row.endswith("| 0.00 (0.00 to 0.49), of 4 | 1.00 (0.51 to 1.00), of 4 | 0.50 (0.15 to 0.85), of 4 |")
    (own,) = [line for line in of(run, SL).splitlines() if line.startswith("| Objections")]
    assert own.endswith("| 0.00 (0.00 to 0.49), of 4 | 1.00 (0.51 to 1.00), of 4 |")
    assert "| Score on red-team prompts" in of(run, PM) and "| Objections" not in of(run, PM)
    (run.folder / "08-evaluation" / "metrics.json").unlink()
    for stage in STAGES:
        assert "Not measured yet: stage 08-evaluation of the run measures it." in of(run, stage)


def test_cards_lie_with_the_weights_of_finished_stages_and_are_rewritten_only_to_say_more(run: Run) -> None:
    (run.stage(RL) / "stage.json").unlink()
    for stage in STAGES:
        (run.stage(stage) / "model").mkdir()
    (run.stage(PM) / "model").rmdir()  # deleted, for the room that it took
    metrics = run.folder / "08-evaluation" / "metrics.json"
    evaluated = metrics.read_text()
    metrics.unlink()
    constitution = load_constitution(run.folder / "constitution.yaml")

    def written() -> dict[Path, int]:
        write_cards(run, Recipe(), constitution)
        return {path: path.stat().st_mtime_ns for path in run.folder.rglob("README.md")}

    before = written()
    assert list(before) == [run.stage(SL) / "model" / "README.md"]
    assert written() == before
    metrics.write_text(evaluated)
    assert written() != before


@settings(max_examples=30)
@given(st.sampled_from(STAGES), st.lists(TEXT, min_size=4, max_size=4))
@example(RL, [MARKDOWN] * 4)
@example(SL, [HOSTILE] * 4)
@example(PM, ["", " ", "\n", "---"])
def test_no_name_becomes_markup_or_metadata(
    tmp_path_factory: pytest.TempPathFactory, stage: str, texts: list[str]
) -> None:
    def page(name: str, model: str, setting: str, reason: str) -> str:
        constitution = Constitution.model_validate(
            {"name": name, "principles": [{"name": "p", "preference": "Which?"}]}
        )
        made = StageManifest(
            stage,
            {"x": setting},
            {},
            "",
            1,
            0,
            0,
            0,
            1.0,
            "now",
            {"stopped": reason or "so", "sources": {model: 1}},
        )
        run = Run(tmp_path_factory.getbasetemp() / "nowhere")
        return card(run, made, Recipe(models={"pretrained": f"hf:x{model}"}), constitution)

    tame, hostile = page("a", "b", "c", "d"), page(*texts)
    assert kinds(hostile) == kinds(tame)
    head = yaml.safe_load(hostile.split("---\n")[1])
    assert {k: v for k, v in head.items() if k != "base_model"} == yaml.safe_load(tame.split("---\n")[1])
    assert not {"\x1b", "\u202e", "\x00"} & set(hostile)
