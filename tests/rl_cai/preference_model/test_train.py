from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from constitutional_ai.errors import ModelError
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.preference_model.held_out_report import PreferenceModelReport
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.rl_cai.preference_model.train import check_saved, train_preference_model
from constitutional_ai.rl_cai.preference_model.training_pairs import conversations, helpfulness
from constitutional_ai.runs.rows import adapter
from constitutional_ai.training import launch
from constitutional_ai.training.settings import Training
from tests.training.jobs import training_job


def talk(asked: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", asked), Message("assistant", answer))


# -- another tokenizer and template than the policy's


ENDS_IN_PADDING = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}{{ pad_token }}"


def with_template(folder: Path, template: str) -> Path:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def trained(base: Path, folder: Path, **changes: Any) -> PreferenceModel:
    rows = helpfulness("built-in", 16, 0).rows
    folder.mkdir(exist_ok=True)
    training = Training(batch_size=6, max_length=512, learning_rate=1e-2, **changes)
    made = train_preference_model(training_job(rows[:12], base, folder, training), rows[12:])
    return PreferenceModel(made.path)


def test_a_conversation_is_rendered_with_the_preference_models_own_template(
    make_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the policy's tokenizer makes of it never comes into it: scores are asked for by messages."""
    model = trained(make_tiny(chat=False, vocabulary=270), tmp_path)
    seen: list[list[int]] = []
    monkeypatch.setattr(model, "_outputs", lambda texts: seen.extend(texts) or [0.0] * len(texts))
    model.scores([talk("Hi", "Hello")])
    assert model._tokenizer.batch_decode(seen) == ["\n\nHuman: Hi\n\nAssistant: Hello<|im_end|>\n"]


def test_a_template_that_ends_in_padding_is_given_a_line_break_to_be_read(
    make_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Else the head would read the token before, or nothing of the turn's end."""
    base = with_template(make_tiny(vocabulary=270), ENDS_IN_PADDING)
    model = trained(base, tmp_path)
    text = model._tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "[user] Hi<pad>\n"
    assert PreferenceModel(tmp_path / "model")._tokenizer.chat_template == model._tokenizer.chat_template


def test_lengths_are_measured_with_the_preference_models_tokenizer(
    make_tiny: Callable[..., Path], tiny: Path
) -> None:
    from constitutional_ai.stages.job import Job

    long = with_template(make_tiny(vocabulary=259), "{% for m in messages %}{{ m['content'] * 3 }}{% endfor %}")
    models = {"pretrained": f"hf:{tiny}", "preference_model": f"hf:{long}"}
    (row,) = helpfulness("built-in", 1, 0).rows
    size = max(sum(len(m.content) for m in talk) for talk in conversations(row))
    recipe = Recipe(models=models, preference_model={"max_length": 2 * size}, sl_cai={"max_length": 2 * size})
    said: list[str] = []
    job = Job(None, recipe, None, {}, said.append)  # type: ignore[arg-type]  # neither run nor constitution is asked
    assert job.usable_rows("03", [row], "sl_cai") == ([row], {"too_long": 0})
    small = {**row, "id": "small", "source": "ai"}
    small |= {side: [{**row[side][0], "content": "No."}] for side in ("prompt", "chosen", "rejected")}
    kept, notes = job.usable_rows("06", [row, small], "preference_model")
    assert (kept, notes) == ([small], {"too_long": 1, "too_long_by_source": {"people": 1}})
    assert "(1 × people)" in said[0]


# -- what a training leaves behind


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
@pytest.mark.parametrize("rank", [None, 2])
def test_a_training_leaves_a_report_on_the_pairs_that_it_did_not_see(
    tiny: Path, tmp_path: Path, rank: int | None
) -> None:
    model = trained(tiny, tmp_path, lora_rank=rank)
    held_out = [json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "scores"} for row in held_out] == helpfulness(
        "built-in", 16, 0
    ).rows[12:]
    scores = model.scores([talk for row in held_out for talk in conversations(row)])
    assert [score for row in held_out for score in row["scores"]] == pytest.approx(scores, abs=0.05)
    report = adapter(PreferenceModelReport).validate_json((tmp_path / "report.json").read_bytes())
    assert [(s.source, s.pairs) for s in report.sources] == [("people", 4), ("all", 4)]
    right = [row["scores"][0] > row["scores"][1] for row in held_out]
    assert report.sources[0].accuracy.value == fmean(right)
    every = [score for row in held_out for score in row["scores"]]
    spread = json.loads((tmp_path / "model" / "preference_model.json").read_text())
    assert (spread["mean"], spread["scale"]) == (pytest.approx(fmean(every)), pytest.approx(stdev(every)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("rank", [None, 2])
def test_a_head_that_is_lost_in_saving_is_found(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int | None
) -> None:
    """A head that is not in the file is drawn at random by transformers, with no more than a warning."""
    from safetensors.torch import load_file, save_file

    whole = launch.save

    def spoilt(*args: Any, **more: Any) -> Any:
        made = whole(*args, **more)
        file = Path(made.path) / "model.safetensors"
        weights = load_file(file)
        torch.manual_seed(1)
        weights["score.weight"] = 0.3 * torch.randn_like(weights["score.weight"])
        save_file(weights, file, metadata={"format": "pt"})
        return made

    monkeypatch.setattr(launch, "save", spoilt)
    with pytest.raises(ModelError, match="its head was lost in saving"):
        trained(tiny, tmp_path, lora_rank=rank)


def test_scores_that_come_back_as_they_were_but_for_rounding_are_sound() -> None:
    check_saved([1.0, -2.0], [1.02, -1.97])


@pytest.mark.parametrize("after", [[1.0, math.nan], [-2.0, 1.0], [0.0, 0.0]])
def test_scores_that_come_back_otherwise_are_refused(after: list[float]) -> None:
    with pytest.raises(ModelError):
        check_saved([1.0, -2.0], after)
