"""The complete product on a local Supabase: a job, a conversation, and an outage."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.stack import OWNER, Stack, eventually, running_stack
from tests.unit.store.supabase.project import SupabaseProject

OUTAGE_SECONDS = 60.0


class Wire:
    """A proxy before the data API. While it is cut, no request is answered."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.is_cut = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if self.is_cut:
                return
            with socket.create_connection(self._target) as far:
                self._open |= {near, far}
                try:
                    self._pump(near, far)
                finally:
                    self._open -= {near, far}

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        while True:
            for end in select.select([near, far], [], [])[0]:
                data = end.recv(1 << 16)
                if not data or self.is_cut:
                    return
                other[end].sendall(data)


@pytest.fixture(scope="module")
def wire(supabase_project: SupabaseProject) -> Iterator[Wire]:
    supabase_project.empty()
    wire = Wire(supabase_project.url)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def hosted(
    wire: Wire, supabase_project: SupabaseProject, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    root: Path = tmp_path_factory.mktemp("hosted")
    settings = {"SUPABASE_URL": wire.url, "SUPABASE_SERVICE_ROLE_KEY": supabase_project.key}
    with running_stack(root, **settings) as stack:
        assert not (root / "data" / "orchestrator.db").exists()
        yield stack


def test_a_code_job_ends_in_a_pull_request(hosted: Stack):
    client, name = hosted.new_repository()
    job = hosted.wait_for(hosted.post_job(client, "Add a logout button"), "completed")
    [pull] = hosted.github.pull_requests(OWNER, name)
    assert (job["outcome"], job["pr_number"]) == ("pull_request", pull.number)
    seqs = [message["seq"] for message in hosted.messages(job["id"])]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_conversation_has_several_turns(hosted: Stack):
    client, _ = hosted.new_repository()
    job_id = hosted.post_job(client, "Can you spec me a feature?", jobType="task")
    hosted.wait_for(job_id, "waiting_for_user")
    hosted.call("POST", f"/jobs/{job_id}/message", {"message": "An analytics dashboard"})
    hosted.wait_for(job_id, lambda job: "analytics" in (job["result"] or ""))
    hosted.call("POST", f"/jobs/{job_id}/complete")
    assert hosted.wait_for(job_id, "completed")["outcome"] == "answered"


@pytest.mark.timeout(300)
def test_an_outage_during_a_job_loses_and_duplicates_nothing(hosted: Stack, wire: Wire):
    client, name = hosted.new_repository()
    lines = "".join(f"print('line {number}')\n" for number in range(200))
    command = f"cat > count.py <<'END'\n{lines}END\nfor i in 1 2 3; do echo $i; done"
    script = hosted.script(
        [
            {"text": "First", "delay": 2, "tools": [["Bash", {"command": command}]]},
            {"text": "Second", "delay": 4, "tools": [["Bash", {"command": "echo more"}]]},
            {"text": "Done."},
        ]
    )
    job_id = hosted.post_job(client, script)
    hosted.wait_for(job_id, "working")

    wire.cut()
    began = time.monotonic()
    health = eventually(lambda: _failing(hosted, "/health"), 30, "health reports the outage")
    assert health["store"] == {"ok": False}
    for path in (f"/jobs/{job_id}", "/jobs", "/queue", "/clients"):
        assert "error" in hosted.call("GET", path, status=503)
    while time.monotonic() - began < OUTAGE_SECONDS:
        time.sleep(0.5)
    wire.mend()

    eventually(lambda: hosted.http.get("/health").status_code == 200, 60, "the store is back")
    job = hosted.wait_for(job_id, "completed", 120)
    assert job["attempt"] == 1
    assert [pull.number for pull in hosted.github.pull_requests(OWNER, name)] == [job["pr_number"]]
    messages = hosted.messages(job_id)
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    output = [message["content"] for message in messages if message["type"] == "stdout"]
    assert len(output) == len(set(output))
    positions = [
        next(index for index, line in enumerate(output) if f'"text":"{word}"' in line)
        for word in ("First", "Second", "Done.")
    ]
    assert positions == sorted(positions)


def _failing(stack: Stack, path: str) -> dict[str, object] | None:
    response = stack.http.get(path)
    return response.json() if response.status_code == 503 else None
