"""One installation to be broken: a stack whose fake GitHub and git can be held in the middle."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fakes.github.server import FakeGitHub
from fakes.github.tokens import TokenGrant
from fakes.server import serving
from tests.faults.forgetful_model import ForgetfulModel
from tests.faults.holding import HeldGit, HeldRequests
from tests.faults.wire import Wire
from tests.stack import TOKEN, Stack


@dataclass(frozen=True)
class Installation:
    """A stack, and what holds it up.

    `gates` is a directory for files that scripts wait for; `helpers` are more processes of it, and
    `wires` lead from some of them to Temporal.
    """

    stack: Stack
    model: ForgetfulModel
    requests: HeldRequests
    git: HeldGit
    gates: Path
    environment: dict[str, str]
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)

    def start(self) -> None:
        self.stack.start(**self.environment)

    def release_all(self) -> None:
        self.requests.release_all()
        self.model.calls.release_all()
        self.git.release_all()


@contextlib.contextmanager
def installed(root: Path, **environment: str) -> Iterator[Installation]:
    """A started installation; everything it started is gone at the end."""
    root.mkdir(parents=True, exist_ok=True)
    git = HeldGit(root / "held-git")
    environment["PATH"] = f"{git.directory}:{os.environ['PATH']}"
    github = FakeGitHub(root / "github", {TOKEN: TokenGrant("stack-user")})
    requests, model = HeldRequests(github.app), ForgetfulModel()
    with serving(requests, 0) as url, model.serve():
        github.url = url
        stack = Stack(root, github, url, model)
        installation = Installation(stack, model, requests, git, stack.gates, environment)
        try:
            installation.start()
            yield installation
        finally:
            installation.release_all()
            for helper in installation.helpers:
                helper.kill()
                helper.wait()
            for wire in installation.wires:
                wire.close()
            stack.stop()
            stack.http.close()
