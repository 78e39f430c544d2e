"""Keys, user names and passwords are sent, and are in no file of a run and no output of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
import yaml

from constitutional_ai.errors import InputError, ModelError
from constitutional_ai.models.load import check_name, load_model
from constitutional_ai.models.logins import keep_logins, with_login
from tests.faulty_server import FaultyServer
from tests.pipeline.tiny_run import echoing, make

USER, PASSWORD, KEY = "anna-lyse", "pa%40ss-w0rd", "sk-a-key-to-be-kept"
BASIC = b64encode(f"{USER}:pa@ss-w0rd".encode()).decode()
SECRETS = (USER, PASSWORD, "pa@ss-w0rd", BASIC, KEY)


def test_names_are_stripped_and_requests_know_the_login_of_each_address() -> None:
    name = "server:m@20@http://u:one@a:1/v1,http://b/v1,https://v:t@wo@c/v1"
    assert keep_logins(name) == "server:m@20@http://a:1/v1,http://b/v1,https://c/v1"
    addresses = [with_login(url) for url in ("http://a:1/v1", "http://b/v1", "https://c/v1")]
    assert addresses == ["http://u:one@a:1/v1", "http://b/v1", "https://v:t@wo@c/v1"]
    model = load_model(name)
    assert model.name == "server:m@20@http://a:1/v1,http://b/v1,https://c/v1"


@pytest.mark.parametrize("wrong", ["server:m@http://u:p/w@host/v1", "server:@http://u:secret@host/v1"])
def test_an_error_about_a_name_does_not_show_the_password(wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        check_name(wrong)
    assert "p/w" not in str(caught.value)
    assert "secret" not in str(caught.value)


def on_disk(folder: Path) -> list[tuple[str, str]]:
    """The files that hold a secret, and which."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [(str(f), secret) for f in files for secret in SECRETS if secret.encode() in f.read_bytes()]


def repeating(server: FaultyServer) -> str:
    """The address of a server that repeats in its errors what it was sent."""
    server.error = f"login {USER}:{PASSWORD} as {BASIC}, key {KEY}"
    return server.url.replace("://", f"://{USER}:{PASSWORD}@")


def test_a_run_writes_and_prints_no_password_and_no_key(tmp_path: Path) -> None:
    """The arguments that others see are looked at while the command works."""
    titles: list[bytes] = []
    running: list[subprocess.Popen[str]] = []

    def choose(number: int, request: object) -> str:
        if running:
            titles.append(Path(f"/proc/{running[0].pid}/cmdline").read_bytes())
        return "status 400" if number in (2, 8) else ""

    with FaultyServer(choose) as server:
        recipe = echoing(tmp_path / "run", revisions={"rounds": 1, "max_tokens": 64}, max_failures=3)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-m", "constitutional_ai", "run", str(tmp_path / "recipe.yaml")]
        command += [f"models.helpful=server:m@{repeating(server)}", "--until", "02-revisions"]
        environment = {**os.environ, "CAI_API_KEY": KEY}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            running.append(process)
            said = process.communicate(timeout=300)[0]
        assert server.met == {"status 400": 2}
        assert f"authorization: basic {BASIC}".lower() in server.headers[0].lower()
    assert process.returncode == 0, said
    assert not [secret for secret in SECRETS if secret in said]
    assert on_disk(tmp_path / "run") == []
    assert titles
    assert not [secret for secret in SECRETS for title in titles if secret.encode() in title]


def test_a_refusal_and_the_folder_of_its_run_hold_no_password(tmp_path: Path) -> None:
    with FaultyServer(lambda number, request: "status 401") as server:
        name = f"server:m@{repeating(server)}"
        recipe = echoing(tmp_path / "run")
        recipe["models"] = {**recipe["models"], "helpful": name}
        with pytest.raises(ModelError) as caught:
            make(recipe, until="01-responses")
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    assert on_disk(tmp_path / "run") == []
