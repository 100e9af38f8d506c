"""Git's smart HTTP protocol: `git http-backend`, streamed in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from fakes.github.git import git_environment, git_program
from fakes.github.repository import Repository
from fakes.github.tokens import TokenGrant, find_grant, presented_token

READ = "git-upload-pack"
WRITE = "git-receive-pack"
_CHUNK = 1 << 16
_PATH = re.compile(
    r"/(?P<owner>[^/]+)/(?P<name>[^/]+?)(?:\.git)?/"
    r"(?P<call>info/refs|git-upload-pack|git-receive-pack)"
)
_SETTINGS = {
    "http.receivepack": "true",
    "uploadpack.allowFilter": "true",
    "uploadpack.allowAnySHA1InWant": "true",
}
# Git runs this hook for each ref of a push. As on GitHub, refusing one ref keeps the others.
_UPDATE_HOOK = """#!/bin/sh
for protected in $GITHUB_PROTECTED; do
  if [ "$1" = "$protected" ]; then
    echo "error: GH006: Protected branch update failed for $1." >&2
    echo "error: Changes must be made through a pull request." >&2
    exit 1
  fi
done
"""


def git_operation(method: str, path: str, query: str) -> str | None:
    """Return the name of a git request; None for other requests.

    The two requests of a fetch are `git-upload-pack:refs` and `git-upload-pack`; those of a push
    are `git-receive-pack:refs` and `git-receive-pack`.
    """
    matched = _PATH.fullmatch(path)
    if matched is None:
        return None
    if matched["call"] == "info/refs":
        service = _requested_service(query)
        return f"{service}:refs" if method == "GET" and service in (READ, WRITE) else None
    return matched["call"] if method == "POST" else None


class GitHttp:
    """The ASGI app for the requests that `git_operation` names.

    Args:
        root: the directory of all repositories.
        find: returns a repository by owner and name.
        tokens: the grant of each token; read on every request.
    """

    def __init__(
        self,
        root: Path,
        find: Callable[[str, str], Repository | None],
        tokens: Mapping[str, TokenGrant],
    ) -> None:
        self._root = root
        self._find = find
        self._tokens = tokens
        self._hooks = root / ".hooks"
        self._hooks.mkdir(parents=True, exist_ok=True)
        hook = self._hooks / "update"
        hook.write_text(_UPDATE_HOOK)
        hook.chmod(0o755)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one git request.

        Every answer closes its connection. On a reused connection, git (libcurl) would repeat a
        dropped request by itself, and the fault would have no effect.
        """

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._respond(scope, receive, send_and_close)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        matched = _PATH.fullmatch(scope["path"])
        if matched is None:
            raise ValueError("Only requests that git_operation names belong here.")
        headers = Headers(scope=scope)
        call = matched["call"]
        service = _requested_service(scope["query_string"].decode()) if "/" in call else call
        repository = self._find(matched["owner"], matched["name"])
        token = presented_token(headers.get("authorization"))
        grant = None if token is None else find_grant(self._tokens, token)
        refusal = _refusal(repository, token, grant, service == WRITE)
        if refusal is not None or repository is None:
            await (refusal or _missing())(scope, receive, send)
            return
        environment = self._environment(scope, headers, repository, call)
        await _run_backend(environment, receive, send)

    def _environment(
        self, scope: Scope, headers: Headers, repository: Repository, call: str
    ) -> dict[str, str]:
        variables = {
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{repository.full_name}.git/{call}",
            "REQUEST_METHOD": scope["method"],
            "QUERY_STRING": scope["query_string"].decode(),
            "CONTENT_TYPE": headers.get("content-type", ""),
            "GITHUB_PROTECTED": " ".join(f"refs/heads/{name}" for name in repository.protected),
        }
        # No CONTENT_LENGTH: with it, git 2.39 loops forever if the body ends early (measured).
        for variable, header in (
            ("HTTP_CONTENT_ENCODING", "content-encoding"),
            ("GIT_PROTOCOL", "git-protocol"),
        ):
            if header in headers:
                variables[variable] = headers[header]
        return git_environment({**_SETTINGS, "core.hooksPath": str(self._hooks)}, variables)


def _requested_service(query: str) -> str:
    return parse_qs(query).get("service", [""])[0]


def _missing() -> PlainTextResponse:
    return PlainTextResponse("Repository not found.", 404)


def _unauthorized(reason: str) -> PlainTextResponse:
    return PlainTextResponse(reason, 401, {"www-authenticate": 'Basic realm="GitHub"'})


def _refusal(
    repository: Repository | None, token: str | None, grant: TokenGrant | None, writing: bool
) -> PlainTextResponse | None:
    """Return GitHub's refusal, or None if the request is allowed."""
    if token is None:
        public = repository is not None and not repository.private
        return None if public and not writing else _unauthorized("Authentication required.")
    if grant is None:
        return _unauthorized("Invalid username or token.")
    if repository is None or not repository.readable_by(grant):
        return _missing()
    if writing and repository.archived:
        return PlainTextResponse("This repository was archived so it is read-only.", 403)
    if writing and not repository.writable_by(grant):
        reason = f"Permission to {repository.full_name}.git denied to {grant.login}."
        return PlainTextResponse(reason, 403)
    return None


async def _run_backend(environment: dict[str, str], receive: Receive, send: Send) -> None:
    process = await asyncio.create_subprocess_exec(
        git_program(),
        "http-backend",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=environment,
        start_new_session=True,
        limit=_CHUNK,
    )
    feeding = asyncio.create_task(_feed(process, receive))
    try:
        await _answer(process, send)
    except BaseException:
        _terminate(process)
        raise
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
        await _reap(process)


async def _feed(process: Process, receive: Receive) -> None:
    """Hand the request body to git; end git when the client goes away."""
    stdin = process.stdin
    if stdin is None:
        raise RuntimeError("git http-backend was started without a standard input.")
    while (message := await receive())["type"] == "http.request":
        # git closes its input early when it refuses the push: the rest of the body is dropped.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(message.get("body", b""))
            await stdin.drain()
        if not message.get("more_body", False):
            stdin.close()
    _terminate(process)


async def _answer(process: Process, send: Send) -> None:
    """Turn the CGI reply into an HTTP reply, chunk by chunk."""
    stdout = process.stdout
    if stdout is None:
        raise RuntimeError("git http-backend was started without a standard output.")
    status, headers = 200, []
    while line := (await stdout.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"status":
            status = int(value.split()[0])
        else:
            headers.append((name.lower(), value.strip()))
    if not headers:
        status = 500
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while chunk := await stdout.read(_CHUNK):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _reap(process: Process) -> None:
    """Wait for the end of git with its pipes closed."""
    if process.stdin is not None:
        process.stdin.close()
    await process.communicate()


def _terminate(process: Process) -> None:
    """End git with the signal on which it removes its lock files and quarantine."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
