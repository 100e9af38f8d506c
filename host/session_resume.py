"""Determine where a turn resumes: its session, or the messages of the job if that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from agent.claude import prompts
from agent.claude.session_files import SessionFiles, holds_message, usage_so_far
from agent.message_queue import UserMessage
from domain.jobs import Job, JobType, Usage
from domain.messages import Message
from domain.names.ids import derived_id, new_id
from host.job_progress import Progress
from store.protocol import Store

HISTORY_PAGE = 1000
"""Messages per read; bounds the memory of a long conversation."""

SESSION_LOST_NOTICES = {
    JobType.CODE: (
        "Claude has no session to resume on this host. It restarts with the current worktree."
    ),
    JobType.TASK: "Claude's session was lost. It restarts with the messages of this conversation.",
}


@dataclass(frozen=True, slots=True)
class Session:
    """The starting point of a turn.

    `used` is the usage of the session to resume; None for a new session.
    """

    used: Usage | None
    initial_messages: list[UserMessage]


class Conversations:
    """Sessions of jobs, on this host and in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress(store)

    async def resume_or_start(
        self,
        job: Job,
        files: SessionFiles,
        message_ids: list[str],
        *,
        lease: int,
        has_run_before: bool,
    ) -> Session:
        """Return the starting point of the next process, and put its session file in place.

        Args:
            job: the job.
            files: the session file on this host.
            message_ids: the user's messages for this turn. Messages that the session already
                contains are not sent again.
            lease: number of the current lease.
            has_run_before: whether Claude may have worked on the job before.
        """
        users = await self._messages(job.id, message_ids)
        transcript = await self._transcript(job, files)
        guide = await asyncio.to_thread(prompts.read_guide, files.cwd)
        opening = prompts.first_prompt(job, guide)
        if transcript is not None:
            messages = [_first_message(job, opening), *users]
            return await asyncio.to_thread(_resumed, transcript, messages)
        await asyncio.to_thread(files.discard)
        if has_run_before:
            opening = await self._restart(job, guide, message_ids, lease)
        return Session(None, [_first_message(job, opening), *users])

    async def keep(self, job_id: str, session_file: bytes | None) -> None:
        """Save the session file after a turn.

        If there is none, an empty file is saved. The earlier file does not contain this turn, so
        the next turn must start a new session.
        """
        await self._store.save_session(job_id, job_id, session_file or b"")

    async def _transcript(self, job: Job, files: SessionFiles) -> bytes | None:
        """Return the newest session file, and restore it on disk if it is in the store only."""
        on_disk = await asyncio.to_thread(files.read)
        if job.job_type is JobType.CODE:
            # The session belongs to the files of the worktree; on another host, both start again.
            return on_disk
        saved = await self._store.load_session(job.id)
        if saved is None:
            return on_disk
        if not saved[1]:
            return None
        # The CLI only appends (measured), so a file that does not start with the saved one is older
        # than a turn on another host.
        if on_disk is not None and on_disk.startswith(saved[1]):
            return on_disk
        await asyncio.to_thread(files.restore, saved[1])
        return saved[1]

    async def _restart(self, job: Job, guide: str, message_ids: list[str], lease: int) -> str:
        await self._progress.notify(
            job.id, SESSION_LOST_NOTICES[job.job_type], once=("begun again", lease), lease=lease
        )
        if job.job_type is JobType.CODE:
            return prompts.restart_prompt(job, guide)
        return prompts.rebuilt_conversation_prompt(
            job, guide, await self._history(job.id, message_ids)
        )

    async def _history(self, job_id: str, exclude: Collection[str]) -> list[str]:
        """Return the conversation so far without the messages that are still to be sent."""
        history: list[str] = []
        after = 0
        while page := await self._store.read_messages(job_id, after, HISTORY_PAGE):
            history += [
                part
                for message in page
                if message.id not in exclude and (part := prompts.history_entry(message))
            ]
            after = page[-1].seq
            if len(page) < HISTORY_PAGE:
                break
        return history

    async def _messages(self, job_id: str, ids: list[str]) -> list[UserMessage]:
        return [
            as_user_message(message) for message in await self._store.messages_by_id(job_id, ids)
        ]


def as_user_message(message: Message) -> UserMessage:
    """Convert a stored message for a turn."""
    return UserMessage(message.id, message.content)


def _resumed(transcript: bytes, messages: list[UserMessage]) -> Session:
    unseen = [message for message in messages if not holds_message(transcript, message.id)]
    # The CLI does not answer a message whose id it knows, so this message has a new id.
    first = unseen or [UserMessage(new_id(), prompts.CONTINUE)]
    return Session(usage_so_far(transcript), first)


def _first_message(job: Job, text: str) -> UserMessage:
    return UserMessage(derived_id(job.id, "prompt"), text)
