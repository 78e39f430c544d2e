"""What each round of revision did to the scores of preference models, over all chains of a run (EV-13; SL-20, SL-22).

The paper's figures 5 to 7: the first answer and every revision of it, scored by preference models that learned from
people's labels only. One that learned from the labels of the AI, and against which RL was trained, is no independent
witness (pitfall 21): it is scored all the same, and the user is told.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.detectors.evasion import evades
from constitutional_ai.errors import ModelError
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.intervals import mean, paired_difference, rate
from constitutional_ai.records import Completion, Message, Metric, RevisionChain
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run, digest_of
from constitutional_ai.runs.runner import Pass

PART, CHAINS = "revisions", layout.REVISIONS
NO_CHAINS = (
    "revisions: none of the models comes from a run that has made its 02-revisions, so there are no revisions to "
    "score. Name a run: cai evaluate runs/mine"
)
NOBODY = (
    "revisions: no preference model was named, so revisions are not scored. Name one that learned from people's labels "
    "only: --pm harmlessness=FOLDER"
)
NO_WITNESS = (
    "revisions: '{name}' is the preference model that a run made: it learned from the AI's labels, and RL was trained "
    "against it. What it says of the revisions is no independent evidence (EV-13)."
)

Chains = Mapping[str, Sequence[RevisionChain]]
"""By the run's label: the name of its folder."""


@dataclass(frozen=True, slots=True)
class RoundAnswer:
    """What stood as a chain's answer after so many revisions; after none, the initial response."""

    id: str
    run: str
    chain: str
    revision: int
    said: Completion
    fault: str | None
    """Why the revision of this round was passed over, so that the answer before it still stands."""
    talk: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class RevisionScore:
    """One preference model's score of what stood after one round."""

    id: str
    run: str
    chain: str
    revision: int
    preference_model: str
    score: float
    """As it is, centred on nothing: only differences under one preference model mean something (PM-6)."""
    fault: str | None
    """Why the revision of this round was passed over; the score is then of the answer before it."""


def measure(suite: Suite) -> list[Metric]:
    """``pm_score.<pm>.revision_<n>``, its paired change since the initial response, and ``evasive_rate.revision_<n>``.

    A metric's model is the run's label, its count the number of chains. Empty where no candidate comes from a run.
    """
    chains = chains_of(suite)
    if not chains:
        suite.say(NO_CHAINS)
        return []
    drafts = [draft for run, found in chains.items() for chain in found for draft in round_answers(run, chain)]
    scores: list[RevisionScore] = []
    for name, folder in suite.preference_models.items():
        if made_by_a_run(folder):
            suite.say(NO_WITNESS.format(name=name))
        scores += _scored(suite, drafts, name, folder)
    if not suite.preference_models:
        suite.say(NOBODY)
    return [*score_metrics(scores), *evasion_metrics(drafts)]


def chains_of(suite: Suite) -> dict[str, list[RevisionChain]]:
    """The chains of the candidates' runs, each run once, in the order of the candidates."""
    folders = dict.fromkeys(c.run for c in suite.candidates if c.run is not None)
    found = {label_of(folder): Run(Path(folder)).rows(CHAINS, RevisionChain) for folder in folders}
    return {label: chains[: suite.limit] for label, chains in found.items() if chains}


def label_of(folder: str | Path) -> str:
    return Path(folder).resolve().name


def round_answers(run: str, chain: RevisionChain) -> Iterator[RoundAnswer]:
    """The answer that stood after 0, 1, 2 … revisions. One with a fault is not built upon, so that the one before
    it stands: every round counts every chain."""
    said, asked = chain.initial.completion, chain.initial.prompt.conversation
    faults = (None, *(r.fault for r in chain.revisions))
    rounds = (said, *(r.revised for r in chain.revisions))
    for number, (made, fault) in enumerate(zip(rounds, faults, strict=True)):
        said = made if fault is None else said
        talk = (*asked, Message("assistant", said.text))
        yield RoundAnswer(f"{run}.{chain.id}.{number}", run, chain.id, number, said, fault, talk)


def _scored(suite: Suite, drafts: Sequence[RoundAnswer], name: str, folder: Path) -> list[RevisionScore]:
    async def passes() -> AsyncIterator[Pass[RoundAnswer, RevisionScore]]:
        from constitutional_ai.rl_cai.preference_model.scorable import Scorable
        from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel

        judge, scorable = PreferenceModel(folder), Scorable(folder)

        async def step(draft: RoundAnswer) -> RevisionScore:
            scorable.check(draft.talk)
            score = await judge.reward(draft.talk)
            if not math.isfinite(score):
                raise ModelError(f"{name} gives scores that are no numbers: its weights are broken.")
            return RevisionScore(
                f"{draft.id}.{name}", draft.run, draft.chain, draft.revision, name, score, draft.fault
            )

        yield Pass({f"{draft.id}.{name}": draft for draft in drafts}, step)

    texts = [f"{draft.id} {draft.said.text}" for draft in drafts]
    return suite.rows(
        f"{PART}/pm-{name}",
        RevisionScore,
        passes,
        config={"preference_model": str(folder)},
        inputs={"the revisions": digest_of(texts), f"the weights of {name}": weights_digest(f"hf:{folder}")},
    )


def made_by_a_run(folder: Path) -> bool:
    """Whether a preference model is one that the AI's labels went into."""
    stage = Path(folder).resolve().parent
    manifest = Run(stage.parent).manifest(stage.name)
    return manifest is not None and layout.PREFERENCE_LABELS in manifest.inputs


def score_metrics(scores: Sequence[RevisionScore]) -> list[Metric]:
    """Means with Student's interval, and changes against the initial response of the same chain.

    Only over chains of which every round has a score, so that all rounds speak of the same chains.
    """
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in scores:
        chains = found.setdefault((one.run, one.preference_model), {})
        chains.setdefault(one.chain, {})[one.revision] = one.score
    return [metric for (run, pm), chains in found.items() for metric in _of_rounds(run, pm, chains)]


def _of_rounds(run: str, pm: str, chains: Mapping[str, Mapping[int, float]]) -> Iterator[Metric]:
    rounds = sorted({number for by_round in chains.values() for number in by_round})
    whole = [by_round for by_round in chains.values() if len(by_round) == len(rounds)]
    scores = {number: [by_round[number] for by_round in whole] for number in rounds}
    for number in rounds:
        yield mean(f"pm_score.{pm}.revision_{number}", run, scores[number])
    for number in rounds[1:]:
        yield paired_difference(
            f"pm_score_change.{pm}.revision_{number}", run, scores[rounds[0]], scores[number]
        )


def evasion_metrics(drafts: Sequence[RoundAnswer]) -> list[Metric]:
    """Bare refusals among what stood after each round (SL-22), found by patterns: no model is asked."""
    found: dict[tuple[str, int], list[bool]] = {}
    for draft in drafts:
        found.setdefault((draft.run, draft.revision), []).append(evades(draft.said.text))
    return [rate(f"evasive_rate.revision_{n}", run, evading) for (run, n), evading in found.items()]
