"""A trained model is saved with its base's settings, and ends where its turns end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from constitutional_ai.training import rounding
from constitutional_ai.training.datasets import load_tokenizer, within, without_refused
from tests.families import make_family

HUMAN, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("experts", "output_router_logits", True),
        ("experts", "router_aux_loss_coef", 0.5),
        ("base", "use_cache", False),
        ("base", "attention_dropout", 0.1),
        ("base", "invented_by_a_trainer", 1),
    ],
)
@pytest.mark.parametrize("head", [False, True])
def test_what_a_trainer_set_for_itself_is_set_back(
    kind: str, name: str, value: object, head: bool, tmp_path: Path
) -> None:
    base = make_family(kind, tmp_path / "base")
    auto, more = (AutoModelForSequenceClassification, {"num_labels": 1}) if head else (AutoModelForCausalLM, {})
    model = auto.from_pretrained(base, dtype=torch.float32, **more)
    setattr(model.config, name, value)
    rounding.save(model, load_tokenizer(base), tmp_path / "saved")
    was, now = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "saved"))
    assert now.get(name) == was.get(name)
    if head:
        assert len(now["id2label"]) == 1


def test_a_base_model_with_a_template_is_saved_with_the_end_of_its_turns(tmp_path: Path) -> None:
    base = make_family("base", tmp_path / "base")
    tokenizer = load_tokenizer(base)
    turn, text = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<pad>"])
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (turn, text)
    rounding.save(AutoModelForCausalLM.from_pretrained(base), tokenizer, tmp_path / "saved")
    saved = {
        file: json.loads((tmp_path / "saved" / file).read_text())["eos_token_id"]
        for file in ("config.json", "generation_config.json")
    }
    assert saved == {"config.json": turn, "generation_config.json": [turn, text]}


def test_rows_that_a_template_refuses_are_left_out(tmp_path: Path) -> None:
    base = make_family("strict", tmp_path)
    fine = {"prompt": [HUMAN], "completion": [ANSWER]}
    twice = {"prompt": [HUMAN, HUMAN], "completion": [ANSWER]}
    assert without_refused([fine, twice, {"prompt": [HUMAN, HUMAN]}], base) == [fine]
    assert within([fine, twice], base, 100) == ([fine], 1)
