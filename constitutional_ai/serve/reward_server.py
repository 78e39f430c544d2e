"""Serve a preference model over HTTP to other trainers. docs/reward_server.md describes the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from constitutional_ai.data.dialogues import conversation_of
from constitutional_ai.errors import InputError, RecordError, first_fault
from constitutional_ai.models.thinking import without_thoughts
from constitutional_ai.records import Conversation
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel, Scorable, finite
from constitutional_ai.serve.guard import new_token
from constitutional_ai.serve.listening import serve_app
from constitutional_ai.serve.slow_clients import Bodies

AT_ONCE = 1024
"""Maximum number of conversations of one request that wait for a batch at the same time."""


class Messages(BaseModel):
    """Our own form, in which no string has to be parsed."""

    conversations: list[Conversation]

    def to_score(self) -> Iterator[Conversation]:
        return iter(self.conversations)

    def answer(self, scores: list[float]) -> dict[str, Any]:
        return {"scores": scores}


class OpenRLHF(BaseModel):
    """OpenRLHF's form, in which each ``query`` is a prompt and its answer in one string.

    With two servers, a client may send empty lists to one of them.
    """

    query: list[str | Conversation]
    prompts: list[str] | None = None

    def to_score(self) -> Iterator[Conversation]:
        """Yield the conversations. Raises InputError, and RecordError for a string that cannot be read."""
        prompts = [""] * len(self.query) if self.prompts is None else self.prompts
        if len(prompts) != len(self.query):
            raise InputError(f"query has {len(self.query)} texts, prompts {len(prompts)}: send one for each")
        for query, prompt in zip(self.query, prompts, strict=True):
            yield conversation_of(query, prompt) if isinstance(query, str) else query

    def answer(self, scores: list[float]) -> dict[str, Any]:
        return {"rewards": scores, "scores": scores, "extra_logs": {}}


FORMS: dict[str, type[Messages] | type[OpenRLHF]] = {"/score": Messages, "/get_reward": OpenRLHF}


def reward_app(model: PreferenceModel, scorable: Scorable) -> Starlette:
    """Return the server as an ASGI application. Requests that come at the same time are scored in one batch."""

    bodies = Bodies()

    async def score(request: Request) -> Response:
        body = await bodies.read(request)
        try:
            form, conversations = await asyncio.to_thread(_read, request.url.path, body, scorable)
            scores: list[float] = []
            for start in range(0, len(conversations), AT_ONCE):
                scores += await asyncio.gather(*map(model.reward, conversations[start : start + AT_ONCE]))
        finally:
            bodies.release(body)
        return JSONResponse(form.answer(finite(scores)))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    routes = [Route(path, score, methods=["POST"]) for path in FORMS] + [Route("/health", health)]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _failed})


def _read(path: str, body: bytes, scorable: Scorable) -> tuple[Messages | OpenRLHF, list[Conversation]]:
    """Return the request and its conversations.

    Raises HTTPException when the request cannot be read, or holds a conversation that cannot be scored.
    """
    conversations: list[Conversation] = []
    try:
        form = FORMS[path].model_validate_json(body)
        for conversation in map(without_thoughts, form.to_score()):
            scorable.check(conversation)
            conversations.append(conversation)
    except ValidationError as error:
        fault = first_fault(error)
        raise HTTPException(400, str(fault) if fault.place else f"body: {fault}") from error
    except InputError as error:
        raise HTTPException(400, str(error)) from error
    except RecordError as error:
        raise HTTPException(422, f"conversation {len(conversations)} cannot be scored: {error}") from error
    return form, conversations


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": {"message": error.detail}}, error.status_code, error.headers)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": {"message": "the server failed; its own output says why"}}, 500)


def serve(folder: Path, host: str, port: int, say: Callable[[str], None], *, with_token: bool = True) -> None:
    """Serve until interrupted. Raises InputError if the address cannot be used."""
    token = new_token() if with_token else None
    serve_app(
        lambda: reward_app(PreferenceModel(folder), Scorable(folder)),
        host,
        port,
        token,
        lambda address: say(f"scores on {address}"),
    )
