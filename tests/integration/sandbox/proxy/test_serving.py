"""One job's proxy: start, end, log and forwards."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from inspect import iscoroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from domain.configuration.isolation import Network
from sandbox.proxy import inside
from sandbox.proxy.policy import Policy
from sandbox.proxy.server import Forward
from tests.integration.sandbox.proxy.clients import (
    echo,
    ended,
    open_tunnel,
    post,
    reset,
    silent,
    until,
)
from tests.integration.sandbox.proxy.harness import (
    PATIENCE,
    PLACEHOLDER,
    FakeResolver,
    Recorder,
    connected,
    everywhere_at,
    exchange,
    new_listener,
    proxy,
    server,
    upstream,
)


def tasks_of_the_proxy() -> list[str]:
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    files = [Path(each.cr_code.co_filename) for each in coroutines if iscoroutine(each)]
    return [str(file) for file in files if file.parent == Path(inside.__file__).parent]


async def test_the_end_closes_all_connections_and_leaves_no_task():
    forwarded = new_listener()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(server(silent))
        model = await stack.enter_async_context(upstream(f"http://127.0.0.1:{port}"))
        running = AsyncExitStack()
        forward = Forward(forwarded, "127.0.0.1", port)
        through = await running.enter_async_context(
            proxy(everywhere_at(port), model=model, forwards=[forward])
        )
        raws = [await stack.enter_async_context(connected(through)) for _ in range(4)]
        half, asking, tunnelling, fetching = raws
        await half.send(b"POST /v1/mess")
        await asking.send(post())
        await open_tunnel(tunnelling, port)
        await fetching.send(
            f"GET http://server.example:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        forwarding = await stack.enter_async_context(connected(forwarded.getsockname()[1]))
        await forwarding.send(b"x")
        await until(lambda: len(tasks_of_the_proxy()) == 5 + 2 * 2)  # a relay has two more
        async with asyncio.timeout(PATIENCE):
            await running.aclose()
        assert not tasks_of_the_proxy()
        assert all([await ended(raw) for raw in (*raws, forwarding)])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", through)


async def test_jobs_in_one_process_have_separate_placeholders_and_policies():
    recorder = Recorder()
    async with server(recorder) as port, upstream(f"http://127.0.0.1:{port}") as model:
        async with proxy(everywhere_at(port), model=model) as one:
            async with proxy(Policy(Network.NONE), model=model, placeholder="another") as other:
                wrong = (
                    f"HTTP/1.1\r\nHost: x\r\nx-api-key: {PLACEHOLDER}\r\nConnection: close\r\n\r\n"
                )
                answer = await exchange(other, f"GET /v1/messages {wrong}".encode())
                assert answer.startswith("HTTP/1.1 401 ")
                answer = await exchange(
                    other, f"GET http://server.example:{port}/ {wrong}".encode()
                )
                assert answer.startswith("HTTP/1.1 403 ")
            answer = await exchange(one, f"GET /v1/messages {wrong}".encode())
            assert answer.startswith("HTTP/1.1 200 ")


async def test_a_forward_leads_only_to_its_service():
    forwarded = new_listener()
    async with server(echo) as port:
        forward = Forward(forwarded, "127.0.0.1", port)
        async with proxy(Policy(Network.NONE), forwards=[forward]):
            async with connected(forwarded.getsockname()[1]) as raw:
                await raw.send(b"CONNECT 10.0.0.1:22 HTTP/1.1\r\n\r\n")
                raw.writer.write_eof()
                assert await raw.rest() == b"CONNECT 10.0.0.1:22 HTTP/1.1\r\n\r\n"


async def test_a_forward_finds_its_service_by_name():
    forwarded = new_listener()
    names = FakeResolver({"mcp.internal": [["127.0.0.1"]]})
    async with server(echo) as port:
        forward = Forward(forwarded, "mcp.internal", port)
        async with proxy(Policy(Network.NONE), forwards=[forward], resolve=names):
            async with connected(forwarded.getsockname()[1]) as raw:
                await raw.send(b"hello")
                assert await raw.reader.readexactly(5) == b"hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.internal"])
async def test_a_forward_to_an_unreachable_service_is_reset_and_logged(
    host: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "sandbox.proxy")
    async with server(echo) as port:
        pass
    forwarded = new_listener()
    async with proxy(Policy(Network.NONE), forwards=[Forward(forwarded, host, port)]):
        for _ in range(2):
            async with connected(forwarded.getsockname()[1]) as raw:
                assert await reset(raw)
    assert caplog.text.count(f"{host}:{port} cannot be reached: ") == 1


async def test_refusals_are_logged_once_for_each_host(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "sandbox.proxy")
    async with proxy(everywhere_at(443), job_id="job-7") as through:
        for host in ("a.example", "b.example", "a.example"):
            for port in (443, 8443):
                target = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                assert (await exchange(through, target.encode())).startswith("HTTP/1.1 403 ")
    assert [record.getMessage() for record in caplog.records] == [
        f"Job job-7: The sandbox does not allow {host}. The operator can add it to SANDBOX_HOSTS."
        for host in ("a.example", "b.example")
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_an_internal_error_ends_one_connection_and_is_logged(
    caplog: pytest.LogCaptureFixture,
):
    async def broken(_: str) -> list[Any]:
        raise RuntimeError("a mistake")

    request = b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with proxy(Policy(Network.INTERNET), resolve=broken) as through:
        for _ in range(2):
            async with connected(through) as raw:
                await raw.send(request)
                assert await ended(raw)
    assert caplog.text.count("RuntimeError: a mistake") == 2


def test_it_works_under_uvloop():
    async def scenario() -> None:
        recorder = Recorder()
        async with server(echo) as port, server(recorder) as at:
            async with upstream(f"http://127.0.0.1:{at}") as model:
                async with proxy(everywhere_at(port), model=model) as through:
                    async with connected(through) as raw, connected(through) as asking:
                        await open_tunnel(raw, port)
                        await raw.send(b"x" * 1_000_000)
                        await raw.reader.readexactly(1_000_000)
                        for _ in range(2):
                            await asking.send(post())
                            assert (await asking.head()).startswith("HTTP/1.1 200 ")
                            await asking.reader.readexactly(2)
        assert len(recorder.received) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
