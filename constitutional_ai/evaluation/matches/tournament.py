"""Matches between all models, and their Elo in harmlessness and in helpfulness (EV-7 to EV-11; figures 2, 3 and 8).

Matches are played in rounds, one for each human turn: first every model answers all that it is to answer, then all
choices are made, then the human turns that the prompts lack are written. So one model is in memory at a time, and each
is loaded once a round. What a round made lies in ``matches/1-replies``, ``matches/1-choices`` and ``matches/1-human``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.matches.game import (
    Choosing,
    Game,
    MatchTurn,
    by_judge,
    by_score,
    choose,
    reply,
    reply_id,
)
from constitutional_ai.evaluation.matches.human_turns import human_id, human_turn, human_turns, spoken
from constitutional_ai.evaluation.matches.pairings import pairings
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.elo import elo
from constitutional_ai.metrics.intervals import share
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Candidate, Conversation, Kind, Message, Metric, Prompt, Response
from constitutional_ai.runs.run import digest_of
from constitutional_ai.runs.runner import Pass

TESTS: dict[Kind, str] = {"red_team": "harmlessness", "helpful": "helpfulness"}
RESAMPLES = 1000
"""Of the bootstrap over prompts."""
FEW = 30
"""Prompts below which a bootstrap over them gives intervals that are too narrow."""
NOBODY = "nobody"


def measure(suite: Suite) -> list[Metric]:
    """Ratings of every model in both tests, and how the judge chose. Raises InputError where no model is the anchor."""
    labels = [one.label for one in suite.candidates]
    if suite.anchor not in labels:
        raise InputError(
            f"no model is called '{suite.anchor}', the anchor.{did_you_mean(suite.anchor, labels)}"
        )
    made = list(played(suite)) if _playable(suite, labels) else []
    return [
        metric
        for kind, test in TESTS.items()
        for metric in _metrics(suite, test, [c for c in made if c.comparison.prompt.kind == kind])
    ]


def _playable(suite: Suite, labels: Sequence[str]) -> bool:
    if len(labels) < 2:
        suite.say("matches: there is one model, and nobody to play it. Name another one.")
    elif judge_name(suite) == NOBODY:
        suite.say("matches: nobody can choose, so none is played. Name a judge or a preference model.")
    elif not suite.judge:
        suite.say(
            f"matches: with no judge, the higher score of {judge_name(suite)} wins. It knows nothing of evasiveness "
            "(EV-11), and must be none that a model was trained against."
        )
    return len(labels) > 1 and judge_name(suite) != NOBODY


def judge_name(suite: Suite) -> str:
    """Who chooses: the judge, or else the first preference model."""
    return suite.judge or next((f"preference model {n}" for n in suite.preference_models), NOBODY)


# -- rounds


def played(suite: Suite) -> Iterator[MatchTurn]:
    """All choices of all matches, round by round."""
    labels = [one.label for one in suite.candidates]
    games = [
        Game.begun(pairing)
        for kind in TESTS
        for pairing in pairings(suite.prompts.get(kind, ()), labels, seed=suite.seed)
    ]
    shortest = min((len(human_turns(game.pairing.prompt)) for game in games), default=suite.turns)
    if shortest < suite.turns and not suite.human:
        suite.say(
            f"matches: turns={suite.turns}, but nobody writes the human turns that prompts lack, so matches end with "
            "their prompts. Name a model for the human."
        )
    turn = 1
    while games:
        made = _choices(suite, turn, games)
        yield from made
        games = _carried_on(suite, turn, games, made)
        turn += 1


def _choices(suite: Suite, turn: int, games: Sequence[Game]) -> list[MatchTurn]:
    """One for each match whose two models have both answered."""
    said = {one.id: one.completion for one in _replies(suite, turn, games)}
    able = {game.id: game for game in games if said.keys() >= set(game.replies)}
    if len(able) < len(games):
        suite.say(
            f"matches: {len(games) - len(able)} of {len(games)} end in turn {turn}: a model could not answer."
        )

    async def passes() -> AsyncIterator[Pass[Game, MatchTurn]]:
        with _choosing(suite) as choosing:

            async def step(game: Game) -> MatchTurn:
                a, b = (said[name] for name in game.replies)
                return await choose(game, a, b, choosing=choosing, judge=judge_name(suite))

            yield Pass(able, step)

    return suite.rows(
        f"matches/{turn}-choices",
        MatchTurn,
        passes,
        config={"judge": judge_name(suite), "feedback": suite.feedback.model_dump(mode="json")},
        inputs={
            "matches": digest_of(able),
            "replies": suite.run.output_digest(f"matches/{turn}-replies"),
            "the judge's weights": weights_digest(suite.judge or f"hf:{_preference_model(suite)}"),
        },
    )


def _replies(suite: Suite, turn: int, games: Sequence[Game]) -> list[Response]:
    owed = {
        one.label: {
            reply_id(g.talk, one.label): g.talk for g in games if one.label in (g.pairing.a, g.pairing.b)
        }
        for one in suite.candidates
    }

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        for one in suite.candidates:
            if owed[one.label]:
                with _lent(suite, one) as held:
                    yield Pass(owed[one.label], partial(_reply, suite, one.label, held))

    return suite.rows(
        f"matches/{turn}-replies",
        Response,
        passes,
        config=_drawn(suite),
        inputs={"talks": digest_of(name for names in owed.values() for name in names)},
    )


@contextmanager
def _lent(suite: Suite, one: Candidate) -> Iterator[list[Model]]:
    """A model in a list that is emptied afterwards: who runs a pass holds its step still while the next is loaded."""
    with suite.loaded(one.model) as model:
        held = [model]
        del model
        try:
            yield held
        finally:
            held.clear()


async def _reply(suite: Suite, label: str, held: list[Model], talk: Prompt) -> Response:
    return await reply(talk, label, model=held[0], sampling=_sampling(suite), seed=suite.seed)


def _carried_on(suite: Suite, turn: int, games: Sequence[Game], made: Sequence[MatchTurn]) -> list[Game]:
    """The matches that go on, each with its next human turn."""
    picked = {choice.id: talk for choice in made if (talk := choice.so_far(suite.seed))}
    going = [game for game in games if game.id in picked]
    lacking = {game.id: picked[game.id] for game in going if not game.own_next}
    kinds = {human_id(picked[game.id]): game.talk.kind for game in going if game.id in lacking}
    wrote = _human_turns(suite, turn, {human_id(talk): talk for talk in lacking.values()}, kinds)
    said = {name: wrote.get(human_id(talk)) for name, talk in lacking.items()}
    return [
        game.carried_on(picked[game.id], human) for game in going if (human := game.own_next or said[game.id])
    ]


def _human_turns(
    suite: Suite, turn: int, talks: dict[str, Conversation], kinds: dict[str, Kind]
) -> dict[str, Conversation]:
    """What the human says next in each talk, by ``human_id``; nothing of an empty turn, which ends a match."""
    if not (suite.human and talks and turn < suite.turns):
        return {}

    async def passes() -> AsyncIterator[Pass[Conversation, Response]]:
        with suite.loaded(str(suite.human)) as model:

            async def step(talk: Conversation) -> Response:
                kind, sampling = kinds[human_id(talk)], _sampling(suite)
                return await human_turn(talk, kind, model=model, sampling=sampling, seed=suite.seed)

            yield Pass(talks, step)

    made = suite.rows(
        f"matches/{turn}-human",
        Response,
        passes,
        config={"human": suite.human, **_drawn(suite)},
        inputs={"talks": digest_of(talks), "the human's weights": weights_digest(suite.human)},
    )
    return {one.id: (Message("user", spoken(one)),) for one in made if spoken(one)}


def _sampling(suite: Suite) -> Sampling:
    return Sampling(**_drawn(suite))


def _drawn(suite: Suite) -> dict[str, Any]:
    return {"temperature": suite.temperature, "max_tokens": suite.max_tokens}


@contextmanager
def _choosing(suite: Suite) -> Iterator[Choosing]:
    """Who chooses, in memory for the length of one pass."""
    if suite.judge:
        with suite.loaded(suite.judge) as judge:
            yield partial(
                by_judge, model=judge, settings=suite.feedback, few_shots=suite.few_shots, seed=suite.seed
            )
        return
    from constitutional_ai.rl_cai.preference_model.scorable import Scorable
    from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel

    folder = _preference_model(suite)
    scorable, model = Scorable(folder), PreferenceModel(folder)

    async def reward(talk: Conversation) -> float:
        scorable.check(talk)
        return await model.reward(talk)

    yield partial(by_score, reward=reward)


def _preference_model(suite: Suite) -> Path:
    return next(iter(suite.preference_models.values()))


# -- figures


def _metrics(suite: Suite, test: str, choices: Sequence[MatchTurn]) -> list[Metric]:
    """The ratings, and of the judge's choices how many were ties, or none, or changed with the order."""
    decided = [c for c in choices if c.winner]
    twice = [c for c in choices if c.opinion.flipped is not None]
    shares = {
        "match_ties": [(c, c.winner == "tie") for c in decided],
        "match_undecided": [(c, c.winner is None) for c in choices],
        "order_flips": [(c, bool(c.opinion.flipped)) for c in twice],
    }
    who, seed = judge_name(suite), suite.seed
    return [
        *_ratings(suite, test, choices),
        *(
            share(f"{name}.{test}", who, [held for _, held in found], [c.prompt for c, _ in found], seed=seed)
            for name, found in shares.items()
        ),
    ]


def _ratings(suite: Suite, test: str, choices: Sequence[MatchTurn]) -> Iterator[Metric]:
    """Every model's rating and its standard error; where it cannot be rated both are None, and the user is told why."""
    matches = [choice.match for choice in choices]
    anchored = any(suite.anchor in (m.a, m.b) for m in matches)
    rated = (
        elo(matches, anchor=suite.anchor, ties=suite.ties, resamples=RESAMPLES, seed=suite.seed).of
        if anchored
        else {}
    )
    if rated and (prompts := len({m.prompt for m in matches})) < FEW:
        suite.say(
            f"elo.{test} rests on {prompts} prompts: with fewer than some {FEW} its intervals are too narrow."
        )
    for label in (one.label for one in suite.candidates):
        counted = [m for m in matches if label in (m.a, m.b) and m.winner in ("a", "b")]
        if rating := rated.get(label):
            value, error, why = rating.elo, rating.error, rating.unrated
        else:
            value, error = Metric("", label, None, None, None, len(counted)), None
            why = "it has played no match" if anchored else f"{suite.anchor}, the anchor, has played no match"
        if why and matches:
            suite.say(f"elo.{test}: {label} is not rated, as {why}.")
        prompts = len({m.prompt for m in counted})
        yield replace(value, name=f"elo.{test}", clusters=prompts)
        yield Metric(f"elo_error.{test}", label, error, None, None, value.count, prompts)
