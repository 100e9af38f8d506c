"""The scripts that a scripted model knows, how far each conversation is, and what was asked."""

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
    """A request as it came in, credentials included: they are what some tests assert.

    `path` is without the scenario's prefix, `time` in seconds since the epoch, `headers` in lower
    case, `body` the parsed JSON (None for anything else), `main` whether tools were offered.
    """

    method: str
    path: str
    query: str
    time: float
    headers: dict[str, str]
    body: Any
    main: bool


class Scripts:
    """Scripts by name, with counters apart from them; safe to use from several threads.

    A cursor belongs to one name, session and agent; the session is empty where all sessions
    share one cursor. The log keeps the last 500 requests of a name.
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
            InvalidRequest: the name would not fit into a URL or a marker.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest("A script's name has 1 to 64 letters, digits, '.', '_' or '-'.")
        with self._lock:
            self._scripts[name] = script
            self._log.pop(name, None)
            for cursor in [cursor for cursor in self._taken if cursor[0] == name]:
                del self._taken[cursor]

    def take(self, name: str, session: str, agent: str) -> Step | None:
        """Move a cursor on and return the step that it passed, or None at the script's end.

        Raises:
            NotFound: nobody stored a script under the name.
        """
        with self._lock:
            script = self._find(name)
            cursor = (name, session, agent)
            step = script.step(self._taken[cursor], subagent=bool(agent))
            self._taken[cursor] += 1
            return step

    def remaining(self, name: str, session: str = "") -> int:
        """Count the calls that the script still answers in a session.

        Raises:
            NotFound: nobody stored a script under the name.
        """
        with self._lock:
            return self._find(name).remaining(self._taken[(name, session, "")])

    def record(self, name: str, request: RecordedRequest) -> None:
        """Append a request to the log of a name."""
        with self._lock:
            self._log[name].append(request)

    def requests(self, name: str) -> list[RecordedRequest]:
        """List the requests of a name, oldest first."""
        with self._lock:
            return list(self._log[name]) if name in self._log else []

    def _find(self, name: str) -> Script:
        if name not in self._scripts:
            raise NotFound(f"There is no script {name!r}. Store it before it is asked for.")
        return self._scripts[name]
