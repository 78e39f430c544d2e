"""Play matches between all candidates, and rate harmlessness and helpfulness by Elo (EV-7 to EV-11; figures 2, 3, 8).

Matches are played in rounds, one per human turn. In a round every model gives all its replies, then all choices are
made, then missing human turns are written. So each model is loaded once per round, and only one is in memory. The
records of round 1 are in ``matches/1-replies``, ``matches/1-choices`` and ``matches/1-human``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from constitutional_ai.data.worked_examples import FEW_SHOTS
from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.matches.game import (
    Chooser,
    Game,
    MatchTurn,
    by_judge,
    by_score,
    choose,
    reply_id,
    sample_reply,
)
from constitutional_ai.evaluation.matches.human_turns import (
    human_id,
    human_turns,
    parse_human_turn,
    write_human_turn,
)
from constitutional_ai.evaluation.matches.pairings import pairings
from constitutional_ai.evaluation.suite import CheckedScorer, Suite
from constitutional_ai.metrics.elo import elo
from constitutional_ai.metrics.intervals import share
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Conversation, Kind, Message, Metric, Prompt, Response
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.run import digest_of
from constitutional_ai.runs.runner import Pass

PART = "matches"
TESTS: dict[Kind, str] = {"red_team": "harmlessness", "helpful": "helpfulness"}
RESAMPLES = 1000
"""Number of resamples of the bootstrap over prompts."""
FEW = 30
"""Number of prompts below which bootstrap intervals are too narrow."""
NOBODY = "nobody"


def measure(suite: Suite) -> list[Metric]:
    """Return every candidate's rating in both tests, and statistics of the judge's choices.

    Raises InputError if no candidate is the anchor.
    """
    labels = [one.label for one in suite.candidates]
    if suite.anchor not in labels:
        raise InputError(
            f"no model is called '{suite.anchor}', the anchor.{did_you_mean(suite.anchor, labels)}"
        )
    turns = list(play_all(suite)) if _playable(suite, labels) else []
    return [
        metric
        for kind, test in TESTS.items()
        for metric in _metrics(suite, test, [t for t in turns if t.comparison.prompt.kind == kind])
    ]


def _playable(suite: Suite, labels: Sequence[str]) -> bool:
    judge = judge_name(suite)
    if len(labels) < 2:
        suite.say("matches: not played, because there is only one model. Name another one.")
    elif judge == NOBODY:
        suite.say(
            "matches: not played, because there is no judge. Name one with --judge, or a preference model with --pm."
        )
    elif not suite.judge:
        suite.say(
            f"matches: without a judge, the higher score of {judge} wins. It ignores evasiveness (EV-11), and no model "
            "may have been trained against it."
        )
    return len(labels) > 1 and judge != NOBODY


def judge_name(suite: Suite) -> str:
    """Return the name of the judge, or of the first preference model if there is no judge."""
    return suite.judge or next((f"preference model {n}" for n in suite.preference_models), NOBODY)


# -- rounds


def play_all(suite: Suite) -> Iterator[MatchTurn]:
    """Play all matches, and yield their turns round by round."""
    labels = [one.label for one in suite.candidates]
    games = [
        Game.start(pairing)
        for kind in TESTS
        for pairing in pairings(suite.prompts.get(kind, ()), labels, seed=suite.seed)
    ]
    shortest = min((len(human_turns(game.pairing.prompt)) for game in games), default=suite.turns)
    if shortest < suite.turns and not suite.human:
        suite.say(
            f"matches: turns={suite.turns}, but matches end after the human turns of their prompts. Name a model that "
            "writes more with --human."
        )
    number = 1
    while games:
        turns = _choose(suite, number, games)
        yield from turns
        games = _next_games(suite, number, games, turns)
        number += 1


def _choose(suite: Suite, turn: int, games: Sequence[Game]) -> list[MatchTurn]:
    """Choose in each match in which both models have replied."""
    replies = {one.id: one.completion for one in _replies(suite, turn, games)}
    complete = {game.id: game for game in games if replies.keys() >= set(game.reply_ids)}
    if missing := len(games) - len(complete):
        suite.say(f"matches: {missing} of {len(games)} end in turn {turn}, because a model could not answer.")

    async def passes() -> AsyncIterator[Pass[Game, MatchTurn]]:
        with _chooser(suite) as chooser:

            async def step(game: Game) -> MatchTurn:
                a, b = (replies[name] for name in game.reply_ids)
                return await choose(game, a, b, chooser=chooser, judge=judge_name(suite))

            yield Pass(complete, step)

    return suite.rows(
        f"{PART}/{turn}-choices",
        MatchTurn,
        passes,
        config={"judge": judge_name(suite), "feedback": suite.feedback.model_dump(mode="json")},
        inputs={
            "matches": digest_of(complete),
            "replies": suite.run.output_digest(f"{PART}/{turn}-replies"),
            "the judge's weights": weights_digest(suite.judge or f"hf:{_preference_model(suite)}"),
        },
    )


def _replies(suite: Suite, turn: int, games: Sequence[Game]) -> list[Response]:
    def talks(label: str) -> dict[str, Prompt]:
        return {reply_id(g.talk, label): g.talk for g in games if label in (g.pairing.a, g.pairing.b)}

    async def reply(model: Model, label: str, talk: Prompt) -> Response:
        return await sample_reply(talk, label, model=model, sampling=_sampling(suite), seed=suite.seed)

    return suite.answered(
        f"{PART}/{turn}-replies",
        Response,
        talks,
        reply,
        config=_sampling_config(suite),
        inputs={"talks": digest_of(name for one in suite.candidates for name in talks(one.label))},
    )


def _next_games(suite: Suite, turn: int, games: Sequence[Game], turns: Sequence[MatchTurn]) -> list[Game]:
    """Return the matches that continue, each with its next human turn."""
    picked = {one.id: conversation for one in turns if (conversation := one.picked(suite.seed))}
    going = [game for game in games if game.id in picked]
    requests = {human_id(picked[g.id]): (picked[g.id], g.talk.kind) for g in going if not g.own_next}
    written = _human_turns(suite, turn, requests)
    return [
        game.next(picked[game.id], human)
        for game in going
        if (human := game.own_next or written.get(human_id(picked[game.id])))
    ]


def _human_turns(
    suite: Suite, turn: int, requests: dict[str, tuple[Conversation, Kind]]
) -> dict[str, Conversation]:
    """Return the next human turns by ``human_id``. An empty turn is left out, and ends its match."""
    if not (suite.human and requests and turn < suite.turns):
        return {}

    async def passes() -> AsyncIterator[Pass[tuple[Conversation, Kind], Response]]:
        with suite.loaded(str(suite.human)) as model:

            async def step(request: tuple[Conversation, Kind]) -> Response:
                return await write_human_turn(*request, model=model, sampling=_sampling(suite), seed=suite.seed)

            yield Pass(requests, step)

    responses = suite.rows(
        f"{PART}/{turn}-human",
        Response,
        passes,
        config={"human": suite.human, **_sampling_config(suite)},
        inputs={"talks": digest_of(requests), "the human's weights": weights_digest(suite.human)},
    )
    return {one.id: (Message("user", text),) for one in responses if (text := parse_human_turn(one))}


def _sampling(suite: Suite) -> Sampling:
    return Sampling(**_sampling_config(suite))


def _sampling_config(suite: Suite) -> dict[str, Any]:
    return {"temperature": suite.temperature, "max_tokens": suite.max_tokens}


@contextmanager
def _chooser(suite: Suite) -> Iterator[Chooser]:
    """Load the judge, or the preference model that replaces it, for one pass."""
    if suite.judge:
        with suite.loaded(suite.judge) as judge:
            yield partial(
                by_judge,
                model=judge,
                settings=suite.feedback,
                few_shots=load_few_shots(FEW_SHOTS),
                seed=suite.seed,
            )
    else:
        yield partial(by_score, score=CheckedScorer(_preference_model(suite)).score)


def _preference_model(suite: Suite) -> Path:
    return next(iter(suite.preference_models.values()))


# -- metrics


def _metrics(suite: Suite, test: str, turns: Sequence[MatchTurn]) -> list[Metric]:
    """Return the ratings, and the shares of choices that were ties, failed, or changed with the order."""
    both_orders = [t for t in turns if t.opinion.flipped is not None]
    shares = {
        "match_ties": [(t, t.winner == "tie") for t in turns if t.winner],
        "match_undecided": [(t, t.winner is None) for t in turns],
        "order_flips": [(t, bool(t.opinion.flipped)) for t in both_orders],
    }
    who, seed = judge_name(suite), suite.seed
    return [
        *_ratings(suite, test, turns),
        *(
            share(f"{name}.{test}", who, [held for _, held in of], [t.prompt for t, _ in of], seed=seed)
            for name, of in shares.items()
        ),
    ]


def _ratings(suite: Suite, test: str, turns: Sequence[MatchTurn]) -> Iterator[Metric]:
    """Yield every candidate's rating and its standard error. Both are None, with a message, if it cannot be rated."""
    matches, labels = [turn.match for turn in turns], [one.label for one in suite.candidates]
    ratings = elo(matches, anchor=suite.anchor, models=labels, resamples=RESAMPLES, seed=suite.seed)
    if matches and (prompts := len({m.prompt for m in matches})) < FEW:
        suite.say(
            f"elo.{test} has {prompts} prompts: with fewer than about {FEW}, its intervals are too narrow."
        )
    for label in labels:
        value, error, why = ratings[label]
        if why and matches:
            suite.say(f"elo.{test}: {label} is not rated, as {why}.")
        clusters = len({m.prompt for m in matches if label in (m.a, m.b) and m.winner in ("a", "b")})
        yield replace(value, name=f"elo.{test}", clusters=clusters)
        yield Metric(f"elo_error.{test}", label, error, None, None, value.count, clusters)
