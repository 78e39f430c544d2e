from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from constitutional_ai.errors import ModelError
from constitutional_ai.training.launch import arguments, digest_of_weights, load, lora, save
from constitutional_ai.training.settings import Training
from tests.training.jobs import training_job

LORA, WHOLE = Training(lora_rank=4), Training()


def test_nothing_is_reported_or_drawn_by_others() -> None:
    made = arguments(training_job(seed=2**40))
    assert made["report_to"] == "none"
    assert made["save_total_limit"] is None
    assert made["activation_checkpointing"] is False
    assert made["disable_tqdm"] is True
    assert made["lr_scheduler_type"] == "constant"  # SL-19
    assert 0 <= made["seed"] < 2**32


def test_all_three_configs_of_trl_take_them() -> None:
    from trl import RewardConfig, RLOOConfig, SFTConfig

    made = arguments(training_job(settings=Training(batch_size=8)))
    for config in (SFTConfig(**made), RewardConfig(**made), RLOOConfig(**made, num_generations=4)):
        assert config.report_to == []
        assert config.push_to_hub is False
        assert config.per_device_train_batch_size == 8


def test_telemetry_is_off_whatever_was_imported_before() -> None:
    code = """
import huggingface_hub.constants as hub
assert not hub.HF_HUB_DISABLE_TELEMETRY
import constitutional_ai.models.local.tokens
assert hub.HF_HUB_DISABLE_TELEMETRY
"""
    others = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB")}
    subprocess.run([sys.executable, "-c", code], env=others, check=True)


def test_weights_that_are_trained_are_float32(tiny: Path) -> None:
    assert load(tiny, WHOLE).dtype == torch.float32
    assert lora(WHOLE, "CAUSAL_LM") is None
    assert lora(LORA, "CAUSAL_LM").r == 4


def test_saved_weights_are_what_was_trained_and_their_digest_proves_it(tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    first = save(model, tokenizer, training_job(folder=tmp_path))
    assert (first.path, first.base_model) == (str(tmp_path / "model"), "hf:tiny")
    assert first.digest == digest_of_weights(tmp_path / "model") != digest_of_weights(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(first.path, dtype=torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.allclose(again.state_dict()[name], weight.float(), atol=0.02)
    assert AutoTokenizer.from_pretrained(first.path).chat_template == tokenizer.chat_template
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    assert save(model, tokenizer, training_job(folder=tmp_path)).digest != first.digest


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
def test_adapters_are_merged_into_what_is_saved(tiny: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = get_peft_model(load(tiny, LORA), lora(LORA, "CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight += 1.0
    save(model, AutoTokenizer.from_pretrained(tiny), training_job(folder=tmp_path))
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "model"))
    assert before.keys() == after.keys()
    changed = {k for k in before if not torch.equal(before[k].float(), after[k].float())}
    assert any("q_proj" in k for k in changed)
    assert not any("norm" in k for k in changed if before[k].dtype == after[k].dtype)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
@pytest.mark.parametrize("base", ["folder", "stage", "bundled", "hub"])
def test_an_adapter_names_its_base_and_no_place_on_this_machine(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    from peft import get_peft_model

    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    folders = {
        "folder": tmp_path / "my-base",
        "stage": tmp_path / "03-sl-cai-model" / "model",
        "bundled": tmp_path / "cache" / "smollm2-135m-v1",
    }
    source = shutil.copytree(tiny, folders[base]) if base in folders else tiny
    model = load(source, LORA)
    if base == "hub":
        model.name_or_path = model.config._name_or_path = "org/name"
    save(
        get_peft_model(model, lora(LORA, "CAUSAL_LM")),
        AutoTokenizer.from_pretrained(source),
        training_job(folder=tmp_path / "run"),
    )
    named, on_hub = {
        "folder": ("folder:my-base", None),
        "stage": ("folder:03-sl-cai-model/model", None),
        "bundled": ("bundled:smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        "hub": ("org/name", "org/name"),
    }[base]
    adapter = tmp_path / "run" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == named
    _, head, text = (adapter / "README.md").read_text().split("---\n")
    assert yaml.safe_load(head).get("base_model") == on_hub
    assert f"`{named}`" in text
    for file in (tmp_path / "run").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_saved_files_can_be_read_by_those_whom_the_umask_lets(
    tiny: Path, tmp_path: Path, umask: int, mode: int
) -> None:
    from peft import get_peft_model

    before = os.umask(umask)
    try:
        model = get_peft_model(load(tiny, LORA), lora(LORA, "CAUSAL_LM"))
        save(model, AutoTokenizer.from_pretrained(tiny), training_job(folder=tmp_path / "run"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {"model.safetensors", "adapter_model.safetensors", "adapter_config.json"} <= set(modes)
    assert set(modes.values()) == {mode}


def test_a_preference_model_is_no_base_of_a_model_that_writes(tiny_pm: Path) -> None:
    with pytest.raises(ModelError, match="only scores texts"):
        load(tiny_pm, WHOLE)
    assert load(tiny_pm, WHOLE, auto=AutoModelForSequenceClassification, num_labels=1)
