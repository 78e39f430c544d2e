from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from constitutional_ai.errors import InputError
from constitutional_ai.models.model import Sampling
from constitutional_ai.recipes.describe import recipe_keys
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.recipes.recipe_file import BUILT_IN, explained, load_recipe

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*BUILT_IN.glob("*.yaml"), *(ROOT / "recipes").glob("*.yaml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_recipe_is_read(path: Path) -> None:
    assert isinstance(load_recipe(str(path)), Recipe)


def test_ours_are_found_by_name() -> None:
    assert load_recipe("demo") == load_recipe(str(BUILT_IN / "demo.yaml"))


def test_defaults_are_the_papers() -> None:
    paper = Recipe()
    assert (paper.revisions.rounds, paper.revisions.style) == (4, "critiqued")  # SL-8
    assert paper.sl_cai.rounds is None  # SL-16
    assert paper.responses.per_helpful_prompt == 2  # SL-16
    sampled = (paper.responses, paper.revisions, paper.comparisons)
    assert [s.temperature for s in sampled] == [1.0] * 3  # SL-10
    assert (paper.generation.temperature, paper.generation.shots) == (1.0, 10)  # SL-3
    assert (paper.feedback.method, paper.feedback.principles) == ("multiple_choice", 1)  # FB-3, FB-6
    assert (paper.sl_cai.epochs, paper.rl_cai.kl_weight) == (1.0, 0.001)  # SL-19, RL-2


@pytest.mark.parametrize("recipe", [Recipe(), load_recipe("demo")])
def test_written_out_it_holds_every_key_and_reads_back_the_same(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert yaml.safe_load(recipe.to_yaml()).keys() == Recipe.model_fields.keys()
    assert yaml.safe_load(recipe.to_yaml())["rl_cai"]["kl_weight"] is not None


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("seed=7", lambda r: r.seed == 7),
        ("revisions.rounds=1", lambda r: r.revisions.rounds == 1),
        ("prompts.red_team.limit=3", lambda r: r.prompts.red_team.limit == 3),
        ("prompts.red_team.limit=null", lambda r: r.prompts.red_team.limit is None),
        ("sl_cai.learning_rate=1e-4", lambda r: r.sl_cai.learning_rate == 1e-4),
        ("sl_cai.lora_rank=null", lambda r: r.sl_cai.lora_rank is None),
        ("rl_cai.algorithm=grpo", lambda r: r.rl_cai.algorithm == "grpo"),
        ("rl_cai.algorithm=ppo", lambda r: r.rl_cai.algorithm == "ppo"),
        ("feedback.both_orders=false", lambda r: r.feedback.both_orders is False),
        ("models.helpful=server:m@http://localhost:1/v1", lambda r: r.models.helpful.startswith("server:m@")),
        ("revisions.clean=[opener, empty]", lambda r: r.revisions.clean == ("opener", "empty")),
        ("sl_cai.rounds=1", lambda r: r.sl_cai.rounds == 1),
        ("out=runs/a=b", lambda r: r.out == "runs/a=b"),
    ],
)
def test_any_key_can_be_changed_on_the_command_line(change: str, value: object) -> None:
    assert value(load_recipe("demo", [change]))


def test_the_recipe_paper_reinforces_as_the_paper_does() -> None:
    ours = load_recipe("paper").rl_cai
    assert (ours.algorithm, ours.answers) == ("ppo", 1)  # RL-1
    assert (ours.kl_weight, ours.clip, ours.passes) == (0.001, 0.2, 1)  # RL-2
    assert ours.sampling == Sampling(temperature=1.0, max_tokens=128)  # RL-2


def test_only_the_recipe_paper_cleans_nothing_as_the_paper_says_nothing_of_it() -> None:
    assert load_recipe("paper").revisions.clean == ()
    assert Recipe().revisions.clean == ("opener", "empty", "identical", "repetition")


def test_the_last_change_wins_and_the_rest_stays() -> None:
    changed = load_recipe("demo", ["revisions.rounds=1", "revisions.rounds=3"])
    assert changed.revisions.rounds == 3
    assert changed.revisions.style == load_recipe("demo").revisions.style


IN_FILE = [  # (recipe, what is said after the file's name)
    (  # comparisons are people's: none are drafted
        "preference_model:\n  helpfulness:\n    generate: 5\n",
        ":3: preference_model.helpfulness.generate: unknown key 'generate'.",
    ),
    ("revisions:\n  ronds: 2\n", ":2: revisions.ronds: unknown key 'ronds'. Did you mean 'rounds'?"),
    ("seed: 0\nrevision: {}\n", ":2: revision: unknown key 'revision'. Did you mean 'revisions'?"),
    (
        "revisions:\n  style: critique\n",
        ":2: revisions.style: unknown value 'critique'. Did you mean 'critiqued'?",
    ),
    (
        "feedback: {method: polls}\n",
        ":1: feedback.method: unknown value 'polls'. Known: chain_of_thought, decision, likelihood, multiple_choice, "
        "votes.",
    ),
    ("revisions:\n  rounds: -1\n", ":2: revisions.rounds: must be at least 0"),
    ("revisions:\n  rounds: many\n", ":2: revisions.rounds: must be a whole number"),
    (
        "prompts:\n  red_team:\n    fil: x\n",
        ":3: prompts.red_team.fil: unknown key 'fil'. Did you mean 'file'?",
    ),
    (
        "revisions:\n  clean: [empty, repeat]\n",
        ":2: revisions.clean.1: unknown value 'repeat'. Did you mean 'repetition'?",
    ),
    (
        "revisions: {rounds: 2}\nsl_cai: {rounds: 3}\n",
        ":2: sl_cai: rounds (3) must not be more than revisions.rounds (2)",
    ),
    ("sl_cai: {rounds: 0}\n", ":1: sl_cai.rounds: must be at least 1"),
    ("models:\n  helpful: gpt\n", ":2: models.helpful: unknown model 'gpt'."),
    ("sl_cai:\n  learning_rate: .nan\n", ":2: sl_cai.learning_rate: must be"),
    ("rl_cai: {batch_size: 6, answers: 4}\n", ":1: rl_cai: batch_size (6) must be a multiple of answers (4)"),
    (
        "rl_cai: {answers: 1}\n",
        ":1: rl_cai: rloo compares answers to the same prompt: set answers to 2 or more",
    ),
    (
        "rl_cai: {algorithm: ppo, answers: 1, batch_size: 1}\n",
        ":1: rl_cai: batch_size must be 2 or more: PPO whitens advantages over a batch",
    ),
    ("rl_cai: {algorithm: pppo}\n", ":1: rl_cai.algorithm: unknown value 'pppo'. Did you mean 'ppo'?"),
    (
        "rl_cai: {algorithm: dpo, reward: feedback}\n",
        ":1: rl_cai: dpo samples no answers: remove reward=feedback",
    ),
    (
        "rl_cai: {algorithm: ppo, answers: 1, reward: groupwise}\n",
        ":1: rl_cai: reward=groupwise compares answers to the same prompt: set answers to 2 or more",
    ),
    ("rl_cai: {algorithm: dpo, kl_weight: 0}\n", ":1: rl_cai: dpo needs a kl_weight above 0"),
    ("rl_cai: {kl_weight: 0, stop_above: {kl: 1}}\n", ":1: rl_cai: stop_above.kl needs a kl_weight above 0"),
    (
        "preference_model: {second: true}\nrl_cai: {reward: feedback}\n",
        ":1: preference_model.second must be false, because RL uses no preference model",
    ),
    ("rl_cai: {temperature: 0}\n", ":1: rl_cai.temperature: must be above 0"),
    ("- a\n", " must hold keys such as 'models:'"),
    ("seed: [\n", ":2: not YAML:"),
]


@pytest.mark.parametrize(("text", "said"), IN_FILE)
def test_a_mistake_in_a_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(f"{path}{said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rounds", "'rounds' has no '='. Write key=value, for example revisions.rounds=2."),
        (
            "revisions.ronds=2",
            "on the command line: revisions.ronds: unknown key 'ronds'. Did you mean 'rounds'?",
        ),
        (
            "revisions.style=none",
            "on the command line: revisions.style: unknown value 'none'. Known: critiqued",
        ),
        ("revisions.rounds.first=2", "'revisions.rounds.first=2': rounds has no keys."),
        ("revisions.rounds=[", "'revisions.rounds=[': not YAML: "),
        (
            "sl_cai.rounds=3",
            "on the command line: sl_cai: rounds (3) must not be more than revisions.rounds (1)",
        ),
        ("rl_cai.answers=5", "on the command line: rl_cai: batch_size (32) must be a multiple of answers (5)"),
        ("models.helpful=bundeld:smollm2-135m", "on the command line: models.helpful: unknown model"),
        ("=3", "on the command line: unknown key ''."),
        (
            "out=s4://bucket/run",
            "on the command line: out: must be a folder, or an address that begins with file://",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_said_to_be_there(change: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("demo", [change])
    assert str(caught.value).startswith(said)


def test_a_recipe_that_is_nearly_ours_is_named() -> None:
    with pytest.raises(InputError, match=r"no recipe 'dmeo': .* Did you mean 'demo'\?"):
        load_recipe("dmeo")


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.touch()
    assert load_recipe(str(path)) == Recipe()


def test_a_section_left_empty_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("revisions:\n")
    assert load_recipe(str(path), ["revisions.rounds=2"]).revisions.rounds == 2


def test_the_preference_model_may_be_made_of_another_model_and_its_name_is_checked_too() -> None:
    assert Recipe().models.preference_model is None
    assert load_recipe("demo", ["models.preference_model=hf:mine"]).models.preference_model == "hf:mine"
    with pytest.raises(InputError, match=r"models\.preference_model: unknown model 'gpt-5'"):
        load_recipe("demo", ["models.preference_model=gpt-5"])


@pytest.mark.parametrize("section", ["sl_cai", "preference_model"])
def test_a_share_is_neither_nothing_nor_all(section: str) -> None:
    assert getattr(Recipe(), section).helpful_share is None
    for share in ("0", "1", "1.5"):
        with pytest.raises(InputError, match=rf"{section}\.helpful_share"):
            load_recipe("demo", [f"{section}.helpful_share={share}"])


def test_a_former_key_is_ignored_in_the_recipe_of_an_old_run_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("rl_cai: {gae_lambda: 0.9, value_learning_rate: 0.001, truncated: mask, passes: 2}\n")
    with pytest.raises(InputError, match="unknown key"):
        load_recipe(str(path))
    (tmp_path / "run.json").write_text("{}")
    assert load_recipe(str(path)).rl_cai.passes == 2


def whole_numbers(section: type[BaseModel], place: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that is a whole number, in all sections."""
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from whole_numbers(type(field.default), f"{place}{name}.")
        elif field.annotation in (int, int | None):
            yield place + name, field


def test_every_whole_number_has_a_largest_value_that_a_machine_can_bear() -> None:
    fields = dict(whole_numbers(Recipe))
    bounded = {
        name for name, f in fields.items() if any(hasattr(m, "le") or hasattr(m, "lt") for m in f.metadata)
    }
    assert len(fields) > 30
    assert fields.keys() - bounded == set()


@pytest.mark.parametrize("key", ["responses.per_helpful_prompt", "revisions.rounds", "feedback.votes"])
def test_a_number_beyond_it_is_refused_before_anything_is_made(key: str) -> None:
    with pytest.raises(InputError, match=rf"on the command line: {key}: must be at most 1,000"):
        load_recipe("demo", [f"{key}=1000000000"])


def test_null_means_null_where_it_is_a_value(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("cache: null\nmodels:\nrevisions: null\n")
    assert load_recipe(str(path)) == Recipe(cache=None)
    path.write_text("out: null\n")
    with pytest.raises(InputError, match=r"mine.yaml:1: out: must be a text"):
        load_recipe(str(path))


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(InputError, match="constitution: holds NUL"):
        load_recipe("demo", ['constitution="a\\0b"'])


THEIR_WORDS = re.compile(r"[Ii]nput should|[Ff]ield required|should have|[Ee]xtra inputs|valid |[Uu]nable to")
WRONG = ("x", -1, 10**30, 0.5, float("nan"), True, None, [], ["x"], [[]], {}, {"x": "y"})


def test_no_word_of_a_library_is_in_any_error_of_a_recipe() -> None:
    """Try every kind of wrong value for every key."""
    messages = set()
    for key in recipe_keys():
        for value in WRONG:
            nested = value
            for step in reversed(key.name.split(".")):
                nested = {step: nested}
            try:
                Recipe.model_validate(nested)
            except ValidationError as error:
                messages.add(str(explained(error, Recipe)))
    assert len(messages) > 300
    assert [message for message in messages if THEIR_WORDS.search(message)] == []


def test_a_value_for_a_section_is_told_the_keys_of_the_section() -> None:
    for change, key in (
        ("prompts.red_team=mine.jsonl", "prompts.red_team.file=value"),
        ("models=x", "models.helpful"),
    ):
        with pytest.raises(InputError, match=r"on the command line: .* holds further keys") as caught:
            load_recipe("paper", [change])
        assert key in str(caught.value)
