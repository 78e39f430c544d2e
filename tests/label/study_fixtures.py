"""Studies made by hand for the tests of the label pages, and a client for one of their people."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.testclient import TestClient

from constitutional_ai.label.label_app import label_app
from constitutional_ai.label.label_questions import HarmQuestion, PairQuestion, Question, RevisionQuestion, Task
from constitutional_ai.label.replies import Replies
from constitutional_ai.label.settings import Settings
from constitutional_ai.label.study import Study
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Kind, Message, Prompt
from constitutional_ai.serve.guard import Guard

BASE = "http://testserver"


def prompt(text: str, kind: Kind = "red_team") -> Prompt:
    return Prompt.of((Message("user", text),), kind, "test")


def pair(number: int, kind: Kind = "red_team", a: str = "sl-cai", b: str = "rl-cai") -> PairQuestion:
    asked = prompt(f"Help me {number}.", kind)
    return PairQuestion(
        f"{asked.id}.{a}.{b}", asked, asked.id, a, b, f"By {a[:2]} {number}.", f"From {b[:2]} {number}, longer."
    )


def harm(number: int) -> HarmQuestion:
    asked = prompt(f"Harm {number}.")
    return HarmQuestion(f"{asked.id}.start", asked, "start", f"Reply {number}.")


def revision(number: int) -> RevisionQuestion:
    asked = prompt(f"Revise {number}.")
    return RevisionQuestion(f"{asked.id}.0/r1", asked, "be-kind", "Before.", "It is rude.", f"After {number}.")


def study(
    folder: Path, task: Task, questions: Sequence[Question] = (), people: Sequence[str] = ("anna",)
) -> Study:
    begun = Study.begin(folder, Settings(task, 7, "a test"), questions)
    begun.add_people(people)
    return begun


def talk_study(
    folder: Path, *, kind: Kind = "helpful", people: Sequence[str] = ("anna",), models: int = 2
) -> Study:
    labels = tuple((f"model-{n}", "scripted:echo") for n in range(models))
    begun = Study.begin(folder, Settings("compare", 7, "models", kind, labels), ())
    begun.add_people(people)
    return begun


class Slow:
    """A model that shows its reply word by word, and writes each once ``go`` says so."""

    name, format = "slow", "chat"

    def __init__(self, reply: Callable[[str], str]) -> None:
        self._reply = ScriptedModel(say=reply)

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        return await self._reply.generate(context, sampling)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        return await self._reply.score(context, continuations)

    async def stream(self, context: Context, sampling: Sampling, show: Callable[[str], None]) -> Completion:
        import asyncio

        whole = await self.generate(context, sampling)
        words = whole.text.split(" ")
        for count in range(1, len(words) + 1):
            show(" ".join(words[:count]))
            await asyncio.sleep(0.15)
        return whole


def speaker(label: str) -> ScriptedModel:
    """A model whose replies say who wrote them, in a word that is not its label."""
    return ScriptedModel(say=lambda context: f"{label[::-1]} says {context.count('Human:')}")


def client(of: Study, models: dict[str, Model] | None = None, said: list[str] | None = None) -> TestClient:
    """A browser, as far as the application can tell. Use it as a context, so that replies are written."""
    by_label = models or {label: speaker(label) for label in of.settings.names}
    replies = Replies(of, by_label, (said if said is not None else []).append) if by_label else None
    app = Guard(label_app(of, replies), {p.token: p.name for p in of.people()}, own_pages=True)
    return TestClient(app, base_url=BASE)


class Browser:
    """One person at a client."""

    def __init__(self, of: Study, client: TestClient, name: str = "anna") -> None:
        self._client, self.base = client, f"/{of.person(name).token}"

    def get(self, path: str = "/", status: int = 200) -> str:
        answer = self._client.get(self.base + path)
        assert answer.status_code == status
        return answer.text

    def post(self, path: str, status: int = 200, **form: object) -> str:
        answer = self._client.post(self.base + path, data=form, headers={"Origin": BASE})
        assert answer.status_code == status, answer.text
        return answer.text

    def whole(self) -> str:
        """The page once both replies are there."""
        page = self.get()
        stream = re.search(r'data-stream="([^"]+)"', page)
        if stream:
            self._client.get(stream[1])
        return self.get()


def number_in(page: str) -> str:
    """The number of the question that a page asks."""
    found = re.search(r'name="question" value="(\d+)"', page)
    assert found
    return found[1]


def turn_in(page: str) -> str:
    found = re.search(r'name="turn" value="([^"]+)"', page)
    assert found
    return found[1]


def texts_in(page: str) -> list[str]:
    """The two replies of a page, in their order."""
    return re.findall(r'data-place="\w+">([^<]*)<', page)
