"""Measure how each round of revision changes preference-model scores (EV-13; SL-20, SL-22; figures 5 to 7).

Preference models score the first answer of every chain of a run and each of its revisions. They should have learned
from people's labels only. Scores of a model that learned from the AI's labels, and against which RL was trained, are
not independent evidence (pitfall 21): they are computed, but ``cai evaluate`` warns of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.detectors.objection import evades
from constitutional_ai.evaluation.suite import Score, Suite
from constitutional_ai.metrics.intervals import UNBOUNDED, mean, paired_difference, rate
from constitutional_ai.records import Conversation, Message, Metric, RevisionChain
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run, digest_of

PART = "revisions"
NO_CHAINS = (
    f"revisions: not scored, because no model is from a run that has finished its {layout.REVISIONS}. "
    "Name a run: cai evaluate runs/mine"
)
NOBODY = (
    "revisions: not scored, because there is no preference model. Name one that learned from people's labels only: "
    "--pm harmlessness=FOLDER"
)


@dataclass(frozen=True, slots=True)
class RoundAnswer:
    """A chain's answer after some number of revisions; after 0, the initial response."""

    id: str
    run: str
    """Label of the run."""
    chain: str
    revision: int
    fault: str | None
    """Why this round's revision was left out; the previous answer then counts again."""
    conversation: Conversation
    """The prompt's conversation with the answer at its end."""

    @property
    def text(self) -> str:
        return self.conversation[-1].content


@dataclass(frozen=True, slots=True)
class RevisionScore:
    """A preference model's score of a chain's answer after one round."""

    id: str
    run: str
    chain: str
    revision: int
    preference_model: str
    score: float
    """Score, not centred: only differences under one preference model have a meaning (PM-6)."""
    fault: str | None
    """Why this round's revision was left out; the score is then that of the previous answer."""


def measure(suite: Suite) -> list[Metric]:
    """Return ``pm_score.<pm>.revision_<n>``, its change since the initial response, and ``evasive_rate.revision_<n>``.

    A metric's model is the run's label, and its count is the number of chains. Empty if no candidate is from a run.
    """
    chains = chains_of(suite)
    if not chains:
        suite.say(NO_CHAINS)
        return []
    answers = [a for run, of_run in chains.items() for chain in of_run for a in round_answers(run, chain)]
    scores: list[RevisionScore] = []
    for name in suite.preference_models:
        scores += _score(suite, answers, name)
    if not suite.preference_models:
        suite.say(NOBODY)
    return [*score_metrics(scores), *evasion_metrics(answers)]


def chains_of(suite: Suite) -> dict[str, list[RevisionChain]]:
    """Return the chains of the candidates' runs by the run's label, in the order of the candidates."""
    folders = dict.fromkeys(c.run for c in suite.candidates if c.run is not None)
    rows = {label_of(folder): Run(Path(folder)).rows(layout.REVISIONS, RevisionChain) for folder in folders}
    by_run = {label: [chain for chain in chains if chain.asks_for_harm] for label, chains in rows.items()}
    return {label: chains[: suite.limit] for label, chains in by_run.items() if chains}


def label_of(folder: str | Path) -> str:
    """Return the label of a run: the name of its folder."""
    return Path(folder).resolve().name


def round_answers(run: str, chain: RevisionChain) -> Iterator[RoundAnswer]:
    """Yield the answer after 0, 1, 2 … revisions.

    After a faulty revision, the previous answer is repeated, so that every chain counts in every round.
    """
    text = chain.initial.text
    rounds = [(text, None), *((r.revised.text, r.fault) for r in chain.revisions)]
    for number, (revised, fault) in enumerate(rounds):
        text = revised if fault is None else text
        ended = (*chain.initial.prompt.conversation, Message("assistant", text))
        yield RoundAnswer(f"{run}.{chain.id}.{number}", run, chain.id, number, fault, ended)


def _score(suite: Suite, answers: Sequence[RoundAnswer], name: str) -> list[RevisionScore]:
    async def step(score: Score, one: RoundAnswer) -> RevisionScore:
        value = await score(one.conversation)
        return RevisionScore(f"{one.id}.{name}", one.run, one.chain, one.revision, name, value, one.fault)

    items = {f"{one.id}.{name}": one for one in answers}
    inputs = {"the revisions": digest_of(f"{one.id} {one.text}" for one in answers)}
    return suite.scored(PART, RevisionScore, items, step, name=name, inputs=inputs)


def score_metrics(scores: Sequence[RevisionScore]) -> list[Metric]:
    """Return the mean score of each round with Student's interval, and its change since the initial response.

    A chain counts only if all its rounds have a score, so that all rounds are means over the same chains.
    """
    groups: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for one in scores:
        groups[one.run, one.preference_model][one.chain][one.revision] = one.score
    return [metric for (run, pm), chains in groups.items() for metric in _round_metrics(run, pm, chains)]


def _round_metrics(run: str, pm: str, chains: Mapping[str, Mapping[int, float]]) -> Iterator[Metric]:
    rounds = sorted({number for by_round in chains.values() for number in by_round})
    complete = [by_round for by_round in chains.values() if len(by_round) == len(rounds)]
    scores = {number: [by_round[number] for by_round in complete] for number in rounds}
    for number in rounds:
        yield mean(f"pm_score.{pm}.revision_{number}", run, scores[number], within=UNBOUNDED)
    for number in rounds[1:]:
        yield paired_difference(
            f"pm_score_change.{pm}.revision_{number}", run, scores[rounds[0]], scores[number], within=UNBOUNDED
        )


def evasion_metrics(answers: Sequence[RoundAnswer]) -> list[Metric]:
    """Return the share of evasive answers after each round (SL-22), among those that the detector reads."""
    groups: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for one in answers:
        if (evading := evades(one.text)) is not None:
            groups[one.run, one.revision].append(evading)
    return [rate(f"evasive_rate.revision_{n}", run, evading) for (run, n), evading in groups.items()]
