"""Hold requests to the fake GitHub, and git commands, until a test releases them."""

from __future__ import annotations

import asyncio
import math
import shutil
import threading
import time
from concurrent.futures import Future
from fnmatch import fnmatchcase
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 14.0
"""Seconds; less than the worker's time limit of 15 s for requests to GitHub's API."""

# A wrapper of git. A rule is a file of three lines: where, words and moment.
_GIT = """#!/bin/sh
for rule in {rules}/*.rule; do
  [ -f "$rule" ] || continue
  {{ read -r where; read -r words; read -r moment; }} < "$rule"
  case "$GIT_DIR $GIT_WORK_TREE $*" in *"$where"*) ;; *) continue ;; esac
  case " $* " in *" $words"*) ;; *) continue ;; esac
  status=0
  [ "$moment" = after ] && {{ {git} "$@"; status=$?; }}
  echo $$ > "$rule.draft" && mv "$rule.draft" "${{rule%.rule}}.held"
  while [ -f "$rule" ]; do sleep 0.05; done
  [ "$moment" = after ] && exit $status
done
exec {git} "$@"
"""


class RequestHold:
    """A request that waits before it is performed, or before it is answered."""

    def __init__(self, pattern: str, *, after: bool) -> None:
        self.pattern = pattern
        self.after = after
        self.arrived = threading.Event()
        self._waiting: Future[None] = Future()
        self._held_since = math.inf

    @property
    def is_held(self) -> bool:
        """Whether the request waits and its sender has not reached its time limit."""
        patience = PATIENCE if "/api/" in self.pattern else math.inf
        return 0 <= time.monotonic() - self._held_since < patience

    async def wait(self) -> None:
        self._held_since = time.monotonic()
        self.arrived.set()
        await asyncio.wrap_future(self._waiting)

    def release(self) -> None:
        if not self._waiting.done():
            self._waiting.set_result(None)


class HeldRequests:
    """The ASGI middleware in front of the fake GitHub.

    The name of a request is `METHOD /path?query`, followed by Claude's session id, if any. Each
    hold applies to the first matching request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._holds: list[RequestHold] = []

    def hold(self, pattern: str, *, after: bool = False) -> RequestHold:
        hold = RequestHold(pattern, after=after)
        self._holds.append(hold)
        return hold

    def release_all(self) -> None:
        for hold in self._holds:
            hold.release()
        self._holds.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hold = self._matching_hold(scope)
        if hold is None:
            await self._app(scope, receive, send)
        elif hold.after:
            await self._hold_answer(hold, scope, receive, send)
        else:
            await self._hold_request(hold, scope, receive, send)

    async def _hold_answer(
        self, hold: RequestHold, scope: Scope, receive: Receive, send: Send
    ) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        await hold.wait()
        for message in answer:
            await send(message)

    async def _hold_request(
        self, hold: RequestHold, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Perform the request when it is released, unless its sender has disconnected."""
        request = [await receive()]
        while request[-1].get("more_body"):
            request.append(await receive())
        leaving = asyncio.ensure_future(receive())
        await hold.wait()

        async def replay() -> Message:
            return request.pop(0) if request else await leaving

        if not leaving.done():
            await self._app(scope, replay, send)
        leaving.cancel()

    def _matching_hold(self, scope: Scope) -> RequestHold | None:
        if scope["type"] != "http":
            return None
        name = _name(scope)
        for hold in self._holds:
            if not hold.arrived.is_set() and fnmatchcase(name, hold.pattern):
                return hold
        return None


def _name(scope: Scope) -> str:
    session = dict(scope["headers"]).get(b"x-claude-code-session-id", b"").decode()
    return f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {session}".rstrip()


class GitHold:
    """A git command that waits, before or after its work."""

    def __init__(self, rule: Path) -> None:
        self._rule = rule
        self._held = rule.with_suffix(".held")

    @property
    def pid(self) -> int | None:
        """The waiting process; None before it arrives."""
        try:
            return int(self._held.read_text())
        except FileNotFoundError:
            return None

    def release(self) -> None:
        self._rule.unlink(missing_ok=True)


class HeldGit:
    """A PATH directory with a git whose commands can be held."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._rules = directory / "rules"
        self._rules.mkdir(parents=True)
        self._holds: list[GitHold] = []
        program = directory / "git"
        program.write_text(_GIT.format(rules=self._rules, git=shutil.which("git")))
        program.chmod(0o755)

    def hold(self, where: str, words: str, *, after: bool = False) -> GitHold:
        """Hold commands with `words` in their arguments and `where` in arguments or git paths."""
        rule = self._rules / f"{len(self._holds)}.rule"
        draft = rule.with_suffix(".new")
        draft.write_text(f"{where}\n{words}\n{'after' if after else 'before'}\n")
        draft.rename(rule)
        hold = GitHold(rule)
        self._holds.append(hold)
        return hold

    def release_all(self) -> None:
        for hold in self._holds:
            hold.release()
