"""Serve a study's pages: plain HTML with forms, which work without JavaScript, and one small script for the rest.

What a browser gets never says which model wrote a reply: questions go by their numbers, replies by their places.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constitutional_ai.errors import RecordError
from constitutional_ai.label.label_pages import page_of, question_page, start_page
from constitutional_ai.label.label_questions import (
    Answer,
    PairQuestion,
    Rating,
    Review,
    RevisionQuestion,
    choice_of,
    first_side,
    other_side,
)
from constitutional_ai.label.replies import Replies, Shown
from constitutional_ai.label.study import Numbered, Person, Study
from constitutional_ai.label.talks import LONGEST_TEXT, talk_of, write_turn
from constitutional_ai.safe_text import visible, whole_characters
from constitutional_ai.serve.slow_clients import Bodies

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # A page's address holds its person's token; with no-referrer, forms would name no origin.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Form = Mapping[str, str]
Handler = Callable[[Person, Form], None]


def label_app(study: Study, replies: Replies | None = None) -> ASGIApp:
    """Return the pages as an ASGI application. ``Guard`` tells it who sends a request.

    ``replies`` writes those of the models in a study of conversations.
    """
    pages = _Pages(study, replies)

    @asynccontextmanager
    async def closing(app: Starlette) -> AsyncIterator[None]:
        yield
        if replies:
            await replies.close()

    posts = {"/agree": pages.agree, "/write": pages.write, "/answer": pages.answer, "/end": pages.end}
    posts["/again"] = pages.again
    routes = [
        Route("/", pages.current),
        Route("/instructions", pages.instructions),
        Route("/question/{number:int}", pages.question),
        Route("/replies/{number:int}", pages.replies),
        *(Route(path, pages.posted(handler), methods=["POST"]) for path, handler in posts.items()),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return _Headers(Starlette(routes=routes, lifespan=closing, exception_handlers={HTTPException: _refused}))


class _Headers:
    """Adds the headers that keep strangers' text harmless to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, sending)


class _Pages:
    """The pages of a study, and what their forms do."""

    def __init__(self, study: Study, replies: Replies | None) -> None:
        self._study, self._replies, self._bodies = study, replies, Bodies()

    async def current(self, request: Request) -> Response:
        """Show a person the instructions, and then what comes next."""
        person = self._person(request)
        base = request.scope["base"]
        if not person.agreed:
            return start_page(self._study, person, base)
        if self._replies is None:
            return page_of(self._study, person, base)
        talk = talk_of(self._study, person)
        if talk.pending:
            self._replies.begin(talk.pending)
        shown = self._replies.shown(talk.pending.number) if talk.pending else None
        return page_of(self._study, person, base, talk, shown)

    async def instructions(self, request: Request) -> Response:
        """Show the instructions again."""
        return start_page(self._study, self._person(request), request.scope["base"])

    async def question(self, request: Request) -> Response:
        """Show a stored question again, with the person's answer."""
        person, turn = self._person(request), self._numbered(request, request.path_params["number"])
        if self._replies or not person.agreed:
            raise HTTPException(404)
        return question_page(self._study, person, request.scope["base"], turn)

    async def replies(self, request: Request) -> Response:
        """Stream the replies to a turn as they grow, by their places."""
        person, turn = self._person(request), self._numbered(request, request.path_params["number"])
        if self._replies is None:
            raise HTTPException(404)
        self._replies.begin(turn)
        side = first_side(self._study.settings.seed, turn.question.id, person.name)

        def event(shown: Shown) -> str:
            texts = {"first": visible(shown.text(side)), "second": visible(shown.text(other_side(side)))}
            return f"data: {json.dumps({**texts, 'state': shown.state})}\n\n"

        changes = self._replies.changes(turn.number)
        return StreamingResponse((event(shown) async for shown in changes), media_type="text/event-stream")

    def posted(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a form, which leads back to what comes next."""

        async def endpoint(request: Request) -> Response:
            body = await self._bodies.read(request)
            try:
                form = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
            except ValueError as error:
                raise HTTPException(400, "this form cannot be read") from error
            finally:
                self._bodies.release(body)
            handler(self._person(request), form)
            return RedirectResponse(request.scope["base"] + "/", 303)

        return endpoint

    def agree(self, person: Person, form: Form) -> None:
        """Begin."""
        self._study.agree(person.name)

    def write(self, person: Person, form: Form) -> None:
        """Add a human turn, unless it is there already: forms are sent twice."""
        text = whole_characters(form.get("text", "").replace("\r\n", "\n")).strip()
        talk = talk_of(self._study, person)
        if self._replies is None or talk.pending or form.get("turn") != f"{talk.id}.{talk.turn}":
            return
        if not text or len(text) > LONGEST_TEXT:
            raise HTTPException(400, f"Go back and write a message of 1 to {LONGEST_TEXT:,} characters.")
        write_turn(self._study, person, talk, text)

    def answer(self, person: Person, form: Form) -> None:
        """Keep an answer to a question."""
        turn = self._by_form(person, form)
        question, task = turn.question, self._study.settings.task
        first = None
        if isinstance(question, PairQuestion):
            if question.reply_a is None or question.reply_b is None:
                raise HTTPException(409, "Go back and wait until both replies are there.")
            first = first_side(self._study.settings.seed, question.id, person.name)
        try:
            answer = _answer_of(turn, form, first or "a")
        except (RecordError, ValueError) as error:
            raise HTTPException(400, "Go back and choose one of the answers.") from error
        if task != "compare" or talk_of(self._study, person).pending == turn:
            self._study.add_answer(question.id, person.name, answer, first)

    def end(self, person: Person, form: Form) -> None:
        """End the conversation whose last turn the form names."""
        talk = talk_of(self._study, person)
        last = talk.pending.number if talk.pending else talk.last
        if last is not None and form.get("question") == str(last):
            self._study.end(last)

    def again(self, person: Person, form: Form) -> None:
        """Let models reply again that gave no reply."""
        if self._replies:
            self._replies.begin_again(self._by_form(person, form))

    def _person(self, request: Request) -> Person:
        return self._study.person(request.scope["person"])

    def _by_form(self, person: Person, form: Form) -> Numbered:
        number = form.get("question", "")
        return self._of_person(person.name, int(number) if number.isdecimal() and len(number) < 16 else 0)

    def _numbered(self, request: Request, number: int) -> Numbered:
        return self._of_person(request.scope["person"], number if number < 2**53 else 0)

    def _of_person(self, person: str, number: int) -> Numbered:
        turn = self._study.question(number)
        if turn is None or not self._study.belongs_to(number, person):
            raise HTTPException(404)
        return turn


def _answer_of(turn: Numbered, form: Form, shown_first: str) -> Answer:
    """Return the answer that a form holds. Raises RecordError or ValueError for none."""
    value, question = form.get("answer", ""), turn.question
    if isinstance(question, PairQuestion):
        return choice_of(value, "a" if shown_first == "a" else "b")
    if not isinstance(question, RevisionQuestion):
        if value not in ("0", "1", "2", "3", "4"):
            raise RecordError("that is no rating")
        return Rating(int(value))
    text = whole_characters(form.get("text", "").replace("\r\n", "\n")).strip()
    if value == "edit" and text != question.revised.strip():
        if not text or len(text) > LONGEST_TEXT:
            raise RecordError("that is no text")
        return Review("edit", text)
    if value not in ("accept", "edit", "reject"):
        raise RecordError("that is no decision")
    return Review("reject" if value == "reject" else "accept")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)
