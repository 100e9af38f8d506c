"""Calling an activity under its policy, and work that a cancellation must not stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority

with workflow.unsafe.imports_passed_through():
    from workflows.policies import Policy

Activities = TypeVar("Activities")
Request = TypeVar("Request")
Result = TypeVar("Result")
Activity = Callable[[Activities, Request], Awaitable[Result]]


def start(
    activity: Activity[Activities, Request, Result],
    request: Request,
    task_queue: str,
    policy: Policy,
    summary: str | None = None,
    priority: Priority = Priority.default,
) -> workflow.ActivityHandle[Result]:
    """Start an activity and return its handle.

    `summary` is shown in the Web UI. The default `priority` is that of the workflow.
    """
    return workflow.start_activity_method(
        activity,
        request,
        task_queue=task_queue,
        schedule_to_close_timeout=policy.schedule_to_close,
        schedule_to_start_timeout=policy.schedule_to_start,
        start_to_close_timeout=policy.start_to_close,
        heartbeat_timeout=policy.heartbeat,
        retry_policy=policy.retry,
        cancellation_type=policy.cancellation,
        summary=summary,
        priority=priority,
    )


async def perform(
    activity: Activity[Activities, Request, Result],
    request: Request,
    task_queue: str,
    policy: Policy,
    summary: str | None = None,
) -> Result:
    """Run an activity and return its result.

    Raises:
        ActivityError: the last attempt that the policy allows has failed.
    """
    return await start(activity, request, task_queue, policy, summary)


async def shield_until_done(work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`. A cancellation of the workflow does not reach it."""
    running = asyncio.ensure_future(work)
    while not running.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(running)
    return running.result()
