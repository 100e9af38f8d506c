"""A real Chromium, controlled through the DevTools protocol over a pipe."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class NavigationRefused(Exception):
    """Chromium did not show a page; the text is its net error, such as net::ERR_UNSAFE_PORT."""


class Chromium:
    """One browser. Its pages share stored data, such as the passwords of sites."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, of: int) -> None:
        self._process = process
        self._to = os.fdopen(to, "wb", buffering=0)
        self._of = os.fdopen(of, "rb")
        self._ids = itertools.count(1)
        self.events: list[Json] = []

    def page(self) -> Page:
        """A new tab."""
        target = self.command("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.command("Target.attachToTarget", {"targetId": target, "flatten": True})
        return Page(self, attached["sessionId"])

    def command(self, method: str, parameters: Json, session: str | None = None) -> Json:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer}"
        result: Json = answer["result"]
        return result

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._to.close()
        self._of.close()

    def _message(self) -> Json:
        data = bytearray()
        while (byte := self._of.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            data += byte
        message: Json = json.loads(data)
        return message


class Page:
    """A tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self._loader = ""
        for domain in ("Page", "Log", "Runtime", "Network"):
            self._command(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Open an address, and wait until the page is loaded completely.

        Raises:
            NavigationRefused: Chromium shows no page.
        """
        self._browser.events = []
        answer = self._command("Page.navigate", url=url)
        if "errorText" in answer:
            raise NavigationRefused(answer["errorText"])
        self._await(lambda loader: loader == answer["loaderId"])

    def await_load(self) -> None:
        """Wait for the page to which the present one has navigated."""
        before = self._loader
        self._await(lambda loader: loader != before)

    def _await(self, is_new: Callable[[str], bool]) -> None:
        # A load event may still be that of the page before, so that the loader is compared.
        complete = "document.readyState === 'complete' && document.body !== null"
        deadline = time.monotonic() + 20
        while True:
            loader = self._command("Page.getFrameTree")["frameTree"]["frame"]["loaderId"]
            if is_new(loader) and self.run(complete):
                self._loader = loader
                return
            assert time.monotonic() < deadline, "the page has not been loaded within 20 seconds"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """Return the value of an expression, or the result of a promise."""
        answer = self._command(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the page since it was opened, such as policy violations."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown")
        return [str(event["params"]) for event in self._browser.events if event["method"] in kinds]

    @property
    def requested(self) -> list[str]:
        """The addresses that the page has requested since it was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _command(self, method: str, **parameters: Any) -> Json:
        return self._browser.command(method, parameters, self._session)


@contextlib.contextmanager
def running_chromium(profile: Path, names: Mapping[str, str]) -> Iterator[Chromium]:
    """Start a browser with an empty profile that resolves only `names`, to these addresses."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("Chromium is not installed: `apt-get install chromium`, as .ci/run does.")
    rules = [f"MAP {name} {address}" for name, address in names.items()]
    arguments = [
        *OPTIONS,
        f"--user-data-dir={profile}",
        f"--host-resolver-rules={', '.join([*rules, 'MAP * ~NOTFOUND', 'EXCLUDE 127.*'])}",
    ]
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    process = subprocess.Popen(
        # The pipe is descriptors 3 and 4 of the browser.
        ["bash", "-c", f'exec "$@" 3<&{commands_out} 4>&{answers_in}', "bash", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(commands_out, answers_in),
        start_new_session=True,
    )
    os.close(commands_out)
    os.close(answers_in)
    browser = Chromium(process, commands_in, answers_out)
    try:
        yield browser
    finally:
        browser.close()
