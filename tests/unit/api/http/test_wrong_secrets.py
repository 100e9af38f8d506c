"""Clients that guess the secret are slowed down and logged."""

from __future__ import annotations

import asyncio
import base64
import logging
import time

import pytest

from api.app import create_app
from api.http import log_throttle, wrong_secrets
from api.http.log_throttle import LogThrottle
from api.http.wrong_secrets import WrongSecrets
from tests.unit.api.calls import BEARER, SECRET, Api
from tests.unit.api.wire import Wire

WRONG = {"Authorization": "Bearer a-guess"}


async def guess(api: Api) -> int:
    return (await api.call("GET", "/clients", headers=WRONG)).status_code


async def test_answers_to_wrong_secrets_are_spaced(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrong_secrets, "INTERVAL_SECONDS", 0.2)
    began = time.monotonic()
    assert await asyncio.gather(*(guess(api) for _ in range(4))) == [401] * 4
    assert time.monotonic() - began >= 0.8


async def test_correct_secret_does_not_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_secrets, "INTERVAL_SECONDS", 3600)
    monkeypatch.setattr(wrong_secrets, "MAX_WAIT_SECONDS", 3600)
    app = create_app(api.store, None, SECRET, "https://github.test")  # type: ignore[arg-type]
    own = Api(app, api.store, api.path, api.contract)
    guesses = [asyncio.create_task(guess(own)) for _ in range(20)]
    assert (await own.call("GET", "/clients", headers=BEARER)).status_code == 200
    # A request without a secret does not wait either. It is usually the first of a browser.
    assert (await own.call("GET", "/docs", headers={})).status_code == 401
    assert not any(task.done() for task in guesses)
    for task in guesses:
        task.cancel()
    await asyncio.gather(*guesses, return_exceptions=True)


async def test_addresses_wait_separately_and_at_most_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 1))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    guesses = WrongSecrets()
    for _ in range(300):
        await guesses.wait("192.0.2.1")
    assert waits[0] == 0.1
    assert waits[-1] == 10
    # One client can use all addresses of a /64.
    for address, seconds in (
        ("192.0.2.2", 0.1),
        ("2001:db8::1", 0.1),
        ("2001:db8::ffff:1", 0.2),
        ("2001:db8:0:1::1", 0.1),
        ("::ffff:192.0.2.2", 0.2),
        ("an unknown address", 0.1),
    ):
        await guesses.wait(address)
        assert waits[-1] == seconds, address


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_secrets, "INTERVAL_SECONDS", 0)
    guesses = WrongSecrets()
    for number in range(wrong_secrets.MAX_ADDRESSES + 50):
        await guesses.wait(f"10.0.{number // 256}.{number % 256}")
    assert len(guesses._next_answers) == wrong_secrets.MAX_ADDRESSES


async def test_log_has_the_address_and_not_the_secret(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_throttle, "INTERVAL_SECONDS", 0)
    headers = b"X-Forwarded-For: 203.0.113.9\r\n"
    for given in (b"Bearer a-guess", b"Basic YTpiLWd1ZXNz", b"Bearer " + SECRET.encode() + b"x"):
        answer = await wire.ask(b"GET /clients", headers + b"Authorization: " + given + b"\r\n")
        assert answer.status == 401
    lines = [
        record.getMessage() for record in caplog.records if record.name == wrong_secrets.__name__
    ]
    assert len(lines) == 3
    assert all("127.0.0.1" in line for line in lines)
    assert not any(word in str(lines) for word in ("guess", "YTpi", SECRET, "203.0.113.9"))


async def test_basic_password_from_a_browser_is_not_a_guess(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_throttle, "INTERVAL_SECONDS", 0)
    password = base64.b64encode(f"operator:{SECRET}".encode())
    answer = await wire.ask(b"GET /clients", b"Authorization: Basic " + password + b"\r\n")
    assert answer.status == 401
    assert [record for record in caplog.records if record.name == wrong_secrets.__name__] == []


def test_log_is_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    filter = LogThrottle()

    def passes(message: str, argument: object, level: int = logging.WARNING) -> str | None:
        record = logging.LogRecord("x", level, __file__, 1, message, (argument,), None)
        return record.getMessage() if filter.filter(record) else None

    lines = [passes("From %s", number) for number in range(100)]
    assert lines == ["From 0"] + [None] * 99
    assert passes("Something else: %s", 1) == "Something else: 1"
    assert passes("From %s", 1, logging.ERROR) == "From 1"
    monkeypatch.setattr(log_throttle, "INTERVAL_SECONDS", 0)
    assert passes("From %s", 100) == "From 100 (99 more like it before)"
    assert passes("From %s", 101) == "From 101"
