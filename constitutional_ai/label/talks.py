"""Hold conversations of a person with two models, of which the person picks a reply at every turn (EV-7).

Both models of a conversation stay the same, so that the person meets each as it is. Pairs of models that had fewest
conversations come first, so that any two differ by few. A conversation goes on with the picked reply; after a tie, or
where both were bad, with a random one of the two, as in the matches that a model judges.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

from constitutional_ai.label.label_questions import Choice, PairQuestion
from constitutional_ai.label.study import Numbered, Person, Study
from constitutional_ai.records import Conversation, Message, Prompt, Side
from constitutional_ai.seeding import rng, seed_of

SOURCE = "cai label"
LONGEST_TEXT = 20_000
"""Characters of the longest text that a person may write."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The place of a person: the conversation so far, and what comes next."""

    id: str
    """``<person>.<number of the conversation>``"""
    turn: int
    """Number of the human turn that is to be answered or written, from 1."""
    conversation: Conversation = ()
    """The conversation before that turn."""
    pending: Numbered | None = None
    """The turn whose replies are being written or compared; None if the person writes next."""
    last: int | None = None
    """Number of the last turn that was decided."""
    drawn: bool = False
    """Whether the last reply was drawn, because neither was better."""
    given: Prompt | None = None
    """The prompt with which the conversation may begin."""


def talk_of(study: Study, person: Person) -> Talk:
    """Return where a person is. It is all in the file, so a reload or a new server shows the same."""
    turns = list(study.questions(person.name))
    last = turns[-1] if turns else None
    if last is None or last.ended:
        done = len({_talk_id(turn) for turn in turns})
        people = len(study.people())
        return Talk(f"{person.name}.{done + 1}", 1, given=study.prompt(done * people + person.number - 1))
    question = _pair(last)
    number = int(question.id.rpartition(".")[2])
    choice = study.answer(question.id, person.name)
    if choice is None:
        return Talk(_talk_id(last), number, question.prompt.conversation, last)
    assert isinstance(choice, Choice)
    reply = question.reply(picked_side(question, choice, study.settings.seed))
    assert reply is not None, "only whole replies are compared"
    conversation = (*question.prompt.conversation, Message("assistant", reply))
    return Talk(
        _talk_id(last), number + 1, conversation, last=last.number, drawn=choice.winner not in ("a", "b")
    )


def write_turn(study: Study, person: Person, talk: Talk, text: str) -> None:
    """Add the human turn ``text`` to the conversation; both models reply to it next."""
    kind = study.settings.kind
    assert kind is not None and talk.pending is None
    if talk.turn == 1 and talk.given and text == talk.given.conversation[-1].content.strip():
        conversation, source = talk.given.conversation, talk.given.source
    else:
        conversation, source = (*talk.conversation, Message("user", text)), SOURCE
    prompt = Prompt.of(conversation, kind, source)
    first = next((_pair(turn) for turn in study.questions(person.name) if _talk_id(turn) == talk.id), None)
    a, b = (first.a, first.b) if first else _next_pair(study, talk.id)
    began = first.began if first else prompt.id
    study.add_turn(person.name, PairQuestion(f"{talk.id}.{talk.turn}", prompt, began, a, b))


def picked_side(question: PairQuestion, choice: Choice, seed: int) -> Side:
    """Return the side with whose reply the conversation goes on."""
    if choice.winner == "a" or choice.winner == "b":
        return choice.winner
    return rng(seed, "tie", question.id).choice(("a", "b"))


def _next_pair(study: Study, talk: str) -> tuple[str, str]:
    """Return the pair of models that has had fewest conversations."""
    pairs = list(combinations(sorted(study.settings.names), 2))
    firsts = [q for each in study.questions() if (q := _pair(each)).id.endswith(".1")]
    had = Counter((q.a, q.b) for q in firsts)
    return min(pairs, key=lambda pair: (had[pair], seed_of(study.settings.seed, "pair", talk, *pair)))


def _talk_id(turn: Numbered) -> str:
    return turn.question.id.rpartition(".")[0]


def _pair(turn: Numbered) -> PairQuestion:
    assert isinstance(turn.question, PairQuestion)
    return turn.question
