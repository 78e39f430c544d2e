"""A stand-in for Hugging Face's hub on this machine: the part of its public HTTP interface that its client uses here.

Its client makes the requests (``huggingface_hub``); nothing of it is replaced. Repositories are kept in memory. Small
files arrive inside a commit, weights as the hub's large files do. It neither checks tokens nor knows branches.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = ".safetensors"


class HubServer:
    """A hub whose address is ``url``. A context manager."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        """Files by repository: ``models/OWNER/NAME`` or ``datasets/OWNER/NAME``."""
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        """Methods and paths, in the order of their arrival."""
        self.tokens: set[str] = set()
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(_Handler):
            server_of = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Return status, content (JSON, or bytes as they are) and headers."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if method == "PUT":
            self._objects[parts[-1]] = body
            return 200, {}, {}
        if parts[:3] == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[:2] == ["api", "validate-yaml"]:
            return 200, {"warnings": [], "errors": []}, {}
        if parts[0] == "api" and len(parts) >= 4:
            return self._repository("/".join(parts[1:4]), parts[4:], body)
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self._large(json.loads(body))
        if "resolve" in parts:
            at = parts.index("resolve")
            names = parts[:at] if at == 3 else ["models", *parts[:at]]
            return self._file("/".join(names), "/".join(parts[at + 2 :]))
        return 404, {"error": f"no {path}"}, {}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        kind = asked.get("type") or "model"
        owner = asked.get("organization") or "me"
        name = f"{kind}s/{owner}/{asked['name']}"
        if name in self.files:
            return 409, {"error": "exists", "url": f"{self.url}/{name}"}, {}
        self.files[name], self.private[name] = {}, asked.get("visibility") == "private"
        return 200, {"url": f"{self.url}/{name.removeprefix('models/')}"}, {}

    def _repository(self, name: str, rest: list[str], body: bytes) -> tuple[int, Any, dict[str, str]]:
        if name not in self.files:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        match rest[:1]:
            case ["preupload"]:
                paths = [file["path"] for file in json.loads(body)["files"]]
                ways = [{"path": p, "uploadMode": "lfs" if p.endswith(LARGE) else "regular"} for p in paths]
                return 200, {"files": [way | {"shouldIgnore": False} for way in ways]}, {}
            case ["commit"]:
                self._commit(name, body)
                return (
                    200,
                    {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.url}/{name}/commit/{COMMIT}"},
                    {},
                )
            case ["tree"]:
                listed = [
                    {"type": "file", "path": p, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for p, data in self.files[name].items()
                ]
                return 200, listed, {}
        siblings = [{"rfilename": path} for path in self.files[name]]
        about = {
            "id": name.split("/", 1)[1],
            "sha": COMMIT,
            "siblings": siblings,
            "private": self.private[name],
        }
        return 200, about | {"tags": [], "downloads": 0, "likes": 0}, {}

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[name][value["path"]] = self._objects[value["oid"]]

    def _large(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _file(self, name: str, path: str) -> tuple[int, Any, dict[str, str]]:
        if name not in self.files:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if path not in self.files[name]:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        data = self.files[name][path]
        etag = hashlib.sha256(data).hexdigest()
        return 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}


class _Handler(BaseHTTPRequestHandler):
    server_of: HubServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        hub = self.server_of
        hub.requests.append(f"{self.command} {self.path}")
        if token := self.headers.get("Authorization"):
            hub.tokens.add(token)
        status, content, headers = hub.answer(self.command, self.path, body)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass
