from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import pytest

from constitutional_ai.errors import CaiError, InputError, ModelError
from constitutional_ai.evaluation.candidates import find_candidates
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.load import Engine, check_name, load_model, model_path
from constitutional_ai.models.local.choose import FORMER_NAMES, PACKAGES
from constitutional_ai.models.local.tokens import Tokens
from constitutional_ai.models.scores_only import check_writes
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.recipes.recipe_file import load_recipe


@pytest.mark.parametrize(
    "name",
    [
        "bundled:smollm2-135m",
        "hf:./folder",
        "hf:org/name",
        "server:m@http://localhost:8000/v1",
        "scripted:echo",
    ],
)
def test_a_name_with_a_backend_is_good_and_checking_loads_nothing(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "gpt-4",
            "unknown model 'gpt-4'. Known: anthropic, bundled, hf, scripted, server. A model is one of bundled:",
        ),
        ("bundeld:smollm2-135m", "unknown model 'bundeld:smollm2-135m'. Did you mean 'bundled'?"),
        ("bundled:smollm2-135", "unknown embedded model 'smollm2-135'. Did you mean 'smollm2-135m'?"),
        ("hf:", "write hf:<folder or hub id>"),
        ("server:m", "'server:m' lacks a part: write server:<model>@http://<host>:<port>/v1"),
        ("server:@http://x/v1", "lacks a part"),
        ("server:m@localhost:8000", "lacks a part"),
        ("scripted:sing", "unknown scripted model 'sing'. Known: asks-back, coin-flips, echo, fewer-words."),
        ("", "unknown model ''."),
    ],
)
def test_a_name_that_no_backend_has_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_name(name)
    assert said in str(caught.value)


def test_each_name_finds_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_model("scripted:echo"), ScriptedModel)
    server = load_model("server:org/m@http://localhost:8000/v1")
    assert isinstance(server, ServerModel)
    assert server.name == "server:org/m@http://localhost:8000/v1"


def test_the_chosen_engine_runs_the_weights_and_is_named(tiny: Path) -> None:
    said: list[str] = []
    model = load_model(f"hf:{tiny}", engine="transformers", say=said.append)
    assert type(model).__name__ == "TransformersModel"
    assert said == [f"hf:{tiny} runs on engine transformers (as set)."]
    with pytest.raises(InputError, match="unknown engine 'abacus'"):
        load_model(f"hf:{tiny}", engine="abacus")


def test_a_recipe_may_name_each_engine_also_as_older_runs_did() -> None:
    assert set(get_args(Engine)) == {*PACKAGES, *FORMER_NAMES}


@pytest.mark.parametrize("name", ["server:m@http://x/v1", "scripted:echo"])
def test_a_model_without_local_weights_cannot_be_trained(name: str) -> None:
    with pytest.raises(InputError, match="has no weights on this machine"):
        model_path(name)


def test_a_folder_is_a_path_and_anything_else_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert model_path(f"hf:{tmp_path}") == tmp_path
    assert model_path("hf:org/name") == "org/name"
    with pytest.raises(InputError, match=r"no folder '\./nowhere'\. Write hf:"):
        model_path("hf:./nowhere")


def broken(good: Path, folder: Path, what: str) -> str:
    shutil.copytree(good, folder)
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "weights cut short":
        with (folder / "model.safetensors").open("rb+") as file:
            file.truncate(5000)
    elif what == "torn config":
        (folder / "config.json").write_text('{"model_type": "lla')
    elif what == "unknown architecture":
        (folder / "config.json").write_text('{"model_type": "abacus"}')
    elif what == "pickled weights only":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif what == "torn tokenizer":
        (folder / "tokenizer.json").write_text('{"version": "1.')
    return f"hf:{folder}"


@pytest.mark.parametrize(
    "what",
    [
        "no weights",
        "weights cut short",
        "torn config",
        "unknown architecture",
        "pickled weights only",
        "torn tokenizer",
    ],
)
def test_a_broken_folder_gives_one_sentence_that_names_it(tiny: Path, tmp_path: Path, what: str) -> None:
    name = broken(tiny, tmp_path / "model", what)
    with pytest.raises(ModelError, match=f"cannot load '{name}': ") as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_an_unknown_hub_id_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaiError, match=f"'{tmp_path}' holds no config.json"):
        load_model(f"hf:{tmp_path}")
    with pytest.raises(CaiError, match="cannot load 'hf:no-such-organisation/no-such-model': "):
        load_model("hf:no-such-organisation/no-such-model")


def test_a_preference_model_is_refused_where_a_model_has_to_write(tiny_pm: Path, tmp_path: Path) -> None:
    name = f"hf:{tiny_pm}"
    said = "is a preference model or another model that only scores texts. Name one that writes them."
    with pytest.raises(ModelError, match=said):
        load_model(name)
    with pytest.raises(ModelError, match=said):
        Tokens(name, tiny_pm)  # as of a hub id, whose configuration is read when it is loaded
    with pytest.raises(ModelError, match=said):
        find_candidates([name])
    for role in ("helpful", "pretrained", "feedback", "prompts"):
        with pytest.raises(ModelError, match=said):
            load_recipe("demo", [f"models.{role}={name}"])
    assert load_recipe("demo", [f"models.preference_model={name}"]).models.preference_model == name


@pytest.mark.parametrize(
    "config", ["[]", "{", '{"architectures": null}', '{"architectures": ["LlamaForCausalLM"]}']
)
def test_a_configuration_that_says_nothing_of_scores_is_left_to_the_loader(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    check_writes(f"hf:{tmp_path}")
