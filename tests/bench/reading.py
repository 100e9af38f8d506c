"""Latency of the API, and memory of an idle installation."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from domain.messages import MessageType, NewMessage
from domain.names.ids import new_id
from domain.timestamps import utc_now
from store.sqlite.store import SqliteStore
from tests.stack import Stack

CALLS = 100


def report_memory(stack: Stack) -> None:
    sizes = {
        name: sum(psutil.Process(pid).memory_info().rss for pid in stack.pids(words)) / 2**20
        for name, words in (("api", "cli.py api"), ("worker", "cli.py worker"))
    }
    print(
        f"idle memory, API and worker      {sum(sizes.values()):6.0f} MB  (goal: under 250) {sizes}"
    )


def report_latency(stack: Stack) -> None:
    client, _ = stack.new_repository()
    job_id = stack.post_job(client, "Something to read", jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    asyncio.run(_fill(stack.root / "data" / "orchestrator.db", job_id))
    body = {"clientId": client, "prompt": "x", "jobType": "task"}
    # Both slots are in use, so the jobs do not run and only the API is measured.
    holding = stack.script([{"text": "Late", "delay": 600}], repeat_last=True)
    created = [stack.post_job(client, holding) for _ in range(2)]
    for each in created:
        stack.wait_for(each, "working")

    def post() -> None:
        answer = stack.call("POST", "/jobs", {**body, "title": uuid.uuid4().hex}, 201)
        created.append(answer["id"])

    print(f"POST /jobs p50                   {_p50(post):6.1f} ms  (goal: under 20)")
    for each in reversed(created):
        stack.call("POST", f"/jobs/{each}/cancel")
    _show("GET /jobs/:id with 1,000 messages", stack, f"/jobs/{job_id}?includeMessages=true", 20)
    _show("GET /jobs/:id", stack, f"/jobs/{job_id}", None)
    _show("GET /jobs?limit=50", stack, "/jobs?limit=50", None)
    _show("GET /queue", stack, "/queue", None)


def _show(name: str, stack: Stack, path: str, goal: int | None) -> None:
    aim = f"  (goal: under {goal})" if goal else ""
    print(f"{name + ' p50':<38}{_p50(lambda: stack.call('GET', path)):6.1f} ms{aim}")


def _p50(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def _fill(path: Path, job_id: str) -> None:
    store = SqliteStore(path)
    await store.open()
    lines = [
        NewMessage(new_id(), MessageType.STDOUT, f"{number:>6} " + "x" * 440, utc_now())
        for number in range(1000)
    ]
    await store.append_messages(job_id, lines)
    await store.close()
