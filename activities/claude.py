"""Running Claude for one turn of a job, and delivering messages to a running turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from temporalio import activity

from agent.claude import prompts
from agent.claude.arguments import Launch
from agent.claude.budget import process_budget
from agent.claude.environment import behind_proxy, child_environment
from agent.claude.executable import find_executable
from agent.claude.process import ClaudeProcess, Confinement
from agent.claude.session_files import SessionFiles
from agent.message_queue import MessageQueue
from agent.process.marker import Marker
from agent.protocol import AgentLine, AgentResult
from agent.turn import TurnLimit, TurnReport, run_turn
from domain.errors import OrchestratorError
from domain.failures import FailureCode, TimeLimit
from domain.jobs import Job, JobType, Phase, Usage
from domain.messages import MessageType
from domain.names.ids import derived_id
from domain.repositories import Repository
from domain.timestamps import utc_now
from domain.usage_limits import UNKNOWN_RESET, blocks_all_models
from host.job_lookup import job_and_repository
from host.job_progress import Progress
from host.message_writer import MessageWriter
from host.session_resume import Conversations, Session, as_user_message
from host.slots.credential_holds import Credential
from host.slots.leases import Lease, LeaseKey, Leases
from sandbox import files
from sandbox.containment import Reach
from sandbox.gateway import Gateway, Passage
from sandbox.modes import CHECKED_FOR, Sandbox
from sandbox.supervision.limits import Limits
from settings import ClaudeSettings
from store.protocol import JobChanges, Store
from workspace.author import Identity
from workspace.lifecycle.worktrees import Worktrees
from workspace.worktree.worktree import Worktree

STOPPED_USAGE_TIMEOUT = timedelta(seconds=5)
"""How long a job that is stopped waits for the store to record its usage."""


@dataclass(frozen=True, slots=True)
class ClaudeSetup:
    """How Claude runs on this host.

    Args:
        claude: the settings of Claude; a job's own options come before them.
        search_path: PATH on which the CLI is found.
        inside_path: PATH of Claude and its commands.
        sessions_dir: directory of the jobs' home directories.
        operator_home: home of the operator, if Claude uses the operator's login. Claude then runs
            in it, not in a home of the job.
        data_id: marks the processes of this installation.
        boot_id: marks the processes of this worker process.
        silence: time without output and processor use after which Claude is stopped.
        identity: author of the commits.
        sandbox: contains Claude.
        gateway: leads Claude to the network; None if it has the host's network.
        limits: of each job.
    """

    claude: ClaudeSettings
    search_path: str
    inside_path: str
    sessions_dir: Path
    operator_home: Path | None
    data_id: str
    boot_id: str
    silence: timedelta
    identity: Identity
    sandbox: Sandbox
    gateway: Gateway | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class RunClaudeInput:
    """One turn. The first answers the prompt; later turns answer the given messages.

    `attempt` counts the starts of this turn, from 1. `message_ids` are in the user's order.
    Claude is stopped after `limit_seconds`, when `time_limit` has run out.
    """

    lease: LeaseKey
    turn: int
    attempt: int
    message_ids: list[str]
    limit_seconds: float
    time_limit: TimeLimit


@dataclass(frozen=True, slots=True)
class RunClaudeResult:
    """The ids of the user's messages that Claude has answered, earlier attempts included."""

    answered: list[str]


@dataclass(frozen=True, slots=True)
class DeliverMessageInput:
    """A message for the turn that runs under the lease."""

    lease: LeaseKey
    message_id: str


@dataclass(frozen=True, slots=True)
class DeliverMessageResult:
    """`delivered` is false if the message belongs to the next turn."""

    delivered: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """A job on this host, its worktree and its session files."""

    job: Job
    repository: Repository
    worktree: Worktree
    session_files: SessionFiles


class ClaudeActivities:
    """Runs Claude on this host."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        worktrees: Worktrees,
        credential: Credential,
        setup: ClaudeSetup,
    ) -> None:
        self._store = store
        self._leases = leases
        self._worktrees = worktrees
        self._credential = credential
        self._setup = setup
        self._conversations = Conversations(store)
        self._progress = Progress(store)

    @activity.defn
    async def run_claude(self, request: RunClaudeInput) -> RunClaudeResult:
        """Run one turn to its end. Idempotent: the next attempt resumes the session.

        Messages that are already in the session file are not sent again.

        Raises:
            JobFailure: Claude ended with an error. Its usage is recorded.
            LeaseLost: the lease ended or the job was stopped. No process is left.
        """
        lease = self._leases.require(request.lease)
        work = await lease.run(self._work(request.lease))
        report = await lease.run(self._run(lease, request, work))
        self._credential.record_outcome(report.result.failure)
        await lease.run(self._record(request, report))
        if report.result.failure is not None:
            raise report.result.failure
        return RunClaudeResult(report.consumed)

    @activity.defn
    async def deliver_message(self, request: DeliverMessageInput) -> DeliverMessageResult:
        """Send a message to the running turn. Idempotent: one process gets a message once."""
        lease = self._leases.find(request.lease)
        queue = lease.message_queue if lease is not None else None
        messages = await self._store.messages_by_id(request.lease.job_id, [request.message_id])
        if queue is None or not messages:
            return DeliverMessageResult(delivered=False)
        return DeliverMessageResult(await queue.offer(as_user_message(messages[0])))

    async def _run(self, lease: Lease, request: RunClaudeInput, work: _Work) -> TurnReport:
        # Opened before the CLI starts, so that messages sent during the start reach this turn.
        queue = lease.message_queue = MessageQueue()
        try:
            return await self._run_turn(request, work, queue)
        finally:
            lease.message_queue = None
            queue.close()

    async def _run_turn(
        self, request: RunClaudeInput, work: _Work, queue: MessageQueue
    ) -> TurnReport:
        key, job = request.lease, work.job
        await asyncio.to_thread(self._make_home, job.id)
        session = await self._conversations.resume_or_start(
            job,
            work.session_files,
            request.message_ids,
            lease=key.number,
            has_run_before=request.turn > 1 or request.attempt > 1,
        )
        executable = find_executable(self._setup.claude.bin, self._setup.search_path)
        launch = self._launch(work, session)
        confinement = await self._confinement(job, work.worktree, executable)
        environment = self._environment(job, confinement.passage)
        started_at = time.monotonic()
        async with (
            MessageWriter(self._store, job.id, key.number) as writer,
            await ClaudeProcess.start(
                executable, launch, environment, work.worktree.path, confinement, session.used
            ) as process,
        ):
            await self._progress.enter(
                key,
                Phase.WORKING,
                pid=process.pid,
                session_id=job.id,
                attempt=request.attempt,
                cost_is_estimate=self._setup.claude.is_subscription,
            )
            usage_recorded = False
            try:
                report = await run_turn(
                    process,
                    session.initial_messages,
                    keep_open=job.job_type is JobType.TASK,
                    on_line=lambda line: _write(writer, line),
                    queue=queue,
                    silence=self._setup.silence.total_seconds(),
                    limit=TurnLimit(request.limit_seconds, request.time_limit),
                )
                await self._add_usage(request, report.result.usage, report.seconds)
                usage_recorded = True
                return replace(
                    report, consumed=[*_already_in_session(request, session), *report.consumed]
                )
            finally:
                if not usage_recorded:
                    await self._record_stopped_usage(request, process, started_at)

    async def _record_stopped_usage(
        self, request: RunClaudeInput, process: ClaudeProcess, started_at: float
    ) -> None:
        # The slot must become free soon, so an outage of the store does not delay the stop.
        await process.stop()
        with contextlib.suppress(TimeoutError, OrchestratorError):
            async with asyncio.timeout(STOPPED_USAGE_TIMEOUT.total_seconds()):
                await self._add_usage(request, await process.used(), time.monotonic() - started_at)

    async def _add_usage(self, request: RunClaudeInput, usage: Usage, seconds: float) -> None:
        key = request.lease
        report_id = derived_id(key.job_id, "usage", key.number, request.turn, request.attempt)
        await self._store.add_usage(key.job_id, report_id, usage, seconds)

    async def _record(self, request: RunClaudeInput, report: TurnReport) -> None:
        """Store the answer and the session file."""
        key, result = request.lease, report.result
        await self._conversations.keep(key.job_id, report.session_file)
        changes: JobChanges = {"pid": None, "exit_code": report.exit_code, "model": result.model}
        if result.answer is not None:
            changes["result"] = result.answer
        await self._progress.update(key, changes)
        await self._hold_credential(result)

    async def _hold_credential(self, result: AgentResult) -> None:
        """After a usage limit, keep other jobs with the same credential from starting."""
        failure = result.failure
        if failure is None or failure.code is not FailureCode.USAGE_LIMIT:
            return
        if blocks_all_models(result.limit_type):
            await self._credential.hold(failure.resets_at or utc_now() + UNKNOWN_RESET)

    async def _work(self, key: LeaseKey) -> _Work:
        job, repository = await job_and_repository(self._store, key.job_id)
        worktree = self._worktrees.at(repository.owner_name, repository.repo_name, job.id)
        files = SessionFiles.of(self._environment(job, None), worktree.path, job.id)
        return _Work(job, repository, worktree, files)

    def _launch(self, work: _Work, session: Session) -> Launch:
        claude, job, options = self._setup.claude, work.job, work.job.options
        budget = options.max_budget_usd or claude.max_budget_usd
        return Launch(
            job_type=job.job_type,
            session_id=job.id,
            resume=session.used is not None,
            model=options.model or claude.model,
            max_turns=options.max_turns or claude.max_turns,
            max_budget_usd=process_budget(budget, job.usage, session.used or Usage()),
            system_prompt=prompts.system_prompt(job, work.repository),
            mcp_config=claude.mcp_config,
            mcp_servers=tuple(server.name for server in claude.mcp_servers),
            task_tools=claude.task_tools,
        )

    def _make_home(self, job_id: str) -> None:
        sessions_dir = self._setup.sessions_dir
        sessions_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.make_directory(sessions_dir, job_id)

    async def _confinement(self, job: Job, worktree: Worktree, executable: Path) -> Confinement:
        """Return the sandbox of the job's process.

        Raises:
            JobFailure: SANDBOX_UNAVAILABLE.
        """
        setup = self._setup
        containment = await setup.sandbox.require(within=CHECKED_FOR)
        executables = (executable, await asyncio.to_thread(executable.resolve))
        reach = Reach(
            writable=(worktree.path, worktree.git_dir, setup.sessions_dir / job.id, *self._login()),
            readable=(*worktree.reach.readable, *executables, *setup.claude.mcp_files),
            fixed=(worktree.path / ".git",),
            empty=(setup.operator_home,) if setup.operator_home else (),
        )
        passage = None
        if setup.gateway is not None:
            passage = Passage(setup.gateway, job.id, is_inside=containment.has_own_network)
        return Confinement(containment, reach, setup.limits, passage)

    def _login(self) -> tuple[Path, ...]:
        """Return the files of the operator's login, if jobs use it."""
        home = self._setup.operator_home
        return (home / ".claude", home / ".claude.json") if home else ()

    def _environment(self, job: Job, passage: Passage | None) -> dict[str, str]:
        setup = self._setup
        own_home = setup.sessions_dir / job.id
        passed = setup.claude.environment
        if passage is not None:
            passed = behind_proxy(passed, passage)
        return child_environment(
            passed,
            search_path=setup.inside_path,
            home=setup.operator_home or own_home,
            config_dir=None if setup.operator_home else own_home / ".claude",
            marker=Marker(setup.data_id, setup.boot_id, job.id),
            identity=setup.identity.environment(),
            temporary=own_home / "tmp",
        )


def _already_in_session(request: RunClaudeInput, session: Session) -> list[str]:
    """Return the messages that are not sent because the session file already has them."""
    sent = {message.id for message in session.initial_messages}
    return [message_id for message_id in request.message_ids if message_id not in sent]


async def _write(writer: MessageWriter, line: AgentLine) -> None:
    if line.stream == "stderr":
        await writer.add(MessageType.STDERR, line.text)
    elif line.is_stored:
        await writer.add(MessageType.STDOUT, line.text)
