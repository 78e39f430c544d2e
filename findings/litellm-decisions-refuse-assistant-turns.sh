#!/bin/sh
# LiteLLM 1.108.7, litellm.decisions with a conversation as input, and OpenAI's SDK 3.57.0, whose decisions.create takes
# messages of a user, an assistant, a system and a developer.
#
# Expected: a conversation whose last turn is the assistant's, which is what a judge of answers asks about, is accepted.
# Seen on 2026-11-30: LiteLLM takes messages of the user only, and raises BadRequestError ("Input should be 'user'") for
# the assistant's before anything is sent, whatever the server could take. The conversation has to be written as one text.
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
from openai.types import decision_create_params as params

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
predicate = [{"type": "predicate", "instructions": "Is the last answer rude?"}]
turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Go away."}]


def tried(given: object) -> str:
    try:
        return f"answered: {litellm.decisions(input=given, questions=predicate, **to).answers[0].probability}"
    except litellm.BadRequestError as error:
        return "refused: " + str("Input should be 'user'" in str(error) and "Input should be 'user'" or error)


seen = {"text": tried("Hi? Go away."), "a user turn": tried(turns[:1]), "both turns": tried(turns)}
print(seen)
roles = {"user", "developer", "system", "assistant"}
known = {name for name in roles if hasattr(params, f"InputUnionMember1DecisionInput{name.title()}Message")}
print("roles that the SDK types as input of a decision:", sorted(known))
as_described = {"text": "answered: 0.97", "a user turn": "answered: 0.97", "both turns": "refused: Input should be 'user'"}
raise SystemExit(0 if seen == as_described and known == roles else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
