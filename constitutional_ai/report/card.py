"""Model cards: ``model/README.md`` of every model that a run trained, in the form that Hugging Face's hub reads.

A card is written when its model is made, and completed when the run is evaluated. It says what the model was made from,
with which settings, and what was measured, with counts. Names in it are strangers' text: they are escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.models.local.bundled import HUB_ID
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Metric
from constitutional_ai.report.drawing import LABEL
from constitutional_ai.report.page.formatting import interval, many, number
from constitutional_ai.report.page.rates import MEASURED, Row
from constitutional_ai.rl_cai.preference_model.held_out_report import PreferenceModelReport
from constitutional_ai.runs import layout
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import load_json, read_steps, write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible


class About(NamedTuple):
    title: str
    tag: str
    task: str
    """As the hub names tasks."""
    logged: dict[str, str]
    """Keys of ``metrics.jsonl`` that the card shows, and what they are."""
    roles: tuple[str, ...] = layout.ROLES
    """Models that the card shows measurements of."""


LOSS = {"loss": "loss"}
ABOUT = {
    layout.SL_CAI_MODEL: About("SL-CAI", "sl-cai", "text-generation", LOSS, layout.ROLES[:2]),
    layout.PREFERENCE_MODEL: About(
        "preference model",
        "preference-model",
        "text-classification",
        {**LOSS, "agreement": "share of pairs ranked as their label does"},
    ),
    layout.RL_CAI_MODEL: About(
        "RL-CAI",
        "rl-cai",
        "text-generation",
        {
            **LOSS,
            "reward": "reward",
            "second_reward": "score of a preference model that it was not rewarded by",
            "kl": "KL divergence from SL-CAI",
            "completions/mean_length": "tokens in an answer",
            "evasive": "share of bare refusals",
            "boilerplate": "share of known boilerplate",
            "degenerate": "share of broken answers",
            "rewards/accuracies": "share of pairs ranked as their label does",
        },
    ),
}
SOURCES = {
    "ai": "pairs labelled by the feedback model",
    "people": "pairs judged by people",
    "red_team": "red-team",
}


WITH_IT = (layout.CONSTITUTION, layout.RECIPE)
"""What lies beside a card, whole: a model that is passed on brings both along."""


def write_cards(run: Run, recipe: Recipe, constitution: Constitution) -> None:
    """Writes the cards of the models that the run has. One that would say the same as before is left alone."""
    for stage in ABOUT:
        path, manifest = run.stage(stage) / layout.WEIGHTS / "README.md", run.manifest(stage)
        if manifest is None or not path.parent.is_dir():
            continue
        text = card(run, manifest, recipe, constitution)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
            for name in WITH_IT:
                write_atomically(path.with_name(name), (run.folder / name).read_text(encoding="utf-8"))


def card(run: Run, manifest: StageManifest, recipe: Recipe, constitution: Constitution) -> str:
    """The card of one trained model; ``manifest`` is its stage's."""
    about, models = ABOUT[manifest.stage], recipe.models
    is_pm = manifest.stage == layout.PREFERENCE_MODEL
    base = (models.preference_model if is_pm else None) or models.pretrained
    by_pm = recipe.rl_cai.uses_preference_model
    learned = is_pm or (about.tag == "rl-cai" and by_pm)
    scores = run.stage(layout.PREFERENCE_MODEL) / layout.PREFERENCE_MODEL_REPORT
    steps = read_steps(run.stage(manifest.stage) / layout.STEPS)
    return template().render(
        head=head(about, base),
        name=run.folder.name,
        about=about,
        base=base,
        recipe=recipe,
        constitution=constitution,
        made=manifest,
        sources=[(SOURCES.get(s, s), count) for s, count in manifest.notes.get("sources", {}).items()],
        step=steps[-1].get("step") if steps else None,
        logged=list(last(steps[-1], about)) if steps else [],
        report=load_json(scores, PreferenceModelReport) if learned else None,
        measured=list(measured(run, about)),
        roles=[LABEL[role] for role in about.roles],
    )


def template() -> Template:
    page = Environment(  # noqa: S701  (no HTML: everything passes through `plain`)
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        finalize=lambda value: plain(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {"number": number, "range": interval, "many": many, "code": code}
    return page.get_template("card.md")


def head(about: About, base: str) -> Markup:
    """What the hub reads by machine. A base model that lies in a folder has no name there."""
    named, tags = hub_id(base), ["constitutional-ai", about.tag]
    known = {"library_name": "transformers", "pipeline_tag": about.task, "tags": tags}
    more = {"base_model": named} if named else {}
    return Markup(yaml.safe_dump(known | more, sort_keys=False))  # noqa: S704  (names that the hub allows)


def hub_id(model: str) -> str | None:
    """
    >>> hub_id("hf:some/model"), hub_id("hf:./folder"), hub_id("bundled:smollm2-135m")
    ('some/model', None, 'HuggingFaceTB/SmolLM2-135M-Instruct')
    """
    scheme, _, rest = model.partition(":")
    if scheme == "bundled":
        return HUB_ID[rest]
    named = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", rest, re.ASCII) and not Path(rest).exists()
    return rest if named else None


def last(row: dict[str, Any], about: About) -> Iterator[tuple[str, str]]:
    """What a logged row says, in words and numbers of three digits."""
    for key, label in about.logged.items():
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            yield label, f"{value:.3g}".replace("-", "−")


def measured(run: Run, about: About) -> Iterator[tuple[Row, list[Metric | None]]]:
    """Rows of the evaluation, for the models of ``about.roles``. Of a preference model only its own scores."""
    metrics = load_json(run.stage(layout.EVALUATION) / layout.METRICS, tuple[Metric, ...]) or ()
    found = {(m.name, m.model): m for m in metrics}
    for row in MEASURED:
        cells = [found.get((row.name, role)) for role in about.roles]
        if any(cells) and (about.tag != "preference-model" or row.name.endswith("_pm_score")):
            yield row, cells


def plain(text: str) -> str:
    r"""A stranger's text as one line of Markdown that says it, and does nothing else.

    >>> plain("<b>\n# [a](b)")
    '\\<b\\> \\# \\[a\\](b)'
    """
    if isinstance(text, Markup):
        return text
    return re.sub(r"([\\`*_{}\[\]<>|~&$!#])", r"\\\1", re.sub(r"\s+", " ", visible(text)))


def code(value: dict[str, Any]) -> Markup:
    """Settings as YAML. Indented, not fenced: no text can end such a block."""
    text = visible(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    return Markup("\n".join(f"    {line}" for line in text.splitlines()))  # noqa: S704
