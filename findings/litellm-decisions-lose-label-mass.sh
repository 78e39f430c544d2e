#!/bin/sh
# LiteLLM 1.108.7, litellm.decisions (OpenAI's /v1/decisions) in front of a vLLM server (hosted_vllm/), which answers in
# the form of /v1/systemone. The stub below replies as vLLM 0.32.0 did to us: with `diagnostics`, whose `label_mass` says
# how much probability the labels hold together.
#
# Expected: what tells a sure answer from a meaningless one comes through, as it does from litellm.systemone.
# Seen on 2026-11-30: translated into OpenAI's form, the answer keeps its probability of 0.97 and loses the label_mass of
# 0.0000027, in a field of its own or hidden alike: that the model would have said something else cannot be seen.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check litellm==1.108.7 openai==3.57.0
export LITELLM_LOCAL_MODEL_COST_MAP=True
cat > "$folder/try.py" <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import litellm

ANSWER = {"type": "noul", "noul": 0.97, "probabilities": {"yes": 0.97, "no": 0.03}, "confidence": 2.6e-06}
COUNTS = {"input_tokens": 90, "output_tokens": 1}


class LikeVLLM(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["questions"]
        answers = dict.fromkeys(asked, ANSWER)
        masses = dict.fromkeys(asked, {"label_mass": 2.7e-06, "argmax_is_label": False})
        ids = {"id": "decision-1", "object": "structured_decision", "created": 1, "model": "m"}
        body = json.dumps({**ids, "answers": answers, "usage": COUNTS, "diagnostics": masses}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), LikeVLLM)
threading.Thread(target=server.serve_forever, daemon=True).start()
to = {"model": "hosted_vllm/m", "api_base": f"http://127.0.0.1:{server.server_port}/v1"}
noul = {"loud": {"type": "noul", "instructions": "Is it loud?"}}
predicate = [{"type": "predicate", "name": "loud", "instructions": "Is it loud?"}]
seen = {
    "systemone": litellm.systemone(state="The dog barked.", questions=noul, **to).model_dump_json(),
    "decisions": litellm.decisions(input="The dog barked.", questions=predicate, **to).model_dump_json(),
}
for name, reply in seen.items():
    print(f"{name}: 0.97 is in it: {'0.97' in reply}; label_mass: {'label_mass' in reply}")
as_described = all("0.97" in reply for reply in seen.values())
as_described &= "label_mass" in seen["systemone"] and "label_mass" not in seen["decisions"]
raise SystemExit(0 if as_described else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
