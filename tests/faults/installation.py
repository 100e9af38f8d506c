"""An installation for fault injection: its requests and git commands can be held."""

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
from tests.faults.holding import HeldGit, HeldRequests
from tests.faults.network_link import NetworkLink
from tests.faults.stateless_model import StatelessModel
from tests.stack import TOKEN, Stack


@dataclass(frozen=True)
class Installation:
    """A stack, with its fakes and holds.

    `signal_files` is a directory for files that scripts wait for. `helpers` are additional workers.
    `links` connect some of them to Temporal.
    """

    stack: Stack
    model: StatelessModel
    requests: HeldRequests
    git: HeldGit
    signal_files: Path
    environment: dict[str, str]
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    links: list[NetworkLink] = field(default_factory=list)

    def start(self) -> None:
        self.stack.start(**self.environment)

    def release_all(self) -> None:
        self.requests.release_all()
        self.model.calls.release_all()
        self.git.release_all()


@contextlib.contextmanager
def installed(root: Path, **environment: str) -> Iterator[Installation]:
    """Start an installation, and stop all its processes at the end."""
    root.mkdir(parents=True, exist_ok=True)
    git = HeldGit(root / "held-git")
    environment["PATH"] = f"{git.directory}:{os.environ['PATH']}"
    github = FakeGitHub(root / "github", {TOKEN: TokenGrant("stack-user")})
    requests, model = HeldRequests(github.app), StatelessModel()
    with serving(requests, 0) as url, model.serve():
        github.url = url
        stack = Stack(root, github, url, model)
        installation = Installation(stack, model, requests, git, stack.signal_files, environment)
        try:
            installation.start()
            yield installation
        finally:
            installation.release_all()
            for helper in installation.helpers:
                helper.kill()
                helper.wait()
            for link in installation.links:
                link.close()
            stack.stop()
            stack.http.close()
