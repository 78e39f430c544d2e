"""Ask a server's decision endpoint: typed questions about a text, answered by probabilities from one forward pass.

Two endpoints do the same in two shapes: ``systemone`` (vLLM, llama.cpp, ``transformers serve``) and ``decisions``
(OpenAI, SGLang). The first is tried first, because only there vLLM tells ``label_mass``. One probe, before the first
question, finds out which one a server has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import openai

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.decision_answer import (
    NAME,
    decisions_question,
    read_decision,
    systemone_question,
)
from constitutional_ai.models.hosted.addresses import Pool
from constitutional_ai.models.hosted.faults import OVERLOADED, UNPARSED
from constitutional_ai.models.hosted.probe import Probe
from constitutional_ai.models.hosted.resend import whole_answer

PROBE = DecisionQuestion("choice", "Which fruit is named?", ("an apple", "a pear"))
PROBE_STATE = "I would like an apple, please."
LACKING = (400, 404, 405, 415, 422, 500, 501)
"""HTTP status codes of a server that has no such endpoint, or whose model cannot be asked there."""
INSTEAD = (
    "Set feedback.method=multiple_choice if the server gives top_logprobs, or feedback.method=votes, and "
    "feedback.predicates=false; 'cai doctor' tells which works."
)

Client = openai.AsyncOpenAI
Request = Callable[[Client, str, str, DecisionQuestion], Awaitable[Any]]


class DecisionEndpoint:
    """The decision endpoint of one server."""

    def __init__(self, name: str, model: str, pool: Pool[Client], message: Callable[[Exception], str]) -> None:
        """``name`` is the model's own in errors. ``message`` gives an error's text without the key."""
        self._name, self._model, self._pool, self._message = name, model, pool, message
        self._request = Probe(self._find)

    async def ask(self, state: str, question: DecisionQuestion) -> Reading:
        """Return the answer to a question.

        Raises ModelError if the server has no decision endpoint, RefusedAnswer if the model declines to answer, and
        RecordError if the reply cannot be read.
        """
        request = await self._request.result()

        async def ask() -> Reading:
            reply = await self._pool.send(lambda client: request(client, self._model, state, question))
            return read_decision(reply, question)

        return await whole_answer(ask)

    async def _find(self) -> Request:
        """Return the request that the server answers. Raises ModelError if it answers none."""
        faults = []
        for path, request in (("systemone", _ask_systemone), ("decisions", _ask_decisions)):
            try:
                await whole_answer(partial(self._try, request))
            except openai.APIStatusError as error:
                if error.status_code in OVERLOADED or error.status_code not in LACKING:
                    raise
                faults.append(f"{path}: {self._message(error)}")
            except (RecordError, *UNPARSED) as error:
                faults.append(f"{path}: {error}")
            else:
                return request
        raise ModelError(f"{self._name} answers no decision questions ({'; '.join(faults)}). {INSTEAD}")

    async def _try(self, request: Request) -> None:
        # A missing endpoint may answer 501, which the client would send again.
        reply = await self._pool.send(
            lambda client: request(client.with_options(max_retries=0), self._model, PROBE_STATE, PROBE)
        )
        read_decision(reply, PROBE)


async def _ask_systemone(client: Client, model: str, state: str, question: DecisionQuestion) -> Any:
    """Send a question to ``systemone``, which takes no other fields: ``transformers serve`` refuses unknown ones."""
    body = {"model": model, "state": state, "questions": {NAME: systemone_question(question)}}
    return await client.post("/systemone", body=body, cast_to=object)


async def _ask_decisions(client: Client, model: str, state: str, question: DecisionQuestion) -> Any:
    questions: Any = [decisions_question(question)]
    reply: Any = await client.decisions.create(model=model, input=state, questions=questions)
    return reply.to_dict(warnings=False) if isinstance(reply, openai.BaseModel) else reply
