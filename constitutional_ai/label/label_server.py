"""Serve a study to its people, each by a link of their own, until interrupted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from starlette.types import ASGIApp

from constitutional_ai.label.label_app import label_app
from constitutional_ai.label.replies import Replies
from constitutional_ai.label.study import Study
from constitutional_ai.models.load import loaded
from constitutional_ai.runs.folder import locked
from constitutional_ai.serve.guard import Guard
from constitutional_ai.serve.listening import serve_guarded


def serve_study(study: Study, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until interrupted. ``say`` receives each person's link, and why a model gave no reply.

    Raises InputError if the address cannot be used, another process serves the study, or a model cannot be loaded.
    """
    with ExitStack() as stack:
        stack.enter_context(locked(study.folder, "name another folder with --out"))

        def make_app(address: str) -> ASGIApp:
            names = study.settings.names
            models = {label: stack.enter_context(loaded(name, say=say)) for label, name in names.items()}
            replies = Replies(study, models, say) if models else None
            people = study.people()
            for person in people:
                say(f"{person.name}: {address}/{person.token}/")
            return Guard(
                label_app(study, replies), {person.token: person.name for person in people}, own_pages=True
            )

        serve_guarded(make_app, host, port)
