"""Play matches between all candidates, and rate harmlessness and helpfulness by Elo (EV-7 to EV-11; figures 2, 3, 8).

Matches are played in rounds, one per human turn. In a round every model gives all its replies, then all choices are
made, then missing human turns are written. So each model is loaded once per round, and only one is in memory. The
records of round 1 are in ``matches/1-replies``, ``matches/1-choices`` and ``matches/1-human``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from constitutional_ai.data.worked_examples import FEW_SHOTS
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.evaluation.matches.game import Game, MatchTurn, opinion_of, reply_id
from constitutional_ai.evaluation.matches.human_turns import (
    human_id,
    human_turns,
    parse_human_turn,
    write_human_turn,
)
from constitutional_ai.evaluation.matches.pairings import pairings
from constitutional_ai.evaluation.suite import Suite
from constitutional_ai.metrics.elo import elo
from constitutional_ai.metrics.intervals import share
from constitutional_ai.models.model import Model
from constitutional_ai.records import Comparison, Conversation, Kind, Message, Metric, Prompt, Response
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs.run import digest_of
from constitutional_ai.seeding import seed_of

PART = "matches"
TESTS: dict[Kind, str] = {"red_team": "harmlessness", "helpful": "helpfulness"}
RESAMPLES = 1000
"""Number of resamples of the bootstrap over prompts."""
FEW = 30
"""Number of prompts below which bootstrap intervals are too narrow."""
NOBODY = "nobody"


def measure(suite: Suite) -> list[Metric]:
    """Return every candidate's rating in both tests, and statistics of the judge's choices."""
    turns = list(play_all(suite, suite.judge)) if suite.judge and len(suite.candidates) > 1 else []
    if len(suite.candidates) < 2:
        suite.say("matches: not played, because there is only one model. Name another one.")
    elif not suite.judge:
        suite.say("matches: not played, because there is no judge. Name one with --judge.")
    return [
        metric
        for kind, test in TESTS.items()
        for metric in _metrics(suite, test, [t for t in turns if t.comparison.prompt.kind == kind])
    ]


# -- rounds


def play_all(suite: Suite, judge: str) -> Iterator[MatchTurn]:
    """Play all matches, and yield their turns round by round."""
    labels = [one.label for one in suite.candidates]
    games = [
        Game(pairing, human_turns(pairing.prompt)[0])
        for kind in TESTS
        for pairing in pairings(suite.prompts.get(kind, ()), labels, seed=suite.seed)
    ]
    number = 1
    while games:
        turns = _choose(suite, judge, number, games)
        yield from turns
        games = _next_games(suite, number, games, turns)
        number += 1


def _choose(suite: Suite, judge: str, turn: int, games: Sequence[Game]) -> list[MatchTurn]:
    """Choose in each match in which both models have replied."""
    replies = {one.id: one.completion for one in _replies(suite, turn, games)}
    complete = {game.id: game for game in games if replies.keys() >= set(game.reply_ids)}
    if missing := len(games) - len(complete):
        suite.say(f"matches: {missing} of {len(games)} end in turn {turn}, because a model could not answer.")
    asking = partial(opinion_of, settings=suite.feedback, few_shots=load_few_shots(FEW_SHOTS), seed=suite.seed)

    async def choose(model: Model, label: str, game: Game) -> MatchTurn:
        pair = Comparison(game.id, game.talk, *(replies[name] for name in game.reply_ids))
        prompt, a, b = game.pairing.prompt.id, game.pairing.a, game.pairing.b
        return MatchTurn(game.id, prompt, a, b, game.turn, pair, judge, await asking(pair, model=model))

    return suite.answered(
        f"{PART}/{turn}-choices",
        MatchTurn,
        lambda label: complete,
        choose,
        by={"judge": judge},
        config={"judge": judge, "feedback": suite.feedback.model_dump(mode="json", exclude={"predicates"})},
        inputs={
            "matches": digest_of(complete),
            "replies": suite.run.output_digest(f"{PART}/{turn}-replies"),
            "the judge's weights": weights_digest(judge),
        },
    )


def _replies(suite: Suite, turn: int, games: Sequence[Game]) -> list[Response]:
    def talks(label: str) -> dict[str, Prompt]:
        return {reply_id(g.talk, label): g.talk for g in games if label in (g.pairing.a, g.pairing.b)}

    async def reply(model: Model, label: str, talk: Prompt) -> Response:
        name = reply_id(talk, label)
        sampling = replace(suite.sampling, seed=seed_of(suite.seed, "match", name))
        return Response(name, talk, await model.generate(talk.conversation, sampling))

    return suite.answered(
        f"{PART}/{turn}-replies",
        Response,
        talks,
        reply,
        config=suite.sampling_config,
        inputs={"talks": digest_of(name for one in suite.candidates for name in talks(one.label))},
    )


def _next_games(suite: Suite, turn: int, games: Sequence[Game], turns: Sequence[MatchTurn]) -> list[Game]:
    """Return the matches that continue, each with its next human turn."""
    picked = {one.id: conversation for one in turns if (conversation := one.picked(suite.seed))}
    going = [game for game in games if game.id in picked]
    requests = {human_id(picked[g.id]): (picked[g.id], g.talk.kind) for g in going if not g.own_next}
    written = _human_turns(suite, turn, requests)
    return [
        Game(game.pairing, (*picked[game.id], *human), game.turn + 1)
        for game in going
        if (human := game.own_next or written.get(human_id(picked[game.id])))
    ]


def _human_turns(
    suite: Suite, turn: int, requests: dict[str, tuple[Conversation, Kind]]
) -> dict[str, Conversation]:
    """Return the next human turns by ``human_id``. An empty turn is left out, and ends its match."""
    if not (suite.human and requests and turn < suite.turns):
        return {}

    async def write(model: Model, label: str, request: tuple[Conversation, Kind]) -> Response:
        return await write_human_turn(*request, model=model, sampling=suite.sampling, seed=suite.seed)

    responses = suite.answered(
        f"{PART}/{turn}-human",
        Response,
        lambda label: requests,
        write,
        by={"human": suite.human},
        config={"human": suite.human, **suite.sampling_config},
        inputs={"talks": digest_of(requests), "the human's weights": weights_digest(suite.human)},
    )
    return {one.id: (Message("user", text),) for one in responses if (text := parse_human_turn(one))}


# -- metrics


def _metrics(suite: Suite, test: str, turns: Sequence[MatchTurn]) -> list[Metric]:
    """Return the ratings, and the shares of choices that were ties, failed, or changed with the order."""
    shares = {
        "match_ties": [(t, t.winner == "tie") for t in turns if t.winner],
        "match_undecided": [(t, t.winner is None) for t in turns],
        "order_flips": [(t, t.opinion.flipped) for t in turns if t.opinion.flipped is not None],
    }
    who, seed = suite.judge or NOBODY, suite.seed
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
