from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.recipes.describe import ID, key_lines, keys_under, recipe_keys, recipe_page, values_of
from constitutional_ai.recipes.paper_sections import SECTIONS_OF
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.recipes.recipe_file import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def printed(*words: str) -> str:
    result = CliRunner().invoke(main, ["recipe", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_key_is_there_and_says_what_it_does() -> None:
    names = [key.name for key in recipe_keys() if not key.is_section]
    written = flat(yaml.safe_load(Recipe().to_yaml()))
    within = {"preference_model.pretraining", "rl_cai.stop_above"}  # null, and a mapping
    assert set(written) - within <= set(names)
    assert len(names) == len(set(names)) > 100
    assert [key.name for key in recipe_keys() if len(key.text.split()) < 3 or key.text[-1] not in ".?"] == []


def test_every_value_and_default_is_the_codes() -> None:
    demo = values_of(load_recipe("demo"))
    assert demo["rl_cai.stop_above"] == {"refuses_harmless": 0.2}
    for key in recipe_keys():
        if not key.is_section and "pretraining" not in key.name:
            assert values_of(Recipe())[key.name] == key.default, key.name


def test_what_the_docstrings_cite_has_a_section_of_the_paper() -> None:
    cited = {one for key in recipe_keys() for one in ID.findall(key.text)}
    assert cited == set(SECTIONS_OF)


def test_the_page_is_what_the_code_says() -> None:
    """Renew it with: cai recipe --markdown > docs/recipes.md."""
    assert PAGE.read_text(encoding="utf-8") == recipe_page() == printed("--markdown")


def test_a_key_is_shown_with_its_value_its_range_and_the_paper() -> None:
    value, span, meaning, paper = printed("demo", "rl_cai.kl_weight").splitlines()
    assert value == "rl_cai.kl_weight=0.05  (default: 0.001)"
    assert span == "  number, at least 0 and at most 1,000,000"
    assert meaning.startswith("  Weight of the KL divergence from SL-CAI") and meaning.endswith(".")
    assert paper == "  Paper: Bai et al. 2022a, appendices B.1 and B.3 (RL-2)"
    assert printed("revisions.rounds").startswith("revisions.rounds=4\n")
    assert printed("paper", "rl_cai").startswith("rl_cai:\n")
    assert "rl_cai.algorithm=ppo  (default: rloo)" in printed("paper", "rl_cai")


def test_what_is_shown_can_be_typed() -> None:
    demo = load_recipe("demo")
    keys = [key for key in recipe_keys() if not key.is_section and "pretraining" not in key.name]
    typed = [line.partition("  (default")[0] for line in key_lines(keys, values_of(demo)) if line[:1].isalpha()]
    assert len(typed) == len(keys)
    assert load_recipe("demo", typed) == demo


@pytest.mark.parametrize(
    ("name", "meant"),
    [("round", "revisions.rounds or sl_cai.rounds"), ("revision.rounds", "revisions.rounds"), ("qqq", "")],
)
def test_an_unknown_key_names_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"no key '{name}'") as caught:
        keys_under(name)
    assert meant in str(caught.value)


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    schema = json.loads(printed("--schema"))
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Revisions"]["properties"]["style"]["enum"][:2] == ["critiqued", "direct"]
