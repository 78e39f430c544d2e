"""The key is sent, and in no file, error or traceback."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from constitutional_ai.errors import CaiError, ModelError
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message, Prompt, Response
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.runner import Pass, Silent
from constitutional_ai.sl_cai.respond import respond
from tests.models.hosted.local_server import KEY, Server, generate


def run_against(server: Server, folder: Path) -> None:
    model = ServerModel("m", server.url)

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        prompts = [Prompt.of((Message("user", str(n)),), "red_team", "test") for n in range(3)]

        async def step(prompt: Prompt) -> Response:
            return await respond(prompt, number=0, model=model, sampling=Sampling(), seed=0)

        yield Pass({f"{p.id}.0": p for p in prompts}, step)

    with open_run(folder, {}, Silent()) as run:
        run.make_rows("01-responses", Response, passes, config={"m": model.name}, inputs={})


def test_the_key_is_sent_and_never_written(server: Server, tmp_path: Path) -> None:
    run_against(server, tmp_path)
    assert server.keys == [f"Bearer {KEY}"] * 3
    assert repr(ServerModel("m", server.url)).count(KEY) == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_the_key_is_in_no_error_even_when_the_server_repeats_it(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.status, server.reply = status, {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    try:
        run_against(server, tmp_path)
    except CaiError as error:
        assert KEY not in str(error)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]


def test_the_key_is_in_no_traceback_of_a_refusal(server: Server) -> None:
    server.status, server.reply = 401, {"error": {"message": "no"}}
    with pytest.raises(ModelError) as caught:
        generate(server)
    assert KEY not in "".join(traceback.format_exception(caught.value))
