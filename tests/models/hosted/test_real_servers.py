"""Labels worked out by hand, in this process, and by real servers that the test starts, are the same to 1e-5; and so
is greedy text, letter by letter, of those that give no labels too."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import ModelError
from constitutional_ai.evaluation.judge import feedback_ways
from constitutional_ai.models.abilities import DecisionQuestion
from constitutional_ai.models.hosted.letters import Place, letter_masses
from constitutional_ai.models.hosted.server import ServerModel
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.model import Context, Model, Sampling
from constitutional_ai.records import Comparison, Completion, Message, PreferenceLabel, Prompt
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback
from tests.engine.sequences import LEAD, lead

OURS = Path(__file__).parents[2] / "openai_server.py"
LLAMA_CPP = os.environ.get("CAI_LLAMA_CPP_PYTHON", sys.executable)
"""A Python that has ``llama-cpp-python[server]``: it is compiled where it is installed, so we do not ask for it."""
LLAMA_SERVER = os.environ.get("CAI_LLAMA_SERVER") or shutil.which("llama-server")
"""llama.cpp's own server, which is compiled too."""
TRANSFORMERS = os.environ.get("CAI_TRANSFORMERS_PYTHON", sys.executable)
"""A Python that has ``transformers[serving]``."""

WHICH = "Which answer is kinder?"
MINE = Constitution(name="mine", principles=(Principle(name="kind", preference=WHICH),))
TEXTS = [
    ("Hi?", "Hello!", "Go away."),
    ("Où est l'été ?", "Là-bas ☕, après le café…", "日本語で答えます。"),
    ("No.", "", "(A)"),
    ("Options:\n (A) [[[x]]]", "The answer is: (B)", "[[[é]]]"),
]


def pair(asked: str, *answers: str) -> Comparison:
    prompt = Prompt.of((Message("user", asked),), "red_team", "test")
    return Comparison(f"{prompt.id}.0", prompt, *[Completion(a, "m", "stop", 0, 1) for a in answers])


PAIRS = [pair(*texts) for texts in TEXTS]
PLAIN, CHAT = "\n\nHuman: Où ?\n\nAssistant:", (Message("user", "Où ?"),)


# -- by hand: a plain forward pass in float32 and the softmax of two sums


class ByHand:
    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def score(self, context: str, continuation: str) -> float:
        start = len(self.tokenizer(context)["input_ids"])
        tokens = self.tokenizer(context + continuation)["input_ids"]
        with torch.inference_mode():
            logps = self.model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        return sum(float(logps[at - 1, tokens[at]]) for at in range(start, len(tokens)))

    def first(self, asked: str, first: str, second: str) -> float:
        """P(the answer shown first is better)."""
        question = (
            "\n\nConsider the following conversation between a human and an assistant:"
            f"\n\nHuman: {asked}\n\n\n{WHICH} Options:\n (A) [[[{first}]]]\n (B) [[[{second}]]]\n\nThe answer is:"
        )
        a, b = math.exp(self.score(question, " (A)")), math.exp(self.score(question, " (B)"))
        return a / (a + b)


# -- starting servers


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """Address of a server that the command starts on a free port, which stands at its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            while not listens(port):
                assert process.poll() is None, "the server has died"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()  # one that still answers what nobody waits for would not end by itself


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def checkpoint(make_tiny: Callable[..., Path]) -> Path:
    """A tiny model, in whose texts a BOS token stands first."""
    from tokenizers.processors import TemplateProcessing

    folder = make_tiny(max_position_embeddings=2048)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    (folder / "decision.json").write_text('{"labels": {"noul": ["A", "B"]}}')  # it has no tokens for Yes and No
    assert AutoTokenizer.from_pretrained(folder)("x")["input_ids"][0] == tokenizer.bos_token_id
    return folder


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> Iterator[ServerModel]:
    with serving(sys.executable, str(OURS), str(checkpoint)) as url:
        yield ServerModel("tiny", url)


@contextmanager
def llama_cpp_serving(checkpoint: Path, folder: Path) -> Iterator[ServerModel]:
    found = subprocess.run([LLAMA_CPP, "-c", "import llama_cpp.server.app"], capture_output=True)
    if found.returncode:
        pytest.skip("needs llama-cpp-python[server] here, or a Python that has it in CAI_LLAMA_CPP_PYTHON")
    from tests.models.hosted.gguf_file import write_gguf

    file = write_gguf(checkpoint, folder / "tiny.gguf")
    exact = "--type_k 0 --type_v 0 --n_ctx 2048 --n_threads 1 --verbose False --port"  # no cache in float16
    with serving(LLAMA_CPP, "-m", "llama_cpp.server", "--model", str(file), *exact.split()) as url:
        yield ServerModel("tiny", url)


@pytest.fixture(scope="module")
def llama_cpp(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerModel]:
    with llama_cpp_serving(checkpoint, tmp_path_factory.mktemp("gguf")) as model:
        yield model


@pytest.fixture(scope="module")
def llama_server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerModel]:
    if LLAMA_SERVER is None:
        pytest.skip("needs llama.cpp's llama-server on the PATH, or in CAI_LLAMA_SERVER")
    from tests.models.hosted.gguf_file import write_gguf

    file = write_gguf(checkpoint, tmp_path_factory.mktemp("gguf") / "tiny.gguf")
    template = file.with_name("chat.jinja")
    template.write_text(AutoTokenizer.from_pretrained(checkpoint).chat_template)
    # One request at a time and no cache in float16, or answers would depend on what was asked before.
    exact = "-np 1 -ctk f32 -ctv f32 -c 2048 -t 1 --log-disable"
    drawing = "--top-k 0 --top-p 1 --min-p 0"  # it cuts off what is unlikely, unless told not to
    options = f"{exact} {drawing} --chat-template-file {template} --port"
    with serving(LLAMA_SERVER, "-m", str(file), *options.split()) as url:
        yield ServerModel("tiny", url)


@pytest.fixture(scope="module")
def transformers_serve(checkpoint: Path) -> Iterator[ServerModel]:
    found = subprocess.run([TRANSFORMERS, "-c", "import fastapi, transformers.cli.serve"], capture_output=True)
    if found.returncode:
        pytest.skip("needs transformers[serving] here, or a Python that has it in CAI_TRANSFORMERS_PYTHON")
    serve = ["-m", "transformers.cli.transformers", "serve", str(checkpoint), "--device", "cpu", "--port"]
    with serving(TRANSFORMERS, *serve) as url:
        yield ServerModel(str(checkpoint), url)


@pytest.fixture(params=["ours", "llama_server", "transformers_serve"])
def server(request: pytest.FixtureRequest) -> ServerModel:
    served: ServerModel = request.getfixturevalue(request.param)
    return served


@pytest.fixture(params=["in_process", "ours", "llama_cpp"])
def model(request: pytest.FixtureRequest, checkpoint: Path) -> Model:
    if request.param == "in_process":
        return HuggingFaceModel("hf:tiny", checkpoint, dtype=torch.float32)
    served: Model = request.getfixturevalue(request.param)
    return served


# -- the same, wherever it is asked


def test_labels_are_those_worked_out_by_hand(model: Model, checkpoint: Path) -> None:
    settings = Feedback(format="plain", both_orders=True)

    async def all_at_once() -> list[PreferenceLabel]:
        asked = [label(p, model=model, constitution=MINE, settings=settings, seed=0) for p in PAIRS]
        return await asyncio.gather(*asked)

    hand = ByHand(checkpoint)
    for (asked, a, b), made in zip(TEXTS, asyncio.run(all_at_once()), strict=True):
        first = [hand.first(asked, a, b), hand.first(asked, b, a)]
        assert [j.probability_first for j in made.judgements] == pytest.approx(first, abs=1e-5)
        assert made.probability_a == pytest.approx((first[0] + 1 - first[1]) / 2, abs=1e-5)
        assert max(abs(p - 0.5) for p in first) > 0.01  # so that 0.5 for all would not do


def test_whole_answers_score_as_by_hand_letter_by_letter(model: Model, checkpoint: Path) -> None:
    hand = ByHand(checkpoint)
    answers = [" Là-bas ☕, après le café…", " 日本語で答えます。", " No.", "\n"]
    scores = asyncio.run(model.score(PLAIN, answers))
    assert scores == pytest.approx([hand.score(PLAIN, a) for a in answers], abs=1e-4)


@pytest.mark.parametrize("context", [PLAIN, CHAT], ids=["plain", "chat"])
def test_a_server_answers_as_the_model_does_here(
    server: ServerModel, checkpoint: Path, context: Context
) -> None:
    local = HuggingFaceModel("hf:tiny", checkpoint, dtype=torch.float32)
    greedy = Sampling(temperature=0, max_tokens=11)  # it then says <pad>, an end to us and to no server
    assert lead(ByHand(checkpoint).model, local._tokens.generation(context, greedy).tokens, 11) > LEAD
    here, there = [asyncio.run(model.generate(context, greedy)) for model in (local, server)]
    assert here.text == there.text != ""
    assert (here.prompt_tokens, here.finish_reason) == (there.prompt_tokens, there.finish_reason)


@pytest.mark.parametrize("context", [PLAIN, CHAT], ids=["plain", "chat"])
def test_a_server_stops_before_a_stop_string(server: ServerModel, context: Context) -> None:
    greedy = Sampling(temperature=0, max_tokens=40)
    whole = asyncio.run(server.generate(context, greedy))
    stop = re.findall("[a-zA-Z]{2}", whole.text)[1]
    answer = asyncio.run(server.generate(context, dataclasses.replace(greedy, stop=("never", stop))))
    assert answer.text == whole.text[: whole.text.index(stop)].strip()
    assert answer.finish_reason == "stop"
    assert answer.completion_tokens < whole.completion_tokens  # the server itself stopped


@pytest.mark.parametrize(
    "name", ["ours", "llama_server"]
)  # transformers has one seed for all that is asked at once
def test_a_seed_fixes_an_answer_whatever_else_is_in_the_batch(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: ServerModel = request.getfixturevalue(name)
    draws = [Sampling(max_tokens=12, seed=n) for n in range(8)]

    async def at_once() -> list[str]:
        answers = await asyncio.gather(*[server.generate(PLAIN, draw) for draw in draws])
        return [answer.text for answer in answers]

    alone = [asyncio.run(server.generate(PLAIN, draw)).text for draw in draws]
    assert asyncio.run(at_once()) == alone
    assert len(set(alone)) == len(draws)


@pytest.mark.parametrize("name", ["llama_server", "transformers_serve"])
def test_a_server_that_does_not_score_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    server: ServerModel = request.getfixturevalue(name)
    with pytest.raises(ModelError, match=r"no log-probabilities .* feedback\.method=votes"):
        asyncio.run(server.score(PLAIN, [" (A)", " (B)"]))


def test_without_a_bos_token_a_server_is_right_or_refused(tiny: Path, tmp_path: Path) -> None:
    """llama-cpp-python 0.3.36 gives every token the log-probabilities of the place after it."""
    answers = [" (A)", " No."]
    with llama_cpp_serving(tiny, tmp_path) as model:
        try:
            scores = asyncio.run(model.score(PLAIN, answers))
        except ModelError as error:
            assert "its scores mean nothing" in str(error)
        else:
            assert scores == pytest.approx([ByHand(tiny).score(PLAIN, a) for a in answers], abs=1e-4)


# -- what a server tells beside texts and scores


def test_a_server_decides_as_the_pipeline_does_here(transformers_serve: ServerModel, checkpoint: Path) -> None:
    local = HuggingFaceModel("hf:tiny", checkpoint, dtype=torch.float32)
    for question in (
        DecisionQuestion("choice", WHICH, ("Hello!", "Go away.")),
        DecisionQuestion("choice", WHICH, ("Go away.", "Hello!")),
        DecisionQuestion("score", "How kind is it?", ("not", "a little", "very")),
        DecisionQuestion("predicate", "Is it kind?"),
    ):
        here, there = [asyncio.run(m.decide("Human: Où ?", question)) for m in (local, transformers_serve)]
        assert there.probabilities == pytest.approx(here.probabilities, abs=1e-4)
        assert there.prompt_tokens == here.prompt_tokens
        assert (there.label_mass, here.label_mass is None) == (None, False)


def test_doctor_finds_the_one_way_that_a_server_has(
    transformers_serve: ServerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model writes 256 tokens for each vote: they run out of time, and the other ways do not."""
    monkeypatch.setattr(feedback_ways, "CHECK_SECONDS", 20)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["doctor", transformers_serve.name])
    outcomes = dict(re.findall(r"^ (\S.*?)  +(yes|no|not checked)  ", result.stdout, re.MULTILINE))
    assert [outcomes[way] for way in list(feedback_ways.WAYS)[:3]] == ["no", "no", "yes"]
    assert outcomes["votes"] in ("no", "not checked")
    assert outcomes["feedback"] == "yes" and "set feedback.method=decision" in result.stdout
    assert "cai doctor asks 8 questions in both orders: decisions …" in result.stderr


def test_letters_are_the_likely_first_tokens(llama_server: ServerModel, checkpoint: Path) -> None:
    hand = ByHand(checkpoint)
    turns = [{"role": "user", "content": CHAT[0].content}]
    prompt = hand.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        likely = hand.model(**prompt).logits[0, -1].softmax(-1).topk(20)
    tokens = [hand.tokenizer.decode([token]) for token in likely.indices]
    first = Place(tokens[0], list(zip(tokens, likely.values.tolist(), strict=True)))
    assert letter_masses([first], ascii_uppercase) != [0.0] * 26
    reading = asyncio.run(llama_server.letters(CHAT, ascii_uppercase))
    masses = letter_masses([first], ascii_uppercase)
    assert reading.label_mass == pytest.approx(sum(masses), abs=1e-4)
    assert reading.probabilities == pytest.approx([mass / sum(masses) for mass in masses], abs=1e-4)


def test_a_server_without_top_logprobs_or_decisions_is_refused(
    ours: ServerModel, transformers_serve: ServerModel
) -> None:
    with pytest.raises(ModelError, match="tells no log-probabilities of what it says"):
        asyncio.run(transformers_serve.letters(CHAT, "AB"))
    with pytest.raises(ModelError, match="answers no decision questions"):
        asyncio.run(ours.decide("x", DecisionQuestion("choice", WHICH, ("Hello!", "Go away."))))
