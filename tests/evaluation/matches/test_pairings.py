from __future__ import annotations

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.evaluation.matches.pairings import PER_PROMPT, Pairing, pairings
from constitutional_ai.records import Message, Prompt


def prompts(count: int) -> list[Prompt]:
    return [Prompt.of((Message("user", f"Question {n}?"),), "helpful", "test") for n in range(count)]


def pairs(made: list[Pairing]) -> list[frozenset[str]]:
    return [frozenset((one.a, one.b)) for one in made]


def connected(models: list[str], made: list[Pairing]) -> bool:
    reached, new = set(), {models[0]}
    while new:
        reached |= new
        new = {m for pair in pairs(made) if pair & reached for m in pair} - reached
    return reached == set(models)


def test_up_to_five_models_play_each_other_on_every_prompt() -> None:
    made = pairings(prompts(3), list("abcde"), seed=0)
    every = {frozenset(pair) for pair in combinations("abcde", 2)}
    assert len(every) == PER_PROMPT
    assert Counter(pairs(made)) == dict.fromkeys(every, 3)


MODELS = st.integers(2, 30).map(lambda n: [f"m{i}" for i in range(n)])


@given(MODELS, st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_a_schedule_is_bounded_balanced_and_connected(
    models: list[str], count: int, per_prompt: int, seed: int
) -> None:
    made = pairings(prompts(count), models, seed=seed, per_prompt=per_prompt)
    every = len(models) * (len(models) - 1) // 2
    played = Counter(one.prompt.id for one in made)
    assert set(played.values()) == {min(every, max(per_prompt, -(-len(models) // count)))}
    assert len({(one.prompt.id, frozenset((one.a, one.b))) for one in made}) == len(made)  # nobody twice
    met = Counter(pairs(made))
    assert max(met.values()) - min(met[frozenset(p)] for p in combinations(models, 2)) <= 1
    games = Counter(m for pair in pairs(made) for m in pair)
    assert max(games.values()) - min(games[m] for m in models) <= 2
    assert connected(models, made)


def test_the_order_of_prompts_and_models_is_nothing_and_the_seed_is_something() -> None:
    some, models = prompts(4), [f"m{i}" for i in range(9)]
    one = pairings(some, models, seed=1)
    assert one == pairings(some[::-1] + some, models[::-1], seed=1)
    assert one != pairings(some, models, seed=2)


def test_nobody_plays_without_another_or_without_a_prompt() -> None:
    assert pairings(prompts(2), ["alone"], seed=0) == [] == pairings([], ["a", "b"], seed=0)
