"""An OpenAI-compatible server around plain transformers, for tests. It shares no line with cai.

``python tests/openai_server.py FOLDER PORT`` serves the model in FOLDER, in float32, on this machine alone.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM, AutoTokenizer


class Served:
    """A model, and the protocol's two addresses."""

    def __init__(self, folder: str) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        self.model: Any = model.eval()

    async def completions(self, request: Request) -> JSONResponse:
        return await run_in_threadpool(self.complete, await request.json())

    async def chat(self, request: Request) -> JSONResponse:
        return await run_in_threadpool(self.answer, await request.json())

    def complete(self, asked: dict[str, Any]) -> JSONResponse:
        prompt = self.tokenizer(asked["prompt"])["input_ids"]
        if len(prompt) + asked.get("max_tokens", 16) > self.model.config.max_position_embeddings:
            return JSONResponse({"error": {"message": f"{len(prompt)} tokens are too long"}}, 400)
        new, finish = self.go_on(prompt, asked)
        echo = asked.get("echo", False)
        text = (asked["prompt"] if echo else "") + self.text(new)
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
        if asked.get("logprobs") is not None:
            choice["logprobs"] = self.logprobs(prompt + new, 0 if echo else len(prompt))
        return self.reply("text_completion", asked, choice, len(prompt), len(new))

    def answer(self, asked: dict[str, Any]) -> JSONResponse:
        text = self.tokenizer.apply_chat_template(asked["messages"], tokenize=False, add_generation_prompt=True)
        prompt = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        new, finish = self.go_on(prompt, asked)
        message = {"role": "assistant", "content": self.text(new)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return self.reply("chat.completion", asked, choice, len(prompt), len(new))

    def go_on(self, prompt: list[int], asked: dict[str, Any]) -> tuple[list[int], str]:
        """New tokens, without an end, and why they end."""
        new: list[int] = []
        draws = torch.Generator().manual_seed(asked.get("seed") or 0)
        temperature, stops = asked.get("temperature", 1.0), asked.get("stop") or []
        while len(new) < asked.get("max_tokens", 16):
            logits = self.logits(prompt + new)[-1]
            token = int(logits.argmax())
            if temperature:
                token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=draws))
            if token == self.tokenizer.eos_token_id:
                return new, "stop"
            new.append(token)
            if any(stop in self.text(new) for stop in stops):
                return new, "stop"
        return new, "length"

    def text(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def logits(self, tokens: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self.model(torch.tensor([tokens])).logits[0]
        return logits

    def logprobs(self, tokens: list[int], start: int) -> dict[str, Any]:
        logps = self.logits(tokens).log_softmax(-1)
        values = [None, *[float(logps[at - 1, tokens[at]]) for at in range(1, len(tokens))]]
        texts = [self.tokenizer.decode([token]) for token in tokens[start:]]
        offsets = [len("".join(texts[:at])) for at in range(len(texts))]
        return {
            "tokens": texts,
            "token_logprobs": values[start:],
            "text_offset": offsets,
            "top_logprobs": None,
        }

    def reply(self, kind: str, asked: dict[str, Any], choice: Any, read: int, new: int) -> JSONResponse:
        usage = {"prompt_tokens": read, "completion_tokens": new, "total_tokens": read + new}
        about = {"id": "0", "object": kind, "created": 0, "model": asked["model"]}
        return JSONResponse({**about, "choices": [choice], "usage": usage})


if __name__ == "__main__":
    served = Served(sys.argv[1])
    routes = [
        Route("/v1/completions", served.completions, methods=["POST"]),
        Route("/v1/chat/completions", served.chat, methods=["POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
