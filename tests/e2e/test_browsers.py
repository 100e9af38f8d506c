"""Pages of other sites cannot affect this installation in a real browser.

The foreign site is `evil.test`, which the browser resolves to this host. So a page of
`evil.test:PORT` has the same origin as the server on that port, as after DNS rebinding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from commands.up import PORTS_CLOSED_TO_BROWSERS
from fakes.server import serving
from tests.chromium import Chromium, NavigationRefused, Page, running_chromium
from tests.e2e.steps import say
from tests.stack import Stack, eventually

UNSAFE_PORT = "net::ERR_UNSAFE_PORT"

Address = tuple[str, int]


def listeners(stack: Stack) -> list[Address]:
    """Where Temporal's process listens."""
    (pid,) = stack.pids("start-dev")
    found = psutil.Process(pid).net_connections("tcp")
    return [(each.laddr.ip, each.laddr.port) for each in found if each.status == "LISTEN"]


@pytest.fixture(scope="module")
def hidden_ui(stack: Stack) -> Address:
    """Where Temporal's own server of the UI is."""
    (address,) = [each for each in listeners(stack) if each[0] != "127.0.0.1"]
    assert httpx.get(f"http://{address[0]}:{address[1]}/", trust_env=False).status_code == 200
    return address


@pytest.fixture(scope="module")
def chromium(hidden_ui: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    profile: Path = tmp_path_factory.mktemp("chromium")
    names = {"evil.test": "127.0.0.1", "ui.evil.test": hidden_ui[0]}
    with running_chromium(profile, names) as browser:
        yield browser


@pytest.fixture(scope="module")
def foreign_site() -> Iterator[str]:
    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        await HTMLResponse("<!doctype html><title>Evil</title><body></body>")(scope, receive, send)

    with serving(site) as url:
        yield rebound(url)


@pytest.fixture(scope="module")
def tab(chromium: Chromium) -> Page:
    return chromium.page()


@pytest.fixture
def page(tab: Page, stack: Stack) -> Page:
    """A tab of a browser that has stored the API's secret, as after opening /docs."""
    url = stack.url + "/openapi.json"
    for address in (url.replace("://", f"://operator:{stack.secret}@"), url):
        tab.open(address)
        assert '"openapi"' in tab.text
    return tab


@pytest.fixture(scope="module")
def job(stack: Stack) -> str:
    """A conversation that waits for its user."""
    client, _ = stack.new_repository()
    job_id = stack.post_job(client, stack.script([say("What now?")]), jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    return job_id


@pytest.fixture(scope="module")
async def temporal(stack: Stack) -> TemporalClient:
    return await TemporalClient.connect(stack.temporal_address)


def rebound(url: str) -> str:
    return url.replace("127.0.0.1", "evil.test")


def fetch(url: str, **options: Any) -> str:
    """Return a script that sends a request and returns its status, or that it failed."""
    return f"fetch({json.dumps(url)}, {json.dumps(options)}).then(r => r.status, e => String(e))"


def form(url: str) -> str:
    """A script that posts an empty form."""
    return (
        "{ const form = document.createElement('form'); form.method = 'POST'; "
        f"form.action = {json.dumps(url)}; document.body.append(form); form.submit() }}"
    )


def test_a_foreign_page_cancels_no_job(stack: Stack, page: Page, foreign_site: str, job: str):
    page.open(foreign_site)
    url = f"{stack.url}/jobs/{job}/cancel"
    for mode in ("no-cors", "cors"):
        page.run(fetch(url, method="POST", mode=mode, credentials="include"))
    page.run(form(url))
    page.await_load()
    assert "for a page of another site" in page.text
    assert stack.job(job)["phase"] == "waiting_for_user"


def test_dns_rebinding_to_the_api_shows_nothing(stack: Stack, page: Page, job: str):
    page.open(rebound(stack.url) + "/health")
    assert "API_HOSTS" in page.text
    headers = {"Authorization": f"Bearer {stack.secret}"}
    for path in ("/health", "/docs", "/openapi.json", f"/jobs/{job}"):
        assert page.run(fetch(path, headers=headers)) == 421
    assert page.run(fetch(f"/jobs/{job}/cancel", method="POST", headers=headers)) == 421
    assert stack.job(job)["phase"] == "waiting_for_user"


async def test_dns_rebinding_to_the_ui_shows_nothing(
    stack: Stack, page: Page, job: str, temporal: TemporalClient
):
    page.open(rebound(stack.ui_url))
    assert "API_HOSTS" in page.text
    assert page.run("document.cookie") == ""
    workflows = "/api/v1/namespaces/default/workflows"
    assert page.run(fetch(workflows)) == 421
    assert page.run(fetch(f"{workflows}/job-{job}/terminate", method="POST", body="{}")) == 421
    assert await is_running(temporal, job)


async def test_a_foreign_page_cannot_send_requests_to_the_ui(
    stack: Stack, page: Page, foreign_site: str, job: str, temporal: TemporalClient
):
    page.open(foreign_site)
    url = f"{stack.ui_url}/api/v1/namespaces/default/workflows/job-{job}/terminate"
    page.run(fetch(url, method="POST", mode="no-cors", credentials="include", body="{}"))
    page.run(form(url))
    page.await_load()
    assert "for a page of another site" in page.text
    assert await is_running(temporal, job)


def test_the_browser_refuses_the_port_of_the_internal_ui(
    page: Page, hidden_ui: Address, foreign_site: str
):
    address, port = hidden_ui
    for host in (address, "ui.evil.test"):
        with pytest.raises(NavigationRefused, match=UNSAFE_PORT):
            page.open(f"http://{host}:{port}/")
    page.open(foreign_site)
    for host in (address, "ui.evil.test"):
        assert "TypeError" in page.run(fetch(f"http://{host}:{port}/", mode="no-cors"))


async def test_a_foreign_page_cannot_change_a_workflow(
    stack: Stack, page: Page, foreign_site: str, job: str, temporal: TemporalClient
):
    """The HTTP API accepts text/plain, which a page may send to any site without a preflight."""
    workflows = (
        f"http://127.0.0.1:{stack.environment['TEMPORAL_HTTP_PORT']}"
        "/api/v1/namespaces/default/workflows"
    )
    start = {"workflowType": {"name": "SyncRepositoriesWorkflow"}, "taskQueue": {"name": "jobs"}}
    for site in (foreign_site, rebound(workflows)):
        page.open(site)
        for url, body in ((f"{workflows}/job-{job}/terminate", {}), (f"{workflows}/forged", start)):
            page.run(
                fetch(
                    url if site == foreign_site else rebound(url),
                    method="POST",
                    mode="no-cors" if site == foreign_site else "same-origin",
                    headers={"Content-Type": "text/plain"},
                    body=json.dumps(body),
                )
            )
    assert await is_running(temporal, job)
    with pytest.raises(RPCError, match="not found"):
        await temporal.get_workflow_handle("forged").describe()


def test_no_port_of_temporal_serves_a_page(stack: Stack, page: Page):
    """Browsers refuse the port, or the server speaks no HTTP/1.1, or it refuses the host."""
    found = listeners(stack)
    assert len(found) >= 4
    for address, port in found:
        if port in PORTS_CLOSED_TO_BROWSERS:
            with pytest.raises(NavigationRefused, match=UNSAFE_PORT):
                page.open(f"http://evil.test:{port}/")
            continue
        for path in ("/", "/metrics", "/debug/pprof/", "/api/v1/namespaces"):
            assert answer_to_a_foreign_page(f"http://{address}:{port}{path}") in (None, 403, 404)


def answer_to_a_foreign_page(url: str) -> int | None:
    """The status of the answer, if it is HTTP."""
    origin = f"http://evil.test:{urlsplit(url).port}"
    headers = {"Host": origin[7:], "Origin": origin, "Content-Type": "text/plain"}
    try:
        return httpx.post(url, headers=headers, content="{}", trust_env=False).status_code
    except httpx.RemoteProtocolError:
        return None


def test_the_documentation_loads_from_no_other_site(stack: Stack, page: Page):
    page.open(stack.url + "/docs")
    eventually(lambda: page.run("document.querySelectorAll('.opblock').length") == 18)
    assert page.run("document.querySelectorAll('.btn.authorize').length") == 1
    assert page.complaints == []
    assert all(url.startswith((stack.url, "data:")) for url in page.requested)
    headers = {"Authorization": f"Bearer {stack.secret}", "Content-Type": "application/json"}
    name = json.dumps({"name": "From the page"})
    assert page.run(fetch("/clients", method="POST", headers=headers, body=name)) == 201
    # The browser adds its stored Authorization if the page sets none.
    assert page.run(fetch("/clients", credentials="include")) == 401


def test_the_ui_works_at_its_address(stack: Stack, page: Page, job: str):
    page.open(stack.ui_url + "/namespaces/default/workflows")
    eventually(lambda: f"job-{job}" in page.text, 60, "the list of workflows is shown")
    cookies = dict(part.split("=") for part in page.run("document.cookie").split("; "))
    url = "/api/v1/namespaces/default/workflows/none/terminate"
    headers = {"X-CSRF-TOKEN": cookies["_csrf"], "Content-Type": "application/json"}
    # The 404 comes from Temporal, so the request was forwarded.
    assert page.run(fetch(url, method="POST", headers=headers, body="{}")) == 404


async def is_running(temporal: TemporalClient, job: str) -> bool:
    found = await temporal.get_workflow_handle(f"job-{job}").describe()
    return found.status is WorkflowExecutionStatus.RUNNING
