"""A replacement for Anthropic's Messages API on 127.0.0.1 that answers from scripts.

The real Claude Code CLI uses it through ANTHROPIC_BASE_URL, with any API key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from fakes.anthropic.app import UNSCRIPTED, ModelApp, Story
from fakes.anthropic.request import Conversation
from fakes.anthropic.scripts import RecordedRequest, Scripts
from fakes.anthropic.steps import Step, make_script
from fakes.server import serving

__all__ = ["UNSCRIPTED", "Conversation", "RecordedRequest", "ScriptedModel", "Step", "Story"]


class ScriptedModel:
    """Scripts and the server that replays them.

    The base URL of `url_for` chooses a script, with one position for all callers. With the plain
    `base_url`, `[[script:NAME]]` in the first user message of a conversation chooses it, and each
    session has its own position. Every call that offers tools takes a step, including retries.
    Calls of a subagent use the script's `subagent` steps. A call after the end of the script gets
    a 400.

    Args:
        story: answers conversations without a script; without a story they get a 400.
    """

    def __init__(self, story: Story | None = None) -> None:
        self._scripts = Scripts()
        self._app = ModelApp(self._scripts, story)
        self.base_url = ""
        """The ANTHROPIC_BASE_URL for conversations that choose their script with a marker."""

    def url_for(self, name: str) -> str:
        """Return the ANTHROPIC_BASE_URL that uses script `name` for every call."""
        return f"{self.base_url}/s/{name}"

    def script(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        subagent: Sequence[Step] = (),
        repeat_last: bool = False,
    ) -> str:
        """Store a script with new cursors and an empty log, and return its `url_for`.

        Raises:
            InvalidRequest: the name or a step is malformed.
        """
        self._scripts.put(name, make_script(steps, subagent, repeat_last=repeat_last))
        return self.url_for(name)

    def requests(self, name: str = UNSCRIPTED) -> list[RecordedRequest]:
        """Return the last 500 requests of a script; by default requests without a script."""
        return self._scripts.requests(name)

    def remaining(self, name: str, session: str = "") -> int:
        """Return the number of calls that a script still answers.

        Args:
            name: the script.
            session: the session id, if the conversation chose the script.

        Raises:
            NotFound: there is no such script.
        """
        return self._scripts.remaining(name, session)

    @contextlib.contextmanager
    def serve(self, port: int = 0) -> Iterator[ScriptedModel]:
        """Serve in a thread of this process until the block ends, which also cuts hung answers.

        Args:
            port: 0 chooses a free one.

        Raises:
            OSError: the port is in use.
            RuntimeError: the server did not start within 10 s.
        """
        with serving(self._app.asgi(), port, patience=0) as self.base_url:
            yield self
