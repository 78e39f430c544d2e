from __future__ import annotations

import asyncio
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai import machine
from constitutional_ai.errors import InputError, RecordError
from constitutional_ai.models.cached import CachedModel, CallFile, cached, model_identity, request_key
from constitutional_ai.models.load import load_model
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Completion, Message
from constitutional_ai.runs.meter import metered
from constitutional_ai.seeding import seed_of

HI = (Message("user", "Hi"),)


@dataclass
class Counting:
    """A model whose answers are fixed by the request, and which knows how often it was asked."""

    name: str = "counting"
    format: Format = "chat"
    asked: list[object] = field(default_factory=list)
    text: Callable[[str], str] = lambda drawn: f"answer {drawn}"
    logp: float | None = None

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self.asked.append((context, sampling))
        await asyncio.sleep(0)
        drawn = str(seed_of(repr(context), repr(sampling)))
        return Completion(self.text(drawn), self.name, "stop", len(repr(context)), 3)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        self.asked.append((context, tuple(continuations)))
        await asyncio.sleep(0)
        return [-seed_of(repr(context), c) / 7**20 if self.logp is None else self.logp for c in continuations]


class Broken(Counting):
    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self.asked.append(context)
        await asyncio.sleep(0)
        raise RecordError("no answer")


def wrapped(model: Model, path: Path, who: str = "weights", *, seeded: bool = True) -> CachedModel:
    return CachedModel(model, CallFile(path, print), who, seeded=seeded)


def text(model: Model, context: Context = HI, **how: object) -> str:
    return asyncio.run(model.generate(context, Sampling(**how))).text  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.sqlite"


# -- what is kept

texts = st.text(max_size=12)
contexts = texts | st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=3
).map(tuple)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 2),
    max_tokens=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
    stop=st.lists(texts, max_size=2).map(tuple),
)
requests = st.one_of(
    st.tuples(contexts, samplings), st.tuples(contexts, st.lists(texts, min_size=1, max_size=3))
)


def ask(model: Model, request: tuple[Context, Sampling | list[str]]) -> object:
    context, how = request
    asked = model.generate(context, how) if isinstance(how, Sampling) else model.score(context, how)
    return asyncio.run(asked)  # type: ignore[arg-type]


@settings(max_examples=40)
@given(st.lists(requests, max_size=6))
def test_a_cached_model_answers_as_the_model_does_and_calls_it_once(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[Context, Sampling | list[str]]]
) -> None:
    plain, model = Counting(), Counting()
    kept = tmp_path_factory.mktemp("kept") / "calls.sqlite"
    for _ in range(2):  # a later process finds what this one has kept
        wrapper = wrapped(model, kept)
        assert [ask(wrapper, one) for one in asked] == [ask(plain, one) for one in asked]
    assert len(model.asked) == len({repr(one) for one in asked})


@given(requests, requests)
def test_two_requests_share_a_key_only_if_they_are_one(
    one: tuple[Context, Sampling | list[str]], other: tuple[Context, Sampling | list[str]]
) -> None:
    def key(request: tuple[Context, Sampling | list[str]]) -> str:
        return request_key("weights", "chat", "any", request[0], [repr(request[1])])

    assert (key(one) == key(other)) == (one == other)


@pytest.mark.parametrize(
    "other",
    [
        ("other weights", "chat", "score", "Hi", ["a"]),
        ("weights", "plain", "score", "Hi", ["a"]),
        ("weights", "chat", "generate", "Hi", ["a"]),
        ("weights", "chat", "score", HI, ["a"]),
        ("weights", "chat", "score", '[["user", "Hi"]]', ["a"]),
        ("weights", "chat", "score", "Hi", ["a", ""]),
        ("weights", "chat", "score", "Hi", ['a", "']),
        ("weights", "chat", "score", "Hi\ud83d", ["a"]),
    ],
)
def test_a_key_tells_models_formats_calls_and_contexts_apart(other: tuple) -> None:
    assert request_key(*other) != request_key("weights", "chat", "score", "Hi", ["a"])


def test_another_seed_is_another_draw(path: Path) -> None:
    model = wrapped(Counting(), path)
    assert text(model, seed=1) == text(model, seed=1) != text(model, seed=2)


@pytest.mark.parametrize(("temperature", "asked"), [(0.0, 1), (0.7, 2)])
def test_samples_of_a_server_are_not_cached(path: Path, temperature: float, asked: int) -> None:
    model = Counting()
    server = wrapped(model, path, seeded=False)
    for _ in range(2):
        text(server, temperature=temperature)
    assert len(model.asked) == asked


def test_draws_of_a_server_are_kept_for_their_record_until_they_are_forgotten(path: Path) -> None:
    model = Counting()
    for asked, forgets in [(1, False), (1, True), (2, False)]:
        with metered() as meter:
            text(wrapped(model, path, seeded=False), temperature=0.7)
            assert len(model.asked) == asked
            if forgets:
                meter.forget()


def test_scores_of_a_server_are_cached(path: Path) -> None:
    model = Counting()
    for _ in range(2):
        asyncio.run(wrapped(model, path, seeded=False).score("Hi", ["a"]))
    assert len(model.asked) == 1


def test_errors_are_not_cached(path: Path) -> None:
    model = Broken()
    for _ in range(2):
        with pytest.raises(RecordError, match="no answer"):
            text(wrapped(model, path))
    assert len(model.asked) == 2


@pytest.mark.parametrize("logp", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_is_not_cached(path: Path, logp: float) -> None:
    model = Counting(logp=logp)
    for _ in range(2):
        (found,) = asyncio.run(wrapped(model, path).score("Hi", ["a"]))
        assert not math.isfinite(found)
    assert len(model.asked) == 2


def test_an_empty_answer_is_not_cached(path: Path) -> None:
    model = Counting(text=lambda drawn: "")
    assert [text(wrapped(model, path)) for _ in range(2)] == ["", ""]
    assert len(model.asked) == 2


def test_the_same_weights_under_another_name_answer_in_that_name(path: Path) -> None:
    asyncio.run(wrapped(Counting(name="start"), path).generate(HI, Sampling()))
    again = Counting(name="sl-cai")
    assert asyncio.run(wrapped(again, path).generate(HI, Sampling())).model == "sl-cai"
    assert not again.asked


# -- many at once


def test_identical_requests_in_progress_are_sent_once(path: Path) -> None:
    model = Counting()
    cached_model = wrapped(model, path)

    async def all_at_once() -> list[Completion]:
        return await asyncio.gather(*[cached_model.generate(HI, Sampling()) for _ in range(20)])

    assert len(set(asyncio.run(all_at_once()))) == 1
    assert len(model.asked) == 1


def test_a_cancelled_caller_does_not_cancel_the_others(path: Path) -> None:
    model = wrapped(Counting(), path)

    async def first_gives_up() -> Completion:
        first, second = (asyncio.create_task(model.generate(HI, Sampling())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(first_gives_up()).text.startswith("answer")


def test_all_who_wait_for_a_request_get_its_error(path: Path) -> None:
    model = Broken()
    cached_model = wrapped(model, path)

    async def both() -> list[object]:
        asked = [cached_model.generate(HI, Sampling()) for _ in range(2)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(x) for x in asyncio.run(both())] == [RecordError, RecordError]
    assert len(model.asked) == 1


WRITER = """
import sys
from pathlib import Path
from constitutional_ai.models.cached import CallFile
calls = CallFile(Path(sys.argv[1]), print)
print("open", flush=True)
for n in range(int(sys.argv[3])):
    calls.put(f"{sys.argv[2]} {n}", "x" * 500)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_may_write_one_file(path: Path) -> None:
    with writer(path, "a", 300) as one, writer(path, "b", 300) as other:
        assert [process.wait(timeout=60) for process in (one, other)] == [0, 0]
    calls = CallFile(path, pytest.fail)
    assert all(calls.get(f"{name} {n}") for name in "ab" for n in range(300))


def test_several_threads_may_create_the_file(path: Path) -> None:
    """The change to WAL mode is the one moment at which SQLite does not wait for another connection."""
    with ThreadPoolExecutor(8) as pool:
        for n in range(50):
            made = [pool.submit(CallFile, path.with_name(f"{n}.sqlite"), pytest.fail) for _ in range(8)]
            for calls in made:
                calls.result().close()


def test_a_kill_while_writing_damages_nothing(path: Path) -> None:
    with writer(path, "a", 10**9) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        calls = CallFile(path, pytest.fail)
        until = time.monotonic() + 30
        while calls.get("a 200") is None and time.monotonic() < until:
            time.sleep(0.005)
        process.kill()
    whole = CallFile(path, pytest.fail)
    assert whole.get("a 0") == "x" * 500
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    whole.put("b", "after")
    assert whole.get("b") == "after"


# -- a damaged file


def test_a_damaged_file_is_renamed_with_a_warning_and_a_new_one_started(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    said: list[str] = []
    calls = CallFile(path, said.append)
    calls.put("a", "b")
    assert calls.get("a") == "b"
    assert len(said) == 1
    assert f"{path} is damaged" in said[0]
    assert path.with_name("calls.sqlite.broken").read_bytes().startswith(b"no database")


def test_damage_that_shows_only_later_is_found_too(path: Path) -> None:
    calls = CallFile(path, pytest.fail)
    for n in range(200):
        calls.put(str(n), "x" * 500)
    calls.close()
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    said: list[str] = []
    calls = CallFile(path, said.append)
    found = [calls.get(str(n)) for n in range(200)]
    assert set(found) <= {None, "x" * 500}
    assert None in found
    assert len(said) == 1


def test_a_value_that_was_changed_on_disk_is_ignored(path: Path) -> None:
    calls = CallFile(path, pytest.fail)
    calls.put("a", "true")
    sqlite3.connect(path, isolation_level=None).execute(
        "UPDATE calls SET value = replace(value, 'true', 'lies')"
    )
    assert calls.get("a") is None


def test_a_file_that_cannot_be_created_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Set cache= to another file"):
        CallFile(tmp_path / "file" / "calls.sqlite", print)
    with pytest.raises(InputError, match="Set cache= to another file"):
        CallFile(tmp_path, print)


def test_values_are_json(path: Path) -> None:
    model = wrapped(Counting(), path)
    text(model)
    asyncio.run(model.score(HI, ["a"]))
    rows = sqlite3.connect(path).execute("SELECT value FROM calls").fetchall()
    assert {type(json.loads(value.partition(" ")[2])) for (value,) in rows} == {dict, list}


# -- who a model is


def test_scripted_models_and_runs_without_a_cache_are_left_as_they_are(path: Path) -> None:
    model, counting = ScriptedModel(), Counting()
    with cached(model, "scripted:echo", path, print) as found:
        assert found is model
    with cached(counting, "hf:x", None, print) as found:
        assert found is counting
    assert not path.exists()


def test_a_local_model_is_identified_by_its_files(tiny: Path, tmp_path: Path, path: Path) -> None:
    import shutil

    calls = CallFile(path, print)
    copy = shutil.copytree(tiny, tmp_path / "copy")
    before = model_identity(f"hf:{tiny}", calls)
    assert model_identity(f"hf:{copy}", calls) == before
    (copy / "README.md").write_text("a card")
    assert model_identity(f"hf:{copy}", calls) == before
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert model_identity(f"hf:{copy}", calls) != before


def test_a_server_is_identified_by_its_name_and_address(path: Path) -> None:
    assert (
        model_identity("server:m@http://localhost:1/v1", CallFile(path, print))
        == "server:m@http://localhost:1/v1"
    )


def test_a_real_model_answers_from_the_cache_as_by_itself(
    tiny: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    # What the model has kept of the first requests makes it round the next ones otherwise: in float64, no draw moves.
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float64)
    name = f"hf:{tiny}"
    model = load_model(name, engine="native")
    how = [Sampling(max_tokens=6, seed=seed) for seed in range(4)]
    alone = [asyncio.run(model.generate(HI, one)) for one in how]
    scores = asyncio.run(model.score(HI, [" yes", " no"]))

    # The same model, which must not be asked any more.
    silenced = type(type(model).__name__, (), {"format": model.format, "name": model.name})()
    other_engine = type("OtherEngine", (), {"format": model.format, "name": model.name})()

    with cached(model, name, path, print) as asked:
        assert [asyncio.run(asked.generate(HI, one)) for one in how] == alone
        kept = asyncio.run(asked.score(HI, [" yes", " no"]))
        assert kept == pytest.approx(scores, abs=1e-5)
    with cached(silenced, name, path, print) as asked:
        assert [asyncio.run(asked.generate(HI, one)) for one in how] == alone
        assert asyncio.run(asked.score(HI, [" yes", " no"])) == kept
        with pytest.raises(AttributeError):
            asyncio.run(asked.generate(HI, replace(how[0], seed=99)))
    with cached(other_engine, name, path, print) as asked, pytest.raises(AttributeError):
        asyncio.run(asked.generate(HI, how[0]))
