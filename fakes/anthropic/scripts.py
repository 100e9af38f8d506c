"""The scripts of a scripted model, the position of each conversation, and the request log."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict, deque
from typing import Any, TypedDict

from domain.errors import InvalidRequest, NotFound
from fakes.anthropic.steps import Script, Step

LOG_LENGTH = 500
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RecordedRequest(TypedDict):
    """A received request, including credentials, which some tests check.

    `path` excludes the prefix of the script. `time` is in seconds since the epoch. The names of
    `headers` are in lower case. `body` is the parsed JSON, or None. `main` says whether the
    request offers tools.
    """

    method: str
    path: str
    query: str
    time: float
    headers: dict[str, str]
    body: Any
    main: bool


class Scripts:
    """Scripts by name, with separate cursors. Safe to use from several threads.

    A cursor belongs to one name, session and agent. The session is empty if all sessions share
    one cursor. The log keeps the last 500 requests of each name.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: dict[str, Script] = {}
        self._taken: Counter[tuple[str, str, str]] = Counter()
        self._log: defaultdict[str, deque[RecordedRequest]] = defaultdict(
            lambda: deque(maxlen=LOG_LENGTH)
        )

    def put(self, name: str, script: Script) -> None:
        """Store a script under a name, with fresh cursors and an empty log.

        Raises:
            InvalidRequest: the name is not valid in a URL or marker.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest("A script's name has 1 to 64 letters, digits, '.', '_' or '-'.")
        with self._lock:
            self._scripts[name] = script
            self._log.pop(name, None)
            for cursor in [cursor for cursor in self._taken if cursor[0] == name]:
                del self._taken[cursor]

    def take(self, name: str, session: str, agent: str) -> Step | None:
        """Advance a cursor and return its step, or None at the end of the script.

        Raises:
            NotFound: there is no script with this name.
        """
        with self._lock:
            script = self._find(name)
            cursor = (name, session, agent)
            step = script.step(self._taken[cursor], subagent=bool(agent))
            self._taken[cursor] += 1
            return step

    def remaining(self, name: str, session: str = "") -> int:
        """Return the number of calls that the script still answers in a session.

        Raises:
            NotFound: there is no script with this name.
        """
        with self._lock:
            return self._find(name).remaining(self._taken[(name, session, "")])

    def record(self, name: str, request: RecordedRequest) -> None:
        """Append a request to the log of a name."""
        with self._lock:
            self._log[name].append(request)

    def requests(self, name: str) -> list[RecordedRequest]:
        """Return the requests of a name, oldest first."""
        with self._lock:
            return list(self._log[name]) if name in self._log else []

    def _find(self, name: str) -> Script:
        if name not in self._scripts:
            raise NotFound(f"There is no script {name!r}. Store it before the first request.")
        return self._scripts[name]
