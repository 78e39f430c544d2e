"""Say at the start of a run what can be known about its models, before anything is paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from constitutional_ai.data.prompts import KINDS, Prompts, load_prompts, load_prompts_of_kind
from constitutional_ai.errors import InputError
from constitutional_ai.models.chat_template import template_thinking
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path, reachable_path
from constitutional_ai.models.refused_turns import REFUSED, refused_prompts
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Kind
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.runs import layout

Notify = Callable[[str], None]


def check_models(recipe: Recipe, stages: Set[str], notify: Notify) -> None:
    """Read the tokenizer and the configuration of every local model that unfinished ``stages`` need.

    Raises ModelError when one cannot be read, or has a chat template that cannot be used, and InputError when no
    preference model can be made of its base. ``notify`` is told where a setting of thinking and a template disagree.
    """
    models = recipe.models
    users = {
        "prompts": [layout.PROMPTS] if recipe.drafts else [],
        "helpful": [layout.RESPONSES, layout.REVISIONS, layout.EVALUATION],
        "pretrained": [layout.SL_CAI_MODEL],
        "feedback": [layout.PREFERENCE_LABELS],
    }
    for field, of_stages in users.items():
        if stages & set(of_stages) and _is_read(name := getattr(models, field)):
            _check_thinking(recipe, field, _tokens(name).tokenizer, notify)
    base = models.preference_model or models.pretrained
    if recipe.rl_cai.uses_preference_model and layout.PREFERENCE_MODEL in stages and _is_read(base):
        _check_head(base)


def _is_read(name: str) -> bool:
    """Return whether there is something to check: local weights other than the embedded ones, which are known."""
    return name.startswith(LOCAL_SCHEMES) and not name.startswith("bundled:")


def _tokens(name: str) -> Any:
    from constitutional_ai.models.local.tokens import Tokens

    return Tokens(name, reachable_path(name))


def _check_head(name: str) -> None:
    """Read the configuration alone: the base may be a preference model itself, which is no chat model."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from constitutional_ai.models.local.tokens import NO_CODE, cannot_load, settled_tokenizer

    settled_tokenizer(name, reachable_path(name))
    try:
        config = AutoConfig.from_pretrained(model_path(name), **NO_CODE)
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise InputError(
            f"no preference model can be made of '{name}': transformers has no scalar head for models of type "
            f"'{config.model_type}'. Set models.preference_model=hf:<a model of another family>, or "
            "rl_cai.algorithm=dpo, which needs none."
        )


SECTIONS = {
    "prompts": ("generation",),
    "helpful": ("responses", "revisions", "evaluation"),
    "pretrained": (),
    "feedback": ("feedback",),
}
"""The sections of the recipe whose ``thinking_tokens`` are for each model."""


def _check_thinking(recipe: Recipe, field: str, tokenizer: Any, notify: Notify) -> None:
    kind = template_thinking(tokenizer)
    for section in SECTIONS[field]:
        tokens = getattr(getattr(recipe, section), "thinking_tokens", 0)
        setting = f"{section}.thinking_tokens"
        if tokens and kind == "never":
            notify(
                f"warning: the chat template of models.{field} has no switch for thinking, so {setting}={tokens} only "
                "lengthens what the model may write."
            )
        if not tokens and kind == "effort":
            notify(
                f"warning: the chat template of models.{field} asks for little thought at the least, never for none. "
                f"Set {setting}, or short answers may be all thought."
            )


def load_all_prompts(recipe: Recipe) -> dict[Kind, Prompts]:
    """Load the recipe's prompts by kind; those of ``evaluation.prompts``, if given, stand for those held out.

    What the other files hold out is then neither trained on nor measured. Raises InputError as ``load_prompts`` does.
    """
    loaded = {kind: load_prompts_of_kind(getattr(recipe.prompts, kind).file, kind) for kind in KINDS}
    if recipe.evaluation.prompts is None:
        return loaded
    both = load_prompts(recipe.evaluation.prompts, "red_team")
    measured = [*both.train, *both.held_out]
    return {kind: Prompts(loaded[kind].train, [p for p in measured if p.kind == kind]) for kind in KINDS}


def apart(prompts: Mapping[Kind, Prompts], notify: Notify) -> dict[Kind, Prompts]:
    """Return the prompts without training prompts that the file of any kind holds out, and tell the user how many."""
    held_out = {prompt.id for file in prompts.values() for prompt in file.held_out}
    kept = {
        kind: Prompts([p for p in file.train if p.id not in held_out], file.held_out)
        for kind, file in prompts.items()
    }
    if dropped := sum(len(prompts[kind].train) - len(kept[kind].train) for kind in kept):
        notify(f"{dropped} training prompts are held out in another file, and are not trained on.")
    return kept


def divided(recipe: Recipe, prompts: Mapping[Kind, Prompts]) -> Iterator[str]:
    """Yield for each kind of prompts that is used how many there are to train on, and how many are held out."""
    for kind, file in prompts.items():
        limit = getattr(recipe.prompts, kind).limit
        if limit == 0:
            continue
        used = f" ({limit} of them used)" if limit is not None and limit < len(file.train) else ""
        none = "" if file.held_out else ': mark rows to evaluate on with "split": "held_out"'
        total, trained = len(file.train) + len(file.held_out), len(file.train)
        yield f"prompts.{kind}: {total} prompts: {trained} to train on{used}, {len(file.held_out)} held out{none}"


def usable_prompts(recipe: Recipe, prompts: Mapping[Kind, Prompts], notify: Notify) -> dict[Kind, Prompts]:
    """Return the prompts that the chat templates of the recipe's models take, and tell the user how many do not."""
    models = recipe.models
    names = [models.helpful, models.pretrained]
    if recipe.rl_cai.uses_preference_model:
        names.append(models.preference_model or models.pretrained)
    if METHODS[recipe.feedback.method].needs_assistants:  # its conversations are the pairs' own
        names.append(models.feedback)
    every = [prompt for file in prompts.values() for part in file for prompt in part]
    refused = refused_prompts(every, names)
    if refused:
        notify(f"{len(refused)} of {len(every)} prompts have {REFUSED} of a model, and are left out.")
    return {
        kind: Prompts(*[[p for p in part if p.id not in refused] for part in file])
        for kind, file in prompts.items()
    }
